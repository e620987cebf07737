"""The daemon's call to itself, against servers that show what they should, and what they should not."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor  # noqa: TID251  # a test is a program
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import deferLater

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.addresses import Trust
from mcptunnel.core.certificates import Facts
from mcptunnel.services.selfcheck import SelfCheck
from mcptunnel.test.tls.certs import LONG, mint
from mcptunnel.tls.chain import chain_facts
from tests.edge import EdgeTestCase


class SelfCheckTests(EdgeTestCase):
    """Real listeners, in this process."""

    def leaf(self, *names: str) -> tuple[Facts, dict[str, str]]:
        issued = mint(names[0], names=names, **LONG)
        pair = issued.write(self.directory, f"{issued.certificate.serial_number:x}")
        (facts,) = chain_facts(pair.cert_file, [issued.certificate])
        return facts, {"cert_file": pair.cert_file, "key_file": pair.key_file}

    async def test_what_is_shown_is_what_should_be(self) -> None:
        """Without a name, for each name of another certificate, by wildcard; an address alone cannot be asked for."""
        first, files = self.leaf("a.test", "127.0.0.1")
        others = [self.leaf("b.test"), self.leaf("*.c.test"), self.leaf("a.test"), self.leaf("192.0.2.1")]
        daemon = self.start(
            self.tls("application", **files, certificates=tuple(CertificatePair(**more) for _, more in others))
        )
        check = SelfCheck(reactor, lambda: IPv4Address("TCP", "0.0.0.0", self.port(daemon)), Trust(()))
        leaves = [first, *(facts for facts, _ in others)]
        self.assertEqual(await check.differences(leaves), [])
        wrong, _ = self.leaf("b.test")
        (line,) = await check.differences([first, wrong])
        self.assertIn("clients that ask for b.test are shown", line)
        self.assertIn(wrong.fingerprint[:16], line)

    async def test_its_failures_are_nobodys_handshakes(self) -> None:
        """Where clients need a certificate, it has none, sees what it has to see, and is not counted."""
        _, files = self.leaf("a.test")
        daemon = self.start(
            self.tls("application", **files, client_auth="required", ca_file=self.ca_file),
        )
        for _ in range(3):
            outcome = await daemon.reload()
            self.assertTrue(outcome.taken)
        # The other ends of those connections are heard of a little later.
        await deferLater(reactor, 0.2, lambda: None)
        self.assertEqual(daemon.front.tally.failures, {})
        self.assertEqual(daemon.following.troubles, [])

    async def test_through_a_listener_that_demands_a_proxy_header(self) -> None:
        """It introduces itself as the proxy."""
        first, files = self.leaf("a.test")
        daemon = self.start(self.tls("application", **files, trusted_proxies=("127.0.0.1",)), proxy_protocol="required")
        address = IPv4Address("TCP", "127.0.0.1", self.port(daemon))
        good = SelfCheck(reactor, lambda: address, Trust(("127.0.0.1",)))
        self.assertEqual(await good.differences([first]), [])
        bad = SelfCheck(reactor, lambda: address, Trust(()))
        self.assertEqual(len(await bad.differences([first])), 2)

    async def test_over_a_unix_socket_and_not_at_all(self) -> None:
        """A path leads to us as well; where nobody listens there is nothing to compare, or it is said."""
        first, files = self.leaf("a.test")
        path = str(Path(self.directory, "s"))
        self.start(self.tls("application", **files), host=f"unix:{path}")
        check = SelfCheck(reactor, lambda: UNIXAddress(path.encode()), Trust(()))
        self.assertEqual(await check.differences([first]), [])
        self.assertEqual(await SelfCheck(reactor, lambda: None, Trust(())).differences([first]), [])
        gone = SelfCheck(reactor, lambda: UNIXAddress(f"{path}-gone".encode()), Trust(()))
        self.assertIn("could not connect to itself", (await gone.differences([first]))[0])
