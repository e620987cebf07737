"""Tests for mcptunnel.observe.metrics, read back by a parser of the format."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.certificates import DAY, Facts
from mcptunnel.core.verdicts import Finding
from mcptunnel.observe.figures import Figures
from mcptunnel.observe.metrics import Metrics

LEAF = Facts(
    file='a"b.pem', role="leaf", subject="CN=a\\b", issuer="CN=c", serial="1f", not_before=0.0, not_after=90 * DAY
)


class MetricsTests(SynchronousTestCase):
    """The page."""

    def samples(self, figures: Figures) -> dict[str, dict[tuple[str, ...], float]]:
        """Name → values of the labels, in the order of their names → value."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(Metrics(lambda: figures).page().decode()):
            for sample in family.samples:
                labels: dict[str, Any] = sample.labels
                found.setdefault(sample.name, {})[tuple(labels[name] for name in sorted(labels))] = sample.value
        return found

    def test_certificates(self) -> None:
        """Moments, days, and the verdict; of two that are the same one; names are escaped."""
        upstream = evolve(LEAF, role="upstream", not_after=10 * DAY)
        judged = [
            Finding(facts=LEAF, verdict="warning", remaining=20 * DAY),
            Finding(facts=LEAF, verdict="ok", remaining=1.0),
            Finding(facts=upstream, verdict="ok", remaining=DAY),
        ]
        found = self.samples(Figures(certificates=judged))
        name = "mcptunnel_tls_certificate"
        labels = ('a"b.pem', "leaf", "1f", "CN=a\\b")
        self.assertEqual(found[f"{name}_not_after_timestamp_seconds"][labels], 90 * DAY)
        self.assertEqual(found[f"{name}_not_before_timestamp_seconds"][labels], 0.0)
        self.assertEqual(found[f"{name}_days_left"][labels], 20.0)
        self.assertEqual(found[f"{name}_verdict"][(*labels, "warning")], 1.0)
        self.assertEqual(len(found[f"{name}_days_left"]), 2)
        # What others present is not what we serve.
        self.assertEqual(found["mcptunnel_tls_earliest_cert_expiry"], {(): 90 * DAY})

    def test_handshakes_and_connections(self) -> None:
        """By what they are told apart by."""
        found = self.samples(
            Figures(
                connections={("main", "serve_tls"): 3},
                handshakes={("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "false"): 2},
                failures={"unknown_ca": 1},
                plaintext={"redirected": 4},
            )
        )
        self.assertEqual(found["mcptunnel_connections_total"], {("main", "serve_tls"): 3.0})
        self.assertEqual(
            found["mcptunnel_tls_handshakes_total"],
            {("TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "false", "TLSv1.3"): 2.0},
        )
        self.assertEqual(found["mcptunnel_tls_handshake_failures_total"], {("unknown_ca",): 1.0})
        self.assertEqual(found["mcptunnel_plaintext_requests_total"], {("redirected",): 4.0})

    def test_reloads(self) -> None:
        """From the first scrape on, so that an alert on a rate has something to begin with; without TLS none."""
        found = self.samples(Figures(generation=2, reloads={"taken": 1}, last_reload=123.0, refused=True))
        self.assertEqual(found["mcptunnel_tls_reloads_total"], {("taken",): 1.0, ("refused",): 0.0, ("mismatch",): 0.0})
        self.assertEqual(found["mcptunnel_tls_generation"], {(): 2.0})
        self.assertEqual(found["mcptunnel_tls_last_reload_success_timestamp_seconds"], {(): 123.0})
        self.assertEqual(found["mcptunnel_tls_reload_refused"], {(): 1.0})
        self.assertNotIn("mcptunnel_tls_generation", self.samples(Figures()))

    def test_what_could_not_be_seen_or_told(self) -> None:
        """A source that fails, an alert that nobody took."""
        found = self.samples(
            Figures(sources={"server.tls": True, "mcpServers.a": False}, alerts={("alerts[0]", "given_up"): 2})
        )
        up = found["mcptunnel_tls_certificate_source_up"]
        self.assertEqual(up, {("server.tls",): 1.0, ("mcpServers.a",): 0.0})
        self.assertEqual(found["mcptunnel_alerts_total"], {("given_up", "alerts[0]"): 2.0})

    def test_the_process_itself(self) -> None:
        """Memory, descriptors, time: as every exporter shows them."""
        self.assertGreater(self.samples(Figures())["process_open_fds"][()], 0)
