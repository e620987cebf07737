"""Tests for mcptunnel.core.exchange: one end, whatever happens after it."""

from __future__ import annotations

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange, error_code
from mcptunnel.core.jsonrpc import Message, decode
from mcptunnel.testing import make_exchange, request, response


@define(eq=False)
class Calls:
    """The upstream side: remembers what it is told."""

    told: list[object] = field(factory=list)

    def cancel(self, reason: bytes | None) -> None:
        self.told.append(("cancel", reason))

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


class ExchangeTests(SynchronousTestCase):
    """A request, its messages, its end."""

    def setUp(self) -> None:
        self.exchange, self.sink = make_exchange(request("tools/call", "x", {"name": "a"}))
        self.call = Calls()
        self.exchange.call = self.call
        self.ends: list[Exchange] = []
        self.exchange.on_end(self.ends.append)

    def test_messages_then_the_response(self) -> None:
        """In order, and the end is told once."""
        self.exchange.emit(b"1")
        self.exchange.emit(b"2")
        self.exchange.finish(decode(response("x", {"ok": 1})))
        self.assertEqual(self.sink.messages, [b"1", b"2"])
        self.assertEqual(self.sink.replies, [(response("x", {"ok": 1}), None, None)])
        self.assertEqual((self.ends, self.exchange.record.code), ([self.exchange], None))

    def test_nothing_is_said_after_each_kind_of_end(self) -> None:
        """Late messages, responses and failures are swallowed."""
        for end in (
            lambda e: e.finish(decode(response("x"))),
            lambda e: e.fail(RpcError(-32000, "no")),
            lambda e: e.abandon(),
        ):
            self.setUp()
            end(self.exchange)
            said = (list(self.sink.messages), list(self.sink.replies), list(self.call.told))
            self.exchange.emit(b"late")
            self.exchange.finish(decode(response("x")))
            self.exchange.fail(RpcError(-32000, "late"))
            self.exchange.abandon(b'"late"')
            self.exchange.pause()
            self.assertEqual((self.sink.messages, self.sink.replies, self.call.told), said)
            self.assertEqual(self.ends, [self.exchange])

    def test_a_failure_is_an_error_under_the_clients_id(self) -> None:
        """The record says which."""
        error = RpcError(-32601, "no such thing", reason="method_not_found")
        self.exchange.fail(error)
        self.assertEqual(
            self.sink.answer, {"jsonrpc": "2.0", "id": "x", "error": {"code": -32601, "message": "no such thing"}}
        )
        self.assertEqual(self.sink.replies[0][1:], (error, -32601))
        self.assertEqual((self.exchange.record.error, self.exchange.record.code), ("method_not_found", -32601))

    def test_an_error_of_the_server_is_passed_on_with_its_code(self) -> None:
        """It is no failure of ours, and is not rewritten."""
        self.exchange.rewrite = lambda _: b"rewritten"
        raw = response("x", error={"code": -32002, "message": "gone"})
        self.exchange.finish(decode(raw))
        self.assertEqual(self.sink.replies, [(raw, None, -32002)])
        self.assertEqual((self.exchange.record.error, self.exchange.record.code), (None, -32002))

    def test_a_result_can_be_rewritten(self) -> None:
        """And a rewrite that refuses is a failure."""
        self.exchange.rewrite = lambda reply: b"<" + reply.raw + b">"
        self.exchange.finish(decode(response("x")))
        self.assertEqual(self.sink.replies[0][0], b"<" + response("x") + b">")
        self.setUp()

        def refuse(reply: Message) -> bytes:
            raise RpcError(-32603, "unreadable", reason="upstream_malformed")

        self.exchange.rewrite = refuse
        self.exchange.finish(decode(response("x")))
        self.assertEqual(self.sink.answer["error"]["code"], -32603)
        self.assertEqual(self.ends, [self.exchange])

    def test_abandoning_cancels_upstream_and_says_nothing(self) -> None:
        """With the client's reason."""
        self.exchange.abandon(b'"why"')
        self.assertEqual(self.call.told, [("cancel", b'"why"')])
        self.assertFalse(self.sink.answered)
        self.assertEqual(self.ends, [self.exchange])

    def test_pausing_is_told_once_and_ends_with_the_exchange(self) -> None:
        """A shared connection must not stay paused for a call that is over."""
        self.exchange.pause()
        self.exchange.pause()
        self.exchange.resume()
        self.exchange.resume()
        self.assertEqual(self.call.told, ["pause", "resume"])
        for end in (lambda e: e.finish(decode(response("x"))), lambda e: e.abandon()):
            self.setUp()
            self.exchange.pause()
            end(self.exchange)
            self.assertEqual(self.call.told[:2], ["pause", "resume"])

    def test_without_an_upstream_side_pausing_and_abandoning_do_no_harm(self) -> None:
        """Refused before anything was sent."""
        self.exchange.call = None
        self.exchange.pause()
        self.exchange.resume()
        self.exchange.abandon()
        self.assertTrue(self.exchange.done)


class ErrorCodeTests(SynchronousTestCase):
    """The code of an error response."""

    def test_codes(self) -> None:
        """An integer of reasonable size, or 0."""
        for error, code in (
            (b'{"code":-32601}', -32601),
            (b'{"code":"-32601"}', 0),
            (b'{"code":1.5}', 0),
            (b'{"code":true}', 0),
            (b'{"code":99999999999}', 0),
            (b'{"code":1e999}', 0),
            (b"{}", 0),
            (b'"oops"', 0),
            (b'{"code":1,"code":2}', 0),
        ):
            message = decode(b'{"jsonrpc":"2.0","id":1,"error":%b}' % error)
            self.assertEqual(error_code(message), code, error)
        self.assertEqual(error_code(decode(response(1))), 0)
