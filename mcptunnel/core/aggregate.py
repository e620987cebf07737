"""Several servers shown as one: what is asked of all of them, and how their answers become one answer.

A server that is down, slow or lying costs its own part of the answer and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mcptunnel.core.directory import Directory
from mcptunnel.core.dispatch import LISTS, Links, authorize, reference, to_named, unknown
from mcptunnel.core.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError, UpstreamError
from mcptunnel.core.exchange import Exchange, error_code
from mcptunnel.core.fanout import ask, ask_all, fan_out
from mcptunnel.core.jsonrpc import Message, Span, decode, encode, loads, result_reply
from mcptunnel.core.link import unavailable
from mcptunnel.core.listen import listen
from mcptunnel.core.lists import Part, listing, whole
from mcptunnel.core.mcp import LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS
from mcptunnel.core.naming import found_by_form, shown
from mcptunnel.core.principal import Principal, permits, reaches
from mcptunnel.core.routing import Target, candidates, maybe_shortened

__all__ = ["PAGE", "Directory", "to_many"]

# Entries of one page of a list of several servers.
PAGE: Final = 1000


def to_many(links: Links, exchange: Exchange, target: Target, directory: Directory, identity: dict[str, str]) -> None:
    """Dispatch to a target of several servers.

    Args:
        links: Where the links are.
        exchange: The request.
        target: The servers.
        directory: What is known of their names and resources.
        identity: Our own ``serverInfo``.

    Raises:
        RpcError: Refused before anything was sent.
    """
    message = exchange.message
    method = message.method or ""
    servers = [name for name in target.servers if reaches(exchange.principal, name)]
    if method == "initialize":
        _initialize(links, exchange, servers, target.patience, identity)
    elif method == "server/discover":
        _discover(links, exchange, servers, target.patience, identity)
    elif method in LISTS:
        _list(links, exchange, servers, target, directory)
    elif method == "subscriptions/listen" and exchange.era == "modern":
        listen(links, exchange, servers, target.patience, directory)
    elif method == "ping" and exchange.era == "legacy":
        _answer(exchange, {})
    elif method == "logging/setLevel" and exchange.era == "legacy":
        _every(links, exchange, servers, target.patience)
    elif (named := reference(exchange)) is not None:
        place, name = named
        exchange.record.target = name
        if method in ("tools/call", "prompts/get"):
            _by_name(links, exchange, target, directory, place, name, method)
        elif method == "completion/complete" and "name" in message.inside(message.params["ref"], "params.ref"):
            _by_name(links, exchange, target, directory, place, name, "prompts/get")
        else:
            _by_uri(links, exchange, servers, directory, name)
    else:
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}", reason="method_not_found")


def _by_name(
    links: Links, exchange: Exchange, target: Target, directory: Directory, place: Span, name: str, method: str
) -> None:
    list_method = "tools/list" if method == "tools/call" else "prompts/list"
    by_form = found_by_form(target, list_method, name)

    def send(found: tuple[str, str] | None) -> None:
        if found is None:
            raise unknown(method, name)
        try:
            to_named(links, exchange, found[0], place, found[1])
        except RpcError as e:
            # The caller knows the name as it is shown.
            raise unknown(method, name) if e.reason.startswith("unknown_") else e from None

    def listed(answers: dict[str, Any]) -> None:
        shown(target, list_method, {k: v for k, v in answers.items() if isinstance(v, Part)}, directory)
        found = directory.named(list_method, name)
        failure = next((answer for answer in answers.values() if isinstance(answer, RpcError)), None)
        if found is None and failure is not None:
            raise failure
        # A whole name of that form that no list has: its server knows what to say.
        send(found or by_form)

    if target.prefix == "always" and not maybe_shortened(name):
        send(by_form)
    elif (known := directory.named(list_method, name)) is not None:
        send(known)
    else:
        # Nothing has been listed here yet, or too long ago. Names that may collide need the lists of all servers.
        servers = (
            [server for server in candidates(target, name) if reaches(exchange.principal, server)]
            if target.prefix == "always"
            else list(target.servers)
        )
        if target.prefix != "always" and all((list_method, server) in directory.listed for server in servers):
            servers = []
        question = listing(exchange, list_method)
        fan_out(
            links,
            exchange,
            servers,
            lambda server, settle: whole(links, exchange, server, question, target.patience, settle),
            listed,
        )


def _by_uri(links: Links, exchange: Exchange, servers: list[str], directory: Directory, uri: str) -> None:
    """To the server that showed ``uri``; unknown ones are tried in order: results link to what no list has."""
    owner = directory.owner(uri)
    likely = [server for server in directory.likely(uri) if server in servers]
    candidates = [owner] if owner in servers else list(dict.fromkeys([*likely, *servers]))

    def attempt(rest: list[str], last: RpcError | Message | None) -> None:
        while rest:
            server, rest = rest[0], rest[1:]
            try:
                authorize(exchange, server, uri)
            except RpcError as e:
                last = last or e
                continue
            # One server answers in the end, and it may take its time.
            ask(links, exchange, server, exchange.message.raw, partial(answered, server, rest, last), None)
            return
        if isinstance(last, Message):
            exchange.finish(last)
        else:
            exchange.fail(last or unknown("resources/read", uri))

    def answered(
        server: str, rest: list[str], last: RpcError | Message | None, reply: Message | None, error: RpcError | None
    ) -> None:
        exchange.record.upstream = server
        if reply is not None and reply.kind == "result":
            directory.learn(uri, server)
            exchange.finish(reply)
        else:
            attempt(rest, _telling(last, error or reply))

    attempt(candidates, None)


def _telling(earlier: RpcError | Message | None, later: RpcError | Message | None) -> RpcError | Message | None:
    """Which of two failures says more: a server that has no resources at all says nothing about this one."""
    if earlier is None or later is None:
        return earlier or later
    code = later.code if isinstance(later, RpcError) else error_code(later)
    return earlier if code == METHOD_NOT_FOUND else later


def _missing(method: str, answer: Part | Message | RpcError) -> str | None:
    """Why a list goes without a server's part; None when it does not, or when the server has no such list."""
    if isinstance(answer, RpcError):
        return answer.message
    if isinstance(answer, Message) and (code := error_code(answer)) != METHOD_NOT_FOUND:
        return f"it answered {method} with error {code}"
    return None


