"""Tests for mcptunnel.tls.admission."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.tls.admission import Admission, client_key


class ClientKeyTests(SynchronousTestCase):
    """Under what a client is counted."""

    def test_one_client_has_one_key_however_it_is_spelled(self) -> None:
        """On a dual-stack socket IPv4 comes as mapped IPv6; zones are local."""
        for peer in ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"):
            self.assertEqual(client_key(peer), "192.0.2.1")
        self.assertEqual(client_key("fe80::1%eth0"), "fe80::")

    def test_an_ipv6_network_of_one_host_is_one_client(self) -> None:
        """2^64 addresses are no way around the bound; the neighbour's are not counted in."""
        self.assertEqual(client_key("2001:db8:1:2::1"), client_key("2001:db8:1:2:ffff::9"))
        self.assertNotEqual(client_key("2001:db8:1:2::1"), client_key("2001:db8:1:3::1"))

    def test_peers_without_an_address_have_none(self) -> None:
        """UNIX sockets."""
        self.assertIsNone(client_key("unix:"))
        self.assertIsNone(client_key(""))


class AdmissionTests(SynchronousTestCase):
    """Counting."""

    def test_the_total_is_a_bound_that_frees_again(self) -> None:
        """Exactly so many, and one more after one has left."""
        admission = Admission(2, 10)
        self.assertEqual([admission.enter() for _ in range(3)], [True, True, False])
        admission.leave()
        self.assertTrue(admission.enter())
        self.assertEqual(admission.open, 2)

    def test_a_client_is_bounded_by_itself(self) -> None:
        """Others are not, and who has left is forgotten."""
        admission = Admission(10, 2)
        self.assertEqual([admission.enter_client("a") for _ in range(3)], [True, True, False])
        self.assertTrue(admission.enter_client("b"))
        admission.leave_client("a")
        self.assertTrue(admission.enter_client("a"))
        for key in ("a", "a", "b"):
            admission.leave_client(key)
        self.assertEqual(admission._clients, {})
