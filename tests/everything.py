"""The SDK's server with the fixtures of the conformance suite, from the unpacked source distribution on PYTHONPATH.

python -m tests.everything stdio
python -m tests.everything http PORT
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # uvicorn would take httptools, which is here for the daemon, and which leaves white space at the end of a header's
    # value (RFC 9112, 5.1); the suite has a check for that, and the server shall pass all of them.
    sys.modules["httptools"] = None  # type: ignore[assignment]
    from mcp_everything_server.server import event_store, mcp

    if sys.argv[1] == "stdio":
        mcp.run("stdio")
    else:
        # As the server's own command starts it.
        port = int(sys.argv[2])
        mcp.run("streamable-http", host="127.0.0.1", port=port, event_store=event_store, retry_interval=100)
