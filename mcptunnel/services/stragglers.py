"""The report of who still comes in plaintext: from the records of exchanges to health and log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from attrs import define, field
from twisted.logger import Logger

from mcptunnel.config.schema import Config
from mcptunnel.core.acme import PREFIX
from mcptunnel.core.plaintext import HttpsPolicy
from mcptunnel.core.record import Record
from mcptunnel.core.stragglers import Straggler, Stragglers
from mcptunnel.tls.admission import client_key

__all__ = ["PlaintextReport", "reports"]

# Clients that health shows.
_SHOWN: Final = 100
_CHALLENGES: Final = PREFIX.decode("ascii")


def reports(config: Config) -> bool:
    """Whether plaintext is something to be moved away from: https is served here, or promised by ``public_url``.

    Behind a proxy alone, how clients come is for the proxy to know and to decide.
    """
    mode, url = config.server.tls.mode, config.server.public_url
    return mode in ("application", "auto") or (mode == "disabled" and url is not None and url.startswith("https:"))


@define(eq=False, kw_only=True)
class PlaintextReport:
    """Notes every exchange whose client came by http; says so once a day for each client.

    Attributes:
        https: Knows what the client should use.
        clock: Seconds since the epoch.
        then: Told of every record afterwards; None for nobody.
        counts: Requests by what became of them: ``served``, ``redirected`` to https, ``refused``.
    """

    https: HttpsPolicy
    clock: Callable[[], float]
    then: Callable[[Record], None] | None = None
    table: Stragglers = field(init=False, factory=Stragglers)
    counts: Counter[str] = field(init=False, factory=Counter)

    _log = Logger()

    def __call__(self, record: Record) -> None:
        """An exchange has ended."""
        # What could not even be read has no verb. An authority that looks for a challenge comes by http for ever.
        if record.scheme == "http" and record.verb and not record.path.startswith(_CHALLENGES):
            self.counts[_outcome(record.status)] += 1
            came_from = record.client or record.peer
            straggler = self.table.note(client_key(came_from) or came_from, record, self.clock())
            if straggler is not None:
                self._say(straggler)
        if self.then is not None:
            self.then(record)

    def shown(self) -> list[dict[str, Any]]:
        """The latest clients for ``/health``, the last one first."""
        return [
            {
                "client": one.client,
                "principal": one.principal,
                "credential": one.credential,
                "count": one.count,
                "first": _time(one.first),
                "last": _time(one.last),
                "host": one.host,
                "request": f"{one.verb} {one.path}",
            }
            for one in self.table.newest(_SHOWN)
        ]

    def _say(self, one: Straggler) -> None:
        self._log.info(
            "{client} ({who}) still comes in plaintext, {verb} {path} on {host}: {advice}",
            client=one.client,
            who=one.principal or "nobody known",
            verb=one.verb,
            path=one.path,
            host=one.host or "no host",
            advice=self._advice(one),
        )

    def _advice(self, one: Straggler) -> str:
        if one.verdict == "trusted":
            return "it is a listed proxy that names no scheme, let it send X-Forwarded-Proto"
        place = self.https.authority(one.host.encode("ascii", "replace"))
        advice = f"let it {self.https.hint() if place is None else f'use https://{place}'}"
        if one.verdict == "forwarded":
            advice = f"it came so to the proxy {one.peer}, {advice}"
        return f"{advice}, and replace its credential, which could be read on the way" if one.credential else advice


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _outcome(status: int) -> str:
    if status == HTTPStatus.PERMANENT_REDIRECT:
        return "redirected"
    return "served" if status < HTTPStatus.BAD_REQUEST else "refused"
