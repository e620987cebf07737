"""Tests for mcptunnel.services.hsts."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import HstsRampConfig, TlsConfig
from mcptunnel.core.certificates import Facts
from mcptunnel.core.errors import CertificateError
from mcptunnel.services.hsts import Ramp, first_promise, refuse_self_signed
from mcptunnel.test.tls.certs import DAY, LONG, NOW, Authority, mint

STEPS = (300, 86_400)


def leaf(number: int) -> Facts:
    """Issued on day ``number``, for ten days."""
    return Facts(
        file="cert.pem",
        role="leaf",
        subject="CN=a",
        issuer="CN=ca",
        serial=f"{number}",
        not_before=NOW + number * DAY,
        not_after=NOW + (number + 10) * DAY,
        fingerprint=f"{number:02x}",
    )


class PromiseTests(SynchronousTestCase):
    """What is promised at the beginning: each setting of ``hsts_*``."""

    def test_each_setting_shows(self) -> None:
        """Off, of another age, for subdomains, for the browsers' list, and short where it is to grow."""
        year = 31_536_000
        for settings, value in (
            ({}, "max-age=63072000"),
            ({"hsts_enabled": False}, None),
            ({"hsts_max_age": 0}, "max-age=0"),
            ({"hsts_max_age": year, "hsts_include_subdomains": True}, f"max-age={year}; includeSubDomains"),
            ({"hsts_include_subdomains": True, "hsts_preload": True}, "max-age=63072000; includeSubDomains; preload"),
            ({"hsts_ramp": HstsRampConfig()}, "max-age=300"),
            (
                {"hsts_ramp": HstsRampConfig(steps=(7,)), "hsts_include_subdomains": True},
                "max-age=7; includeSubDomains",
            ),
        ):
            self.assertEqual(first_promise(TlsConfig(**settings)), value)


class RampTests(SynchronousTestCase):
    """The promise follows the certificates, and a file survives."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp())
        self.place.mkdir()
        self.file = self.place / "hsts.json"
        self.promised: list[str | None] = []
        self.clock = Clock()
        self.clock.advance(NOW)
        self.leaf = leaf(0)

    def ramp(self, *, file: bool = True) -> Ramp:
        config = HstsRampConfig(steps=STEPS, file=str(self.file) if file else None)
        tls = TlsConfig(hsts_ramp=config, hsts_include_subdomains=True)
        ramp = Ramp(tls=tls, leaf=lambda: self.leaf, promise=self.promised.append, clock=self.clock)
        ramp.startService()
        return ramp

    def swap(self, ramp: Ramp, number: int) -> None:
        self.leaf = leaf(number)
        ramp.look()

    def said(self, *, file: bool = True) -> list[tuple[LogLevel, str]]:
        with capturedLogs() as events:
            self.ramp(file=file)
        return [(event["log_level"], formatEvent(event)) for event in events]

    def test_it_grows_over_swaps(self) -> None:
        """Up to the whole."""
        ramp = self.ramp()
        for number in (1, 2, 3):
            self.swap(ramp, number)
        self.assertEqual(
            self.promised,
            [f"max-age={age}; includeSubDomains" for age in (300, 86_400, 63_072_000, 63_072_000)],
        )
        self.assertEqual(ramp.max_age, 63_072_000)

    def test_the_step_survives_a_restart(self) -> None:
        """With the file; the certificate it was left with is no renewal, and one that came meanwhile is."""
        self.swap(self.ramp(), 1)
        self.assertEqual((self.ramp().state.step, self.promised[-1]), (1, "max-age=86400; includeSubDomains"))
        self.leaf = leaf(2)
        self.assertEqual(self.ramp().max_age, 63_072_000)

    def test_without_a_file_each_start_begins_anew(self) -> None:
        """And nothing is written."""
        self.swap(self.ramp(file=False), 1)
        self.assertEqual(self.ramp(file=False).max_age, 300)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_the_file_is_its_owners_and_whole(self) -> None:
        """Nothing else is left in the directory."""
        self.ramp()
        self.assertEqual(stat.S_IMODE(os.stat(self.file).st_mode), 0o600)
        self.assertEqual(json.loads(self.file.read_text())["fingerprint"], "00")
        self.assertEqual([path.name for path in self.place.iterdir()], ["hsts.json"])

    def test_a_file_that_cannot_be_used_is_said_and_replaced(self) -> None:
        """Missing, empty, no JSON, of other types, below the beginning, a directory."""
        self.assertEqual([level for level, _ in self.said()], [LogLevel.warn])
        self.assertEqual(self.said(), [])
        for content in (b"", b"{", b'{"step": "1"}', b'{"step": -1}', b"[]", b"\xff"):
            self.file.write_bytes(content)
            ((level, text),) = self.said()
            self.assertEqual(level, LogLevel.warn)
            self.assertIn("hsts.json (server.tls.hsts_ramp.file) cannot be used", text)
            self.assertEqual((self.promised[-1], self.said()), ("max-age=300; includeSubDomains", []), content)

    def test_a_file_that_cannot_be_written_is_said_and_the_ramp_goes_on(self) -> None:
        """The next start is the one that suffers."""
        self.file = self.place / "missing" / "hsts.json"
        self.assertEqual([level for level, _ in self.said()], [LogLevel.warn, LogLevel.error])
        ramp = self.ramp()
        self.swap(ramp, 1)
        self.assertEqual(ramp.max_age, 86_400)
        self.flushLoggedErrors()

    def test_growth_and_a_late_renewal_are_logged(self) -> None:
        """The second as a warning."""
        ramp = self.ramp()
        with capturedLogs() as events:
            self.swap(ramp, 1)
            self.clock.advance(11 * DAY)
            self.swap(ramp, 12)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.info, LogLevel.warn])
        self.assertEqual([event["age"] for event in events], [86_400, 300])

    def test_a_self_signed_one_that_is_swapped_in_does_not_count(self) -> None:
        """It is said."""
        ramp = self.ramp()
        self.leaf = evolve(leaf(1), issuer="CN=a")
        with capturedLogs() as events:
            ramp.look()
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
        self.assertEqual((ramp.state.step, ramp.state.fingerprint), (0, "00"))


class SelfSignedTests(SynchronousTestCase):
    """No ramp on a certificate that nobody renews."""

    def tls(self, pair: Any, ramp: HstsRampConfig | None) -> TlsConfig:
        return TlsConfig(mode="application", cert_file=pair.cert_file, key_file=pair.key_file, hsts_ramp=ramp)

    def test_it_is_refused_with_the_setting(self) -> None:
        """And the file."""
        pair = mint("a.test", names=["a.test"], **LONG).write(self.mktemp())
        error = self.assertRaises(CertificateError, refuse_self_signed, self.tls(pair, HstsRampConfig()))
        self.assertIn("server.tls.hsts_ramp", str(error))
        self.assertIn(pair.cert_file, str(error))

    def test_without_a_ramp_or_with_an_authority_it_is_not(self) -> None:
        """Each of the two alone."""
        refuse_self_signed(self.tls(mint("a.test", names=["a.test"], **LONG).write(self.mktemp()), None))
        refuse_self_signed(self.tls(Authority.root().issue("a.test", **LONG).write(self.mktemp()), HstsRampConfig()))
        refuse_self_signed(TlsConfig(hsts_ramp=HstsRampConfig()))
