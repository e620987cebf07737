"""Tests for mcptunnel.services.rotation: what is done with files that were taken, refused, or shown wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.certificates import Facts
from mcptunnel.services.rotation import Rotation, served_files
from mcptunnel.test.tls.certs import LONG, NOW, Authority, mint
from mcptunnel.tls.store import CertificateStore


class RotationTests(SynchronousTestCase):
    """A store, its files, and who hears of changes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.place = Path(self.mktemp())
        self.place.mkdir(parents=True)
        self.rotations: list[Rotation] = []
        self.differences: list[str] = []
        self.taken: list[list[str]] = []
        self.alarms: list[str | None] = []

    def write(self, *names: str) -> TlsConfig:
        pair = mint(names[0], names=names, **LONG).write(self.place)
        return TlsConfig(mode="application", cert_file=pair.cert_file, key_file=pair.key_file)

    def rotation(self, tls: TlsConfig, host: str | None = None) -> Rotation:
        def check(leaves: Sequence[Facts]) -> Deferred[list[str]]:
            return succeed(self.differences)

        def at_once(work: Callable[[], Any]) -> Deferred[Any]:
            return maybeDeferred(work)

        rotation = Rotation(
            tls=tls,
            strict=False,
            store=CertificateStore.from_config(tls, NOW),
            host=host,
            clock=self.clock,
            in_thread=at_once,
            check=check,
        )
        rotation.taken.append(lambda leaves: self.taken.append([leaf.subject for leaf in leaves]))
        rotation.alarm.append(self.alarms.append)
        self.rotations.append(rotation)
        return rotation

    def wait(self, seconds: float, step: float = 0.25) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            for rotation in self.rotations:
                rotation.tick()

    def test_a_renewal(self) -> None:
        """Listeners hear of what is in service now, and when that was is remembered."""
        rotation = self.rotation(self.write("a.test"))
        self.assertEqual((rotation.last_taken, rotation.counts), (NOW, {}))
        self.wait(10)
        self.write("a.test", "b.test")
        self.wait(0.25)
        self.assertEqual(self.taken, [["CN=a.test"]])
        self.assertEqual((rotation.counts, rotation.last_taken), ({"taken": 1}, NOW + 10.25))
        self.assertEqual(self.alarms, [])

    def test_a_bad_pair_raises_the_alarm_and_a_good_one_ends_it(self) -> None:
        """Each once; every reason is told."""
        tls = self.write("a.test")
        rotation = self.rotation(tls)
        Path(tls.cert_file or "").write_text("nothing")
        Path(tls.key_file or "").write_text("nothing")
        self.wait(200)
        self.assertEqual(rotation.counts, {"refused": 1})
        (alarm,) = self.alarms
        assert alarm is not None
        self.assertEqual(len(alarm.splitlines()), 2)
        self.assertEqual(rotation.trouble, alarm)
        self.write("a.test")
        self.wait(0.25)
        self.assertEqual((self.alarms[1:], rotation.trouble), ([None], None))

    def test_the_public_name_is_not_lost(self) -> None:
        """A certificate for somebody else is none for our clients."""
        rotation = self.rotation(self.write("mcp.example.com"), "mcp.example.com")
        self.write("other.example.com")
        outcome = self.successResultOf(rotation.reload())
        self.assertIn("no certificate names mcp.example.com any more", outcome.problem)
        self.assertEqual([leaf.subject for leaf in rotation.store.leaves], ["CN=mcp.example.com"])
        # Where no certificate had it, the proxy in front may have.
        behind = self.rotation(self.write("inside.test"), "mcp.example.com")
        self.write("inside2.test")
        self.assertTrue(self.successResultOf(behind.reload()).taken)

    def test_what_is_shown_wrong_raises_the_alarm(self) -> None:
        """Though it was taken."""
        rotation = self.rotation(self.write("a.test"))
        self.differences = ["clients are shown something else"]
        self.write("a.test")
        with capturedLogs() as events:
            self.wait(0.25)
        self.assertEqual(rotation.counts, {"taken": 1, "mismatch": 1})
        self.assertEqual(self.alarms, self.differences)
        self.assertTrue(any(event["log_level"] is LogLevel.error for event in events))

    def test_trust_anchors_and_revocation_lists_are_among_the_files(self) -> None:
        """And are refused together with the rest."""
        root = Authority.root()
        ca, crl = self.place / "ca.pem", self.place / "crl.pem"
        ca.write_bytes(root.pem)
        crl.write_bytes(root.revoke())
        tls = evolve(self.write("a.test"), client_auth="required", ca_file=str(ca), crl_file=str(crl))
        self.assertEqual(served_files(tls), (tls.cert_file, tls.key_file, str(ca), str(crl)))
        rotation = self.rotation(tls)
        machine = root.issue("machine", client=True)
        crl.write_bytes(root.revoke(machine))
        self.wait(0.25)
        (one,) = rotation.store.policy.crls
        self.assertIsNotNone(one.get_revoked_certificate_by_serial_number(machine.certificate.serial_number))
        ca.write_bytes(Authority.root("Other").pem)
        self.assertIn("is not signed by an authority", self.successResultOf(rotation.reload()).problem)
        self.assertEqual(rotation.store.generation, 2)

    def test_keys_of_tickets_do_not_live_long(self) -> None:
        """Half a day, whatever happens to the certificates."""
        rotation = self.rotation(evolve(self.write("a.test"), session_resumption=True))
        first = rotation.store.context_for("a.test")
        self.wait(12 * 3600.0 - 60.0, 60.0)
        self.assertIs(rotation.store.context_for("a.test"), first)
        self.wait(120.0, 60.0)
        self.assertIsNot(rotation.store.context_for("a.test"), first)
