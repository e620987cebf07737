"""An MCP server of 2026-07-28 that starts in milliseconds, for tests that kill many: ``python -I -S quick.py``.

``tools/call`` answers, after ``arguments.seconds``, with ``arguments.value`` and its own process id.
"""

import json
import os
import sys
import threading

lock = threading.Lock()


def answer(number, result):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}) + "\n")
        sys.stdout.flush()


for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "tools/list":
        answer(message["id"], {"resultType": "complete", "tools": [], "ttlMs": 60000, "cacheScope": "public"})
    elif message.get("method") == "tools/call":
        arguments = message["params"]["arguments"]
        found = {"value": arguments["value"], "pid": os.getpid()}
        result = {"resultType": "complete", "content": [], "structuredContent": found}
        timer = threading.Timer(arguments["seconds"], answer, (message["id"], result))
        timer.daemon = True
        timer.start()
