"""What serves requests that belong to no session: stateless links, and bridges to servers that know only sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from mcptunnel.core.catalogue import Catalogue
from mcptunnel.core.eras import DISCOVER, PROBE_SECONDS, Eras, speaks_modern
from mcptunnel.core.errors import HEADER_MISMATCH, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hub import Errand, Hub
from mcptunnel.core.hubs import Hubs, capabilities_of
from mcptunnel.core.jsonrpc import Message, decode, error_reply
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import CAPABILITIES_KEY
from mcptunnel.core.mirrors import Mirror, check, check_unambiguous, lines
from mcptunnel.core.modern_on_legacy import ModernOnLegacy
from mcptunnel.core.parked import Parked
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.wire import Upstream

__all__ = ["Commons"]

_OURSELVES: Final = Principal(name="mcptunnel")


class Commons:
    """Links of the modern era: stateless, so one per server serves everybody. A server of the other era gets a bridge.

    Args:
        upstreams: The servers by name.
        eras: What is known of them.
        hubs: Sessions with servers of the legacy era.
        parked: Where calls wait for an answer of their client.
        clock: Seconds.

    Attributes:
        links: The open links by server.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        eras: Eras,
        hubs: Hubs,
        parked: Parked,
        clock: Callable[[], float],
    ) -> None:
        self.links: Final[dict[str, Link]] = {}
        self._upstreams: Final = upstreams
        self._eras: Final = eras
        self._hubs: Final = hubs
        self._parked: Final = parked
        self._clock: Final = clock
        self._catalogue: Final = Catalogue(self, clock)
        self._bridges: Final[dict[Hub, ModernOnLegacy]] = {}
        self._probing: Final[dict[str, list[Callable[[RpcError | None], None]]]] = {}

    def forward(self, server: str, exchange: Exchange) -> None:
        """Send a modern request to ``server``, in whatever era it speaks."""
        mirrored = self._upstreams[server].rules.mirrored
        if exchange.message.method == "tools/call" and mirrored == (exchange.params_headers is None):
            name = exchange.message.param("name")
            self._catalogue.mirrors(
                server, name if isinstance(name, str) else "", lambda found: self._mirrored(server, exchange, found)
            )
        else:
            self._forward(server, exchange)

    def _mirrored(self, server: str, exchange: Exchange, found: tuple[Mirror, ...]) -> None:
        """Write the headers that ``exchange`` has to go with, or hold those that it came with against its body."""
        if exchange.done:
            return
        try:
            if found:
                check_unambiguous(found, exchange.message)
                arguments = exchange.message.param("arguments")
                if exchange.params_headers is None:
                    exchange.params_headers = lines(found, arguments)
                else:
                    check(found, exchange.params_headers, arguments)
        except RpcError as e:
            exchange.fail(e)
            return
        exchange.on_end(lambda ended: self._complained(server, ended))
        self._forward(server, exchange)

    def _complained(self, server: str, exchange: Exchange) -> None:
        if exchange.record.code == HEADER_MISMATCH:
            self._catalogue.forget(server)

    def _forward(self, server: str, exchange: Exchange) -> None:
        modern = self._eras.speaks(server, "modern")
        if modern:
            exchange.sealing = True
            self.link(server).request(exchange)
        elif modern is None:
            self.probe(server, lambda error: self._probed(server, exchange, error))
        else:
            self._bridge(server, exchange)

    def link(self, server: str) -> Link:
        """The link to ``server``, opened when there is none or the last one was lost."""
        link = self.links.get(server)
        if link is None:
            link = Link.open(self._upstreams[server], "modern", self, self._clock)
            if not link.closed:
                self.links[server] = link
        return link

    def _bridge(self, server: str, exchange: Exchange) -> None:
        span = exchange.message.meta().get(CAPABILITIES_KEY)
        raw = b"{}" if span is None else exchange.message.raw[span[0] : span[1]]
        try:
            _, capabilities = capabilities_of(raw)
            hub = self._hubs.find(server, raw, exchange.principal)
        except ValueError as e:
            exchange.fail(RpcError(INVALID_PARAMS, f"params._meta: {e}", reason="invalid_params"))
            return
        except RpcError as e:
            exchange.fail(e)
            return
        bridge = self._bridges.get(hub)
        if bridge is None:
            bridge = self._bridges[hub] = ModernOnLegacy(hub, capabilities, self._parked)
        bridge.request(exchange)

    # --- finding out

    def probe(self, server: str, then: Callable[[RpcError | None], None]) -> None:
        """Ask ``server`` whether it speaks 2026-07-28; ``then`` gets an error when it could not be asked."""
        waiting = self._probing.get(server)
        if waiting is not None:
            waiting.append(then)
            return
        self._probing[server] = [then]
        question = Exchange(
            message=decode(DISCOVER),
            principal=_OURSELVES,
            era="modern",
            sink=Errand(lambda reply, error: self._answered(server, reply, error)),
            record=Record(),
            patience=PROBE_SECONDS,
        )
        self.link(server).request(question)

    def _answered(self, server: str, reply: Message | None, error: RpcError | None) -> None:
        verdict = speaks_modern(reply, error)
        if verdict is None and not self._upstreams[server].rules.mirrored:
            # A program that ends when it hears something unknown may do better with what it knows.
            verdict = False
        if verdict is not None:
            self._eras.learn(server, "modern", verdict)
            error = None
        if verdict is False and (link := self.links.get(server)) is not None:
            # Nothing more will be said on it; a child process of its own would wait for nothing.
            del self.links[server]
            link.close()
        for then in self._probing.pop(server, []):
            then(error)

    def _probed(self, server: str, exchange: Exchange, error: RpcError | None) -> None:
        if exchange.done:
            return
        if error is not None:
            exchange.fail(error)
        else:
            self._forward(server, exchange)

    # --- from the servers (Owner)

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        """What belongs to no call. Servers ask nothing in this era (2026-07-28 removed server-to-client requests)."""
        if message.kind == "request":
            error = RpcError(METHOD_NOT_FOUND, "this revision has no requests from servers", reason="era")
            link.tell(error_reply(error, message.id_raw))
            return
        if message.method == "notifications/tools/list_changed":
            self._catalogue.forget(link.server)
        # A log line of a shared connection does not say whose call it is about: only a lone call may have it.
        alone = [call for call in link.calls.values() if not call.done and call.patience != 0]
        if message.method == "notifications/message" and len(alone) == 1:
            alone[0].emit(message.raw)

    def session_lost(self, link: Link) -> bool:
        """There is none."""
        return False

    def doubted(self, link: Link) -> None:
        """Another program may answer at that address now."""
        self._eras.doubt(link.server, "modern")

    def link_lost(self, link: Link) -> None:
        """The next call opens another."""
        if self.links.get(link.server) is link:
            del self.links[link.server]

    # --- all of them

    def all_links(self) -> Iterator[Link]:
        """Every open link."""
        yield from list(self.links.values())
        yield from (hub.link for hub in self._hubs)

    def sweep(self) -> None:
        """Close what nobody uses. Called about once a second."""
        self._parked.sweep()
        self._hubs.sweep()
        living = set(self._hubs)
        for hub in [hub for hub in self._bridges if hub not in living]:
            del self._bridges[hub]

    def close(self) -> None:
        """Close every link; calls in flight have been ended."""
        self._parked.close()
        for link in list(self.links.values()):
            link.close()
        self.links.clear()
        self._hubs.close()
        self._bridges.clear()
