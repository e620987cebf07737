"""Tests for mcptunnel.core.suites."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.suites import DEFAULT_SUITES, KNOWN_SUITES, Suites, parse


class ParseTests(SynchronousTestCase):
    """What a list of suites means."""

    def test_openssl_iana_and_rustls_names_are_the_same_suites(self) -> None:
        """In any case; each goes to its own version."""
        expected = Suites(tls12=("ECDHE-RSA-AES256-GCM-SHA384",), tls13=("TLS_AES_256_GCM_SHA384",))
        for names in (
            ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_AES_256_GCM_SHA384"),
            ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"),
            (" tls_aes_256_gcm_sha384 ", "ecdhe-rsa-aes256-gcm-sha384"),
        ):
            self.assertEqual(parse(names, "1.2"), (expected, ()))

    def test_every_known_name_is_accepted(self) -> None:
        """The list in the message is the truth."""
        suites, wrong = parse(KNOWN_SUITES, "1.2")
        self.assertEqual(wrong, ())
        self.assertEqual(len(suites.tls12) + len(suites.tls13), len(KNOWN_SUITES))

    def test_unknown_and_unfit_names_are_refused_each_with_its_index(self) -> None:
        """A suite without forward secrecy is refused like a misspelled one, and nothing is skipped."""
        _, wrong = parse(("TLS_AES_128_GCM_SHA256", "AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", "ALL"), "1.2")
        self.assertEqual([index for index, _ in wrong], [1, 2, 3])
        for _, message in wrong:
            self.assertIn("known are TLS_AES_128_GCM_SHA256", message)

    def test_a_suite_named_twice_is_a_mistake(self) -> None:
        """Under two spellings as well."""
        _, wrong = parse(("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), "1.2")
        self.assertEqual([index for index, _ in wrong], [1])

    def test_an_empty_list_and_one_without_the_required_version_are_refused_as_a_whole(self) -> None:
        """No handshake could succeed."""
        self.assertEqual([index for index, _ in parse((), "1.2")[1]], [-1])
        self.assertEqual([index for index, _ in parse(("ECDHE-RSA-AES128-GCM-SHA256",), "1.3")[1]], [-1])
        self.assertEqual(parse(("ECDHE-RSA-AES128-GCM-SHA256",), "1.2")[1], ())

    def test_the_defaults_are_the_intermediate_profile(self) -> None:
        """Six ECDHE suites with authenticated encryption, and three of TLS 1.3."""
        self.assertEqual(len(DEFAULT_SUITES.tls12), 6)
        self.assertEqual(DEFAULT_SUITES.tls13[0], "TLS_AES_128_GCM_SHA256")
        self.assertFalse([name for name in DEFAULT_SUITES.tls12 if not name.startswith("ECDHE-") or "CBC" in name])

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.one_of(st.text(max_size=20), st.sampled_from(KNOWN_SUITES))), st.sampled_from(["1.2", "1.3"]))
    def test_every_name_is_offered_or_complained_about(self, names: list[str], version: str) -> None:
        """No input is dropped, and none raises."""
        suites, wrong = parse(names, version)
        named = [index for index, _ in wrong if index >= 0]
        self.assertEqual(len(suites.tls12) + len(suites.tls13) + len(named), len(names))
