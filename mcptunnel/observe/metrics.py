"""What the daemon counts, in the form that Prometheus reads. Everything is asked for when a scrape comes.

Names follow Prometheus's conventions (base units, ``_total``); moments are seconds since the epoch, as users of
blackbox_exporter and cert-manager expect them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from mcptunnel.core.certificates import DAY
from mcptunnel.core.verdicts import Finding
from mcptunnel.observe.figures import Figures

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4.encode("ascii")
_SERVED: Final = ("leaf", "intermediate")
_LABELS: Final = ("role", "file", "subject", "serial")


class Metrics:
    """The page.

    Args:
        figures: Asked at each scrape.
    """

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._registry: Final = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(figures))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """All of it, in the text format 0.0.4."""
        return generate_latest(self._registry)


class _Collector(Collector):
    """What prometheus_client asks."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures: Final = figures

    def describe(self) -> Iterable[Metric]:
        # Called once when this is registered, before the daemon has anything to show.
        return ()

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield _counter(
            "mcptunnel_connections",
            "Connections by what became of them.",
            ("listener", "outcome"),
            figures.connections,
        )
        yield _counter(
            "mcptunnel_tls_handshakes",
            "Complete TLS handshakes.",
            ("version", "cipher", "group", "resumed"),
            figures.handshakes,
        )
        yield _counter(
            "mcptunnel_tls_handshake_failures", "Failed TLS handshakes.", ("cause",), _single(figures.failures)
        )
        yield _counter(
            "mcptunnel_plaintext_requests",
            "Requests in plaintext of clients that could use https.",
            ("outcome",),
            _single(figures.plaintext),
        )
        yield _counter("mcptunnel_alerts", "Alerts by what became of them.", ("target", "outcome"), figures.alerts)
        yield from _certificates(figures.certificates)
        seen = GaugeMetricFamily(
            "mcptunnel_tls_certificate_source_up",
            "1 while the certificates of a source can be looked at.",
            labels=("source",),
        )
        for source, up in figures.sources.items():
            seen.add_metric((source,), float(up))
        yield seen
        if figures.generation is not None:
            yield from _reloads(figures, figures.generation)


def _certificates(certificates: Sequence[Finding]) -> Iterator[Metric]:
    after = GaugeMetricFamily(
        "mcptunnel_tls_certificate_not_after_timestamp_seconds", "End of its life.", labels=_LABELS
    )
    before = GaugeMetricFamily(
        "mcptunnel_tls_certificate_not_before_timestamp_seconds", "Begin of its life.", labels=_LABELS
    )
    days = GaugeMetricFamily("mcptunnel_tls_certificate_days_left", "Days of life that are left.", labels=_LABELS)
    verdict = GaugeMetricFamily(
        "mcptunnel_tls_certificate_verdict", "1 for the verdict of the last look.", labels=(*_LABELS, "verdict")
    )
    seen: set[tuple[str, ...]] = set()
    for one in certificates:
        labels = (one.facts.role, one.facts.file, one.facts.subject, one.facts.serial)
        # Several servers may share a file; a series may stand on the page once only.
        if labels in seen:
            continue
        seen.add(labels)
        after.add_metric(labels, one.facts.not_after)
        before.add_metric(labels, one.facts.not_before)
        days.add_metric(labels, one.remaining / DAY)
        verdict.add_metric((*labels, one.verdict), 1.0)
    yield from (after, before, days, verdict)
    served = [one.facts.not_after for one in certificates if one.facts.role in _SERVED]
    if served:
        yield GaugeMetricFamily(
            "mcptunnel_tls_earliest_cert_expiry",
            "When the first of the certificates that we serve ends, as probe_ssl_earliest_cert_expiry.",
            value=min(served),
        )


def _reloads(figures: Figures, generation: int) -> Iterator[Metric]:
    yield GaugeMetricFamily("mcptunnel_tls_generation", "How often certificates were put in service.", value=generation)
    yield _counter(
        "mcptunnel_tls_reloads",
        "Attempts to read certificates again; mismatch: taken, and shown wrong.",
        ("result",),
        _single({"taken": 0, "refused": 0, "mismatch": 0} | dict(figures.reloads)),
    )
    yield GaugeMetricFamily(
        "mcptunnel_tls_last_reload_success_timestamp_seconds",
        "When certificates were put in service last.",
        value=figures.last_reload,
    )
    yield GaugeMetricFamily(
        "mcptunnel_tls_reload_refused",
        "1 while what is on disk is not what is in service.",
        value=float(figures.refused),
    )


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def _single(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(label,): count for label, count in counts.items()}
