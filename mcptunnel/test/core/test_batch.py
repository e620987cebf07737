"""Tests for mcptunnel.core.batch: all of a batch or nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.batch import BATCH_MESSAGES, decode_batch
from mcptunnel.core.errors import RpcError
from mcptunnel.testing import notification, request, response

GOOD = [
    b'{"jsonrpc":"2.0", "id":1,"method":"a","params":{"n":1.0}}',
    notification("notifications/x"),
    response("r", {"s": "\u00df"}),
]


class BatchTests(SynchronousTestCase):
    """Arrays of messages."""

    def refused(self, raw: bytes, code: int) -> str:
        error: RpcError = self.assertRaises(RpcError, decode_batch, raw)
        self.assertEqual(error.code, code, raw)
        return error.message

    def test_each_message_keeps_its_bytes(self) -> None:
        """White space between them belongs to nobody."""
        messages = decode_batch(b" [ " + b" ,\n".join(GOOD) + b" ] ")
        self.assertEqual([message.raw for message in messages], GOOD)
        self.assertEqual([message.kind for message in messages], ["request", "notification", "result"])

    def test_a_message_that_could_not_come_alone_refuses_the_batch(self) -> None:
        """Batches in it, too; nothing of it is served."""
        for bad in (
            b"{}",
            b"1",
            b"[]",
            b"[" + GOOD[0] + b"]",
            b'{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}',
            b'{"jsonrpc":"2.0","id":null,"method":"a"}',
        ):
            self.refused(b"[" + GOOD[0] + b"," + bad + b"]", -32600)

    def test_what_is_no_json_is_a_parse_error(self) -> None:
        """Bytes that are not UTF-8 as well."""
        for bad in (b"[", b"[" + GOOD[0] + b",]", b"[" + GOOD[0] + b"]x", b"[" + GOOD[0][:-1] + b',"\xff":1}]', b"{}"):
            self.refused(bad, -32700)

    def test_there_are_only_so_many_messages(self) -> None:
        """And at least one."""
        self.refused(b"[]", -32600)
        self.assertEqual(len(decode_batch(b"[" + b",".join(GOOD[:1] * BATCH_MESSAGES) + b"]")), BATCH_MESSAGES)
        self.assertIn("saw 101", self.refused(b"[" + b",".join(GOOD[:1] * (BATCH_MESSAGES + 1)) + b"]", -32600))

    def test_initialize_comes_alone(self) -> None:
        """MCP 2025-03-26, Lifecycle."""
        self.assertIn("initialize", self.refused(b"[" + request("initialize") + b"]", -32600))
        self.assertIn("initialize", self.refused(b"[" + GOOD[0] + b"," + request("initialize", 2) + b"]", -32600))
