"""What the daemon counts, at one moment, whoever wants to show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from mcptunnel.core.verdicts import Finding

__all__ = ["Figures"]


@frozen(kw_only=True)
class Figures:
    """Everything that is shown, at one moment.

    Attributes:
        connections: Connections by (listener, what became of them); ``main`` and ``http``.
        handshakes: Complete handshakes by (version, cipher, group, resumed).
        failures: Failed handshakes by cause.
        certificates: In the order of the last look.
        generation: How often certificates were put in service; None without TLS.
        reloads: Attempts to read them again, by how they ended.
        last_reload: When they were put in service last.
        refused: Whether what is on disk is not what is in service.
        plaintext: Requests in plaintext of clients that could use https, by what became of them.
        sources: Where certificates come from, and whether they could be looked at the last time.
        alerts: Alerts by (target, what became of them): ``delivered``, ``dropped``, ``given_up``.
    """

    connections: Mapping[tuple[str, ...], int] = field(factory=dict)
    handshakes: Mapping[tuple[str, ...], int] = field(factory=dict)
    failures: Mapping[str, int] = field(factory=dict)
    certificates: Sequence[Finding] = ()
    generation: int | None = None
    reloads: Mapping[str, int] = field(factory=dict)
    last_reload: float = 0.0
    refused: bool = False
    plaintext: Mapping[str, int] = field(factory=dict)
    sources: Mapping[str, bool] = field(factory=dict)
    alerts: Mapping[tuple[str, ...], int] = field(factory=dict)
