"""testssl.sh and sslyze look at a daemon as an auditor would: both profiles, application mode, nothing else changed.

The guide ``tls-assessment`` has the results of the whole of testssl.sh, and those of tlsfuzzer, which is on no package
index.
"""

from __future__ import annotations

from typing import Any, Final

from mcptunnel.core.profiles import PROFILES, ProfileName
from tests.assess import SECONDS, findings, mozilla, testssl
from tests.certificates import authority, issue
from tests.daemon import Daemon, DaemonCase

DAY: Final = 86_400.0

# What testssl reports here whatever the daemon does, and why. One that is no longer reported has to go from here.
EXPECTED: Final = {
    "engine_problem": "about the openssl of this machine, which has no engine for GOST",
    "cert_revocation": "the test authority publishes neither a revocation list nor OCSP",
    "DNS_CAArecord": "localhost has no CAA record in DNS",
}
# Reported now and then: s_client ends before the tickets arrive, and testssl takes that for a broken connection.
SOMETIMES: Final = ("sessionresumption_ticket",)


class AssessmentTests(DaemonCase):
    """Both tools, both profiles."""

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = self.place / "ca.pem"
        self.ca_file.write_bytes(authority().pem)

    def profile(self, name: ProfileName) -> Daemon:
        # Mozilla's "modern" wants certificates that live for 90 days at most.
        pair = issue(self.place, name, since=-DAY, until=80 * DAY)
        tls: dict[str, Any] = {"profile": name, "cert_file": pair.cert_file, "key_file": pair.key_file}
        return self.daemon("application", tls=tls)

    def test_sslyze_finds_both_profiles_as_mozilla_recommends(self) -> None:
        """By guidelines 5.7, which sslyze knows. What 6.0 removed since (DHE suites) is a subset, so it passes too."""
        for name in PROFILES:
            said = mozilla(self.profile(name).port, name, str(self.ca_file), self.place)
            self.assertIn("OK - Compliant", said)

    def test_sslyze_can_fail(self) -> None:
        """The intermediate profile is not the modern one: the check is one that looks."""
        daemon = self.profile("intermediate")
        error = self.assertRaises(AssertionError, mozilla, daemon.port, "modern", str(self.ca_file), self.place)
        self.assertIn("TLSv1.2", str(error))

    def test_testssl_finds_nothing_above_info(self) -> None:
        """Both profiles at once, since most of its time is spent on waiting."""
        runs = {name: testssl(self.profile(name).port, str(self.ca_file), self.place) for name in PROFILES}
        for process, _ in runs.values():
            self.addCleanup(process.stop)
        for name, (process, report) in runs.items():
            self.assertIn(process.popen.wait(SECONDS), range(50), process.output())
            found = {one.name: one for one in findings(report)}
            self.assertEqual([one for one in found.values() if one.name not in (*EXPECTED, *SOMETIMES)], [], name)
            self.assertEqual(set(EXPECTED) - set(found), set(), f"{name}: explained, but no longer reported")
