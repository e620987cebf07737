"""Tests for mcptunnel.core.acme."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.acme import PREFIX, challenged, exempting, token
from mcptunnel.core.errors import RequestError
from mcptunnel.core.plaintext import PlainRequest, tls_only


class TokenTests(SynchronousTestCase):
    """What may be the name of a file."""

    def test_base64url_is_a_token(self) -> None:
        """Up to the bound."""
        for name in (b"a", b"evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", b"_-09azAZ", b"x" * 256):
            self.assertEqual(token(PREFIX + name), name.decode())

    def test_nothing_else_is(self) -> None:
        """No dot, slash, percent sign, NUL, line end, letter beyond ASCII; not empty, not without end."""
        for name in (b"", b".", b"..", b"a.b", b"a/b", b"../a", b"%61", b"a\0", b"a\n", b"a=", b"\xc3\xa4", b"x" * 257):
            self.assertIsNone(token(PREFIX + name), name)
        for path in (b"/", b"/a", b"a", b"/.well-known/acme-challenge", b"/x" + PREFIX + b"a", b"//" + PREFIX + b"a"):
            self.assertIsNone(token(path), path)


class ExemptionTests(SynchronousTestCase):
    """What passes where everything else is refused."""

    def passes(self, method: bytes, target: bytes) -> bool:
        decision = exempting(tls_only)(PlainRequest(method=method, target=target))
        if decision is None:
            return True
        assert isinstance(decision, RequestError)
        self.assertEqual(decision.status, 400)
        return False

    def test_get_and_head_pass(self) -> None:
        """With a query and in the absolute form too."""
        for method in (b"GET", b"HEAD"):
            for target in (PREFIX + b"a", PREFIX + b"a?b", b"http://any.test" + PREFIX + b"a", PREFIX + b"..%2f"):
                self.assertTrue(self.passes(method, target), target)

    def test_nothing_else_does(self) -> None:
        """Other methods, and paths that only become one when they are decoded or cleaned."""
        self.assertFalse(self.passes(b"POST", PREFIX + b"a"))
        self.assertFalse(self.passes(b"get", PREFIX + b"a"))
        for target in (
            b"/",
            b"*",
            b"/mcp?" + PREFIX,
            b"/.well-known/acme-challenge",
            b"/.well-known/acme%2dchallenge/a",
        ):
            self.assertFalse(self.passes(b"GET", target), target)
        self.assertFalse(challenged(b"GET", b"/./.well-known/acme-challenge/a"))