def _every(links: Links, exchange: Exchange, servers: list[str], patience: float) -> None:
    """Ask every server the same and answer with an empty result when any of them took it."""

    def merge(answers: dict[str, Any]) -> None:
        failures = [a for a in answers.values() if isinstance(a, RpcError) or a.kind == "error"]
        if answers and len(failures) == len(answers):
            raise RpcError(METHOD_NOT_FOUND, "no server behind this address does that", reason="method_not_found")
        _answer(exchange, {})

    ask_all(links, exchange, servers, patience, merge)


def _answer(exchange: Exchange, result: dict[str, Any]) -> None:
    exchange.finish(decode(result_reply(exchange.message.id_raw, encode(result))))


def _results(answers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The decoded results of those that answered with one.

    Raises:
        RpcError: None did.
    """
    good: dict[str, dict[str, Any]] = {}
    for server, answer in answers.items():
        if isinstance(answer, Message) and answer.kind == "result":
            try:
                value = answer.at(answer.spans["result"])
            except RpcError:
                continue
            if isinstance(value, dict):
                good[server] = value
    if answers and not good:
        for answer in answers.values():
            if isinstance(answer, RpcError) and not isinstance(answer, UpstreamError):
                raise answer
        raise unavailable(", ".join(answers), "none of them answered")
    return good


def _merged_capabilities(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What some server can do and what we can pass on for it."""
    merged: dict[str, Any] = {}
    for result in results.values():
        capabilities = result.get("capabilities")
        for name, value in capabilities.items() if isinstance(capabilities, dict) else ():
            if name in ("tools", "prompts", "resources", "logging", "completions"):
                known = merged.setdefault(name, {})
                if isinstance(value, dict):
                    known.update({k: v or known.get(k, False) for k, v in value.items()})
    return merged


def _instructions(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    texts = [f"{name}: {text}" for name, r in results.items() if isinstance(text := r.get("instructions"), str)]
    return {"instructions": "\n\n".join(texts)} if texts else {}


def _initialize(
    links: Links, exchange: Exchange, servers: list[str], patience: float, identity: dict[str, str]
) -> None:
    wanted = exchange.message.param("protocolVersion")
    if not isinstance(wanted, str):
        raise RpcError(INVALID_PARAMS, "params.protocolVersion: expected a string", reason="invalid_params")

    def merge(answers: dict[str, Any]) -> None:
        results = _results(answers)
        _answer(
            exchange,
            {
                "protocolVersion": wanted if wanted in LEGACY_VERSIONS else LATEST_LEGACY,
                "capabilities": _merged_capabilities(results),
                "serverInfo": identity,
                **_instructions(results),
            },
        )

    ask_all(links, exchange, servers, patience, merge)


def _discover(links: Links, exchange: Exchange, servers: list[str], patience: float, identity: dict[str, str]) -> None:
    def merge(answers: dict[str, Any]) -> None:
        results = _results(answers)
        _answer(
            exchange,
            {
                "resultType": "complete",
                "supportedVersions": list(MODERN_VERSIONS),
                "capabilities": _merged_capabilities(results),
                "serverInfo": identity,
                "_meta": {"io.modelcontextprotocol/serverInfo": identity},
                **_caching(results, exchange.principal),
                **_instructions(results),
            },
        )

    ask_all(links, exchange, servers, patience, merge)


def _caching(results: dict[str, dict[str, Any]], principal: Principal) -> dict[str, Any]:
    """The shortest life and the narrowest scope of the parts (2026-07-28, "Caching"); chosen for one is private."""
    lives = [v if isinstance(v := r.get("ttlMs"), int) else 0 for r in results.values()]
    public = principal.allow is None and all(r.get("cacheScope") == "public" for r in results.values())
    return {"ttlMs": min(lives, default=0), "cacheScope": "public" if public and results else "private"}


def _list(links: Links, exchange: Exchange, servers: list[str], target: Target, directory: Directory) -> None:
    method = exchange.message.method or ""
    first = _place(exchange, directory)
    if LISTS[method][1] == "name" and target.prefix != "always":
        # Which names collide must not depend on who asks.
        servers = list(target.servers)

    def question(server: str, settle: Callable[[Any], None]) -> None:
        def done(answer: Part | Message | RpcError) -> None:
            directory.heard(server, method, _missing(method, answer))
            settle(answer)

        whole(links, exchange, server, first_page, target.patience, done)

    def merge(answers: dict[str, Any]) -> None:
        good = {name: answer for name, answer in answers.items() if isinstance(answer, Part)}
        if answers and not good:
            refusal = next((a for a in answers.values() if isinstance(a, Message)), None)
            if refusal is None:
                _results(answers)
            else:
                exchange.finish(refusal)
                return
        every = [
            entry.raw
            for entry in shown(target, method, good, directory)
            if permits(exchange.principal, entry.server, entry.own)
        ]
        page = every[first : first + PAGE] if directory.seal is not None else every
        result = b'"%b":[%b]' % (LISTS[method][0].encode(), b",".join(page))
        if first + len(page) < len(every) and directory.seal is not None:
            place = encode([method, first + PAGE])
            result += b',"nextCursor":%b' % encode(directory.seal.close("cursor", exchange.principal.name, place))
        if exchange.era == "modern":
            hints = _caching({server: part.hints for server, part in good.items()}, exchange.principal)
            result += b',"resultType":"complete",' + encode(hints)[1:-1]
        exchange.finish(decode(result_reply(exchange.message.id_raw, b"{%b}" % result)))

    first_page = exchange.message if first == 0 else listing(exchange, method)
    fan_out(links, exchange, servers, question, merge)


def _place(exchange: Exchange, directory: Directory) -> int:
    """Where in the whole list the page begins that the client asks for.

    Raises:
        RpcError: The cursor is none that this list has given to this principal.
    """
    cursor = exchange.message.param("cursor")
    if cursor is None:
        return 0
    found = None
    if isinstance(cursor, str) and directory.seal is not None:
        found = directory.seal.open("cursor", exchange.principal.name, cursor)
    method, place = (None, 0) if found is None else loads(found.text)
    if method != exchange.message.method:
        raise RpcError(INVALID_PARAMS, "params.cursor: not a cursor of this list", reason="invalid_cursor")
    return int(place)
