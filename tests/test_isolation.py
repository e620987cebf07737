"""What belongs to one principal cannot be named, cancelled, replayed, answered or read by another.

Unknown and foreign look the same, to the byte but for the id that the client itself has chosen.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any, Final

from tests.clients import ACCEPT, INITIALIZE, HttpClient, Reply, events, modern
from tests.daemon import Daemon, DaemonCase
from tests.test_sse_client import stream

FULL: Final = "tests.full"
TOKENS: Final = {"ada": "ada-5f1d7c0a-outside-token", "eve": "eve-77b0e2f1-outside-token"}
KEY: Final = "a-sealing-key-of-the-outside-tests-of-more-than-thirty-two-bytes"
PATH: Final = "/servers/work/mcp"
INVENTED: Final = "an-id-that-was-never-given-to-anybody"


def request(method: str, number: Any = 7, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()


def note(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


def looks(reply: Reply) -> tuple[int, bytes]:
    """What a client can tell replies apart by."""
    return reply.status, reply.body or json.dumps(reply.messages).encode()


class IsolationCase(DaemonCase):
    """Two principals; a server that asks and waits."""

    def start_daemon(self, **more: Any) -> Daemon:
        tokens = [{"name": name, "token": token} for name, token in TOKENS.items()]
        servers = {"work": {"url": self.upstream_url}, "old": {"url": self.upstream_url, "era": "legacy"}}
        return self.daemon(servers={**servers, "demo": self.child()}, auth={"tokens": tokens}, **more)

    def setUp(self) -> None:
        super().setUp()
        self.upstream_url = self.upstream(FULL)

    def client(self, daemon: Daemon, name: str) -> HttpClient:
        return HttpClient(port=daemon.port, tls=None, headers={"Authorization": f"Bearer {TOKENS[name]}"})

    def pair(self, daemon: Daemon) -> tuple[HttpClient, HttpClient]:
        return self.client(daemon, "ada"), self.client(daemon, "eve")

    @contextlib.contextmanager
    def waiting(self, client: HttpClient, key: str, headers: dict[str, str], body: bytes) -> Iterator[Any]:
        """A call that has begun: its further messages."""
        with client.open("POST", PATH, body, headers) as (response, _):
            self.assertEqual(response.status, 200)
            messages = events(response)
            _, first = next(messages)
            self.assertEqual(first["params"]["message"], key)
            yield messages

    def cancelled(self, client: HttpClient, key: str) -> str:
        return client.modern(PATH, "tools/call", name="cancelled", arguments={"key": key}).text


class SessionTests(IsolationCase):
    """The legacy era."""

    def test_a_foreign_session_does_not_exist(self) -> None:
        """POST, GET, DELETE, replay: the same as for an id that nobody has; the owner goes on."""
        ada, eve = self.pair(self.start_daemon())
        ada.initialize(PATH)
        eve.initialize(PATH)
        call = request("tools/call", name="add", arguments={"a": 1, "b": 2})
        for verb, body, more in (
            ("POST", call, {}),
            ("POST", note("notifications/cancelled", requestId=7), {}),
            ("POST", b'{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}', {}),
            ("GET", None, {"Accept": "text/event-stream"}),
            ("GET", None, {"Accept": "text/event-stream", "Last-Event-ID": "1"}),
            ("DELETE", None, {}),
        ):
            foreign = eve.send(verb, PATH, body, {**ada.legacy_headers(), **more})
            unknown = eve.send(verb, PATH, body, {**eve.legacy_headers(), **more, "Mcp-Session-Id": INVENTED})
            self.assertEqual(foreign.status, 404, (verb, more))
            self.assertEqual(looks(foreign), looks(unknown), (verb, more))
        for client in (ada, eve):
            self.assertEqual(client.legacy(PATH, "tools/call", name="add", arguments={"a": 1, "b": 2}).status, 200)

    def test_events_of_another_session_are_not_replayed(self) -> None:
        """Not with the other's event id in a session of one's own; the owner gets them."""
        ada, eve = self.pair(self.start_daemon())
        ada.initialize(PATH)
        eve.initialize(PATH)
        body = request("tools/call", name="steps", arguments={"count": 3, "key": "hers"}, _meta={"progressToken": 1})
        with ada.open("POST", PATH, body, ada.legacy_headers()) as (response, _):
            raw = response.read().decode()
        first = next(line.removeprefix("id: ") for line in raw.splitlines() if line.startswith("id: "))
        again = {"Accept": "text/event-stream", "Last-Event-ID": first}
        foreign = eve.send("GET", PATH, None, {**eve.legacy_headers(), **again})
        unknown = eve.send("GET", PATH, None, {**eve.legacy_headers(), **again, "Last-Event-ID": INVENTED})
        self.assertEqual((foreign.status, looks(foreign)), (400, looks(unknown)))
        self.assertNotIn(b"hers", foreign.body)
        mine = ada.send("GET", PATH, None, {**ada.legacy_headers(), **again})
        self.assertEqual(mine.last["result"]["content"][0]["text"], "3 steps of hers")

    def test_nobody_cancels_or_answers_for_another(self) -> None:
        """Same ids, same progress tokens, at the same time: what one says concerns its own alone."""
        ada, eve = self.pair(self.start_daemon())
        for client in (ada, eve):
            client.initialize(PATH)
        with (
            self.waiting(ada, "ada", ada.legacy_headers(), wait("ada")) as hers,
            self.waiting(eve, "eve", eve.legacy_headers(), wait("eve")),
        ):
            eve.send("POST", PATH, note("notifications/cancelled", requestId=7), eve.legacy_headers())
            self.eventually(lambda: self.cancelled(eve, "eve") == "1", "the own call was not cancelled")
            self.assertEqual(self.cancelled(ada, "ada"), "0")
            ada.send("POST", PATH, note("notifications/cancelled", requestId=7), ada.legacy_headers())
            self.eventually(lambda: self.cancelled(ada, "ada") == "1", "the other call was not cancelled")
            self.assertEqual([message for _, message in hers if "result" in message], [])

    def test_nobody_answers_the_questions_of_another(self) -> None:
        """The numbers of questions are alike; an answer counts only for whom was asked."""
        ada, eve = self.pair(self.start_daemon())
        for client in (ada, eve):
            client.initialize(PATH)
        body = request("tools/call", name="ask", arguments={"question": "Who?"})
        with ada.open("POST", PATH, body, ada.legacy_headers()) as (response, _):
            messages = events(response)
            _, question = next(messages)
            self.assertEqual(question["method"], "elicitation/create")
            for client, name in ((eve, "eve"), (ada, "ada")):
                content = {"action": "accept", "content": {"name": name}}
                answer = json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": content}).encode()
                self.assertEqual(client.send("POST", PATH, answer, client.legacy_headers()).status, 202)
            _, result = next(messages)
        self.assertEqual(result["result"]["content"][0]["text"], "accept {'name': 'ada'}")

    def test_an_sse_session_of_another_does_not_exist(self) -> None:
        """Neither does one that was never there."""
        ada, eve = self.pair(self.start_daemon())
        hello = request("initialize", **INITIALIZE)
        with stream(ada) as (endpoint, heard):
            foreign = eve.send("POST", endpoint, hello, ACCEPT)
            place = endpoint.partition("=")[0]
            unknown = eve.send("POST", f"{place}={INVENTED}", hello, ACCEPT)
            self.assertEqual((foreign.status, looks(foreign)), (404, looks(unknown)))
            self.assertEqual(ada.send("POST", endpoint, hello, ACCEPT).status, 202)
            self.assertEqual(json.loads(next(heard)[1])["id"], 7)


class ModernTests(IsolationCase):
    """2026-07-28: no session, and still whose is whose."""

    def test_nobody_cancels_for_another(self) -> None:
        """Notifications concern nobody over HTTP in this era; closing the stream concerns its call alone."""
        ada, eve = self.pair(self.start_daemon())
        message = modern("tools/call", name="wait", arguments={"key": "ada"}, _meta={"progressToken": 1})
        other = modern("tools/call", name="wait", arguments={"key": "eve"}, _meta={"progressToken": 1})
        with self.waiting(ada, "ada", ada.modern_headers(message), json.dumps(message).encode()):
            with self.waiting(eve, "eve", eve.modern_headers(other), json.dumps(other).encode()):
                said = modern("notifications/cancelled", requestId=7)
                del said["id"]
                headers = {**eve.modern_headers(message), "Mcp-Method": "notifications/cancelled"}
                headers.pop("Mcp-Name")
                eve.send("POST", PATH, json.dumps(said).encode(), headers)
            self.eventually(lambda: self.cancelled(eve, "eve") == "1", "the own call was not cancelled")
            self.assertEqual(self.cancelled(ada, "ada"), "0")
        self.eventually(lambda: self.cancelled(ada, "ada") == "1", "the other call was not cancelled")

    def test_a_foreign_state_is_no_state(self) -> None:
        """Of a server of either era, parked here or not: as one made up. The owner comes back and is answered."""
        ada, eve = self.pair(self.start_daemon())
        for path in (PATH, "/servers/old/mcp"):
            # `interview` has a state of the server's own, `ask` has none; on a legacy server both are parked.
            asked = ada.modern(path, "tools/call", name="interview", arguments={"key": "k"}, _meta=CAN)
            result = asked.last["result"]
            self.assertEqual(result["resultType"], "input_required", path)
            (key,) = result["inputRequests"]
            answer = {key: {"action": "accept", "content": {"name": "Ada"}}}

            def come_back(client: HttpClient, state: str, path: str = path, answer: Any = answer) -> Reply:
                return client.modern(
                    path,
                    "tools/call",
                    name="interview",
                    arguments={"key": "k"},
                    inputResponses=answer,
                    requestState=state,
                    _meta=CAN,
                )

            foreign = come_back(eve, result["requestState"])
            unknown = come_back(eve, INVENTED)
            self.assertEqual(foreign.last["error"]["code"], -32602)
            self.assertEqual(looks(foreign), looks(unknown), path)
            again = come_back(ada, result["requestState"]).last["result"]
            self.assertEqual(again["resultType"], "input_required", path)
            (question,) = again["inputRequests"].values()
            self.assertEqual(question["params"]["messages"][0]["content"]["text"], "greet Ada")

    def test_progress_reaches_whom_it_belongs_to(self) -> None:
        """Both use the same token and id on the same connection of ours to the server."""
        clients = self.pair(self.start_daemon())
        found: dict[str, list[str]] = {}

        def one(client: HttpClient, key: str) -> None:
            arguments = {"count": 20, "key": key}
            reply = client.modern(
                PATH, "tools/call", name="steps", arguments=arguments, _meta={**CAN, "progressToken": "same"}
            )
            found[key] = [message["params"]["message"] for message in reply.messages[:-1]]

        threads = [threading.Thread(target=one, args=each) for each in zip(clients, TOKENS, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        self.assertEqual(found, {key: [f"{key} {step}" for step in range(1, 21)] for key in TOKENS})


class RestartTests(IsolationCase):
    """With ``security.seal_keys`` a session outlives the daemon, for its owner."""

    def test_a_session_goes_on(self) -> None:
        """After a restart, under the same id; another gets what it gets for an unknown one."""
        first = self.start_daemon(security={"seal_keys": [KEY]})
        ada, eve = self.pair(first)
        ada.initialize(PATH)
        eve.initialize(PATH)
        first.stop()
        second = self.start_daemon(security={"seal_keys": [KEY]})
        ada.port = eve.port = second.port
        call = request("tools/call", name="add", arguments={"a": 1, "b": 2})
        foreign = eve.send("POST", PATH, call, ada.legacy_headers())
        unknown = eve.send("POST", PATH, call, {**eve.legacy_headers(), "Mcp-Session-Id": INVENTED})
        self.assertEqual((foreign.status, looks(foreign)), (404, looks(unknown)))
        for client in (ada, eve):
            reply = client.send("POST", PATH, call, client.legacy_headers())
            self.assertEqual((reply.status, reply.last["result"]["structuredContent"]), (200, {"total": 3}))
        self.assertEqual(ada.send("DELETE", PATH, None, ada.legacy_headers()).status, 200)
        self.assertEqual(ada.send("POST", PATH, call, ada.legacy_headers()).status, 404)

    def test_another_key_ends_it(self) -> None:
        """As does none: then the id is unknown, for its owner too."""
        first = self.start_daemon(security={"seal_keys": [KEY]})
        ada, _ = self.pair(first)
        ada.initialize(PATH)
        first.stop()
        ada.port = self.start_daemon(security={"seal_keys": [KEY[::-1]]}).port
        call = request("tools/call", name="add", arguments={"a": 1, "b": 2})
        self.assertEqual(ada.send("POST", PATH, call, ada.legacy_headers()).status, 404)

    def test_an_open_question_goes_on(self) -> None:
        """The state of a modern server: its owner may come back after the restart, and nobody else."""
        first = self.start_daemon(security={"seal_keys": [KEY]})
        ada, eve = self.pair(first)
        asked = ada.modern(PATH, "tools/call", name="interview", arguments={"key": "k"}, _meta=CAN)
        state = asked.last["result"]["requestState"]
        first.stop()
        ada.port = eve.port = self.start_daemon(security={"seal_keys": [KEY]}).port
        answer = {"name": {"action": "accept", "content": {"name": "Ada"}}}
        more = {"name": "interview", "arguments": {"key": "k"}, "inputResponses": answer, "_meta": CAN}
        foreign = eve.modern(PATH, "tools/call", requestState=state, **more)
        unknown = eve.modern(PATH, "tools/call", requestState=INVENTED, **more)
        self.assertEqual((foreign.last["error"]["code"], looks(foreign)), (-32602, looks(unknown)))
        again = ada.modern(PATH, "tools/call", requestState=state, **more).last["result"]
        self.assertEqual(list(again["inputRequests"]), ["model"])


# What this client can do.
CAN: Final = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}, "sampling": {}}}


def wait(key: str) -> bytes:
    return request("tools/call", name="wait", arguments={"key": key}, _meta={"progressToken": 1})
