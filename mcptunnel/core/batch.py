"""JSON-RPC batches: several messages in one array, as revision 2025-03-26 alone has them."""

from __future__ import annotations

from typing import Final

import msgspec

from mcptunnel.core.errors import INVALID_REQUEST, PARSE_ERROR, RpcError
from mcptunnel.core.jsonrpc import Message, decode

__all__ = ["BATCH_MESSAGES", "BATCH_VERSION", "decode_batch"]

BATCH_VERSION: Final = "2025-03-26"
# Of one batch: each costs more to serve than to send.
BATCH_MESSAGES: Final = 100

_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def decode_batch(raw: bytes) -> list[Message]:
    """Read a batch, all of it or nothing: each message is one that could have come alone.

    Raises:
        RpcError: It is no array of messages, is empty or too long, or holds ``initialize`` (MCP 2025-03-26,
            Lifecycle: "must not be part of a JSON-RPC batch").
    """
    try:
        # Elements are copied out of the text as they are: what separates them has to be readable as well.
        raw.decode("utf-8")
        elements = _decode_list(raw)
    except (ValueError, msgspec.DecodeError):
        raise RpcError(PARSE_ERROR, "the body is not a JSON array in UTF-8", reason="parse_error") from None
    if not 0 < len(elements) <= BATCH_MESSAGES:
        raise RpcError(
            INVALID_REQUEST,
            f"expected 1 to {BATCH_MESSAGES} messages in a batch, saw {len(elements)}",
            reason="invalid_request",
        )
    messages = [decode(bytes(element)) for element in elements]
    if any(message.method == "initialize" for message in messages):
        raise RpcError(INVALID_REQUEST, "initialize cannot be part of a batch", reason="invalid_request")
    return messages
