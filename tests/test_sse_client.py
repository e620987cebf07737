"""HTTP+SSE, the transport of 2024-11-05, from outside: the official client, and what a plain one sees."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from urllib.parse import urljoin

from mcp import Client

from tests.certificates import client_context
from tests.clients import ACCEPT, INITIALIZE, HttpClient
from tests.daemon import Daemon, DaemonCase
from tests.sdk import ERAS, over_sse, session, text, walk

UPSTREAM = "tests.upstream"
TOKENS = {"ci": "5f1d7c0a-outside", "other": "77b0e2f1-outside"}


class SdkTests(DaemonCase):
    """The official Python client, with and without handshake."""

    def walk(self, daemon: Daemon, path: str, prefix: str = "") -> None:
        async def steps(client: Client) -> None:
            await walk(client, prefix)

        for era in ERAS:
            session(over_sse(daemon.port, path, tls=client_context()), era, steps)

    def test_one_server(self) -> None:
        """/servers/NAME/sse, a child and one with an address: list, call, progress, elicitation, parallel, cancel."""
        daemon = self.daemon(
            "auto", servers={"child": self.child(UPSTREAM), "remote": {"url": self.upstream(UPSTREAM)}}
        )
        self.walk(daemon, "/servers/child/sse")
        self.walk(daemon, "/servers/remote/sse")
        for era in ("legacy", "modern"):
            record = daemon.record(protocol="sse", method="tools/call", era=era, target="greet", upstream="remote")
            self.assertEqual((record["status"], record["path"]), (202, "/servers/remote/messages"))
        self.assertEqual(daemon.record(protocol="sse", verb="GET")["path"], "/servers/remote/sse")

    def test_all_servers_at_one_address(self) -> None:
        """/mcp/sse: names are prefixed. A slash at the end makes no difference."""
        daemon = self.daemon("auto", servers={"work": self.child(UPSTREAM), "demo": self.child()})
        self.walk(daemon, "/mcp/sse", "work__")
        self.walk(daemon, "/mcp/sse/", "work__")

    def test_a_token(self) -> None:
        """It goes with the stream and with every message."""
        daemon = self.locked()

        async def steps(client: Client) -> None:
            assert text(await client.call_tool("echo", {"text": "in"})) == "in"

        for era in ERAS:
            session(over_sse(daemon.port, "/servers/demo/sse", tls=client_context(), token=TOKENS["ci"]), era, steps)
        named = [record for record in daemon.records() if record.get("target") == "echo"]
        self.assertEqual([record["principal"] for record in named], ["ci"] * 2)

    def locked(self) -> Daemon:
        return self.daemon("auto", auth={"tokens": [{"name": name, "token": token} for name, token in TOKENS.items()]})

    def test_one_session_belongs_to_one_principal(self) -> None:
        """Somebody else's does not exist, whoever knows its address; neither does one that is over."""
        daemon = self.locked()
        owner, other = (
            HttpClient(port=daemon.port, headers={"Authorization": f"Bearer {token}"}) for token in TOKENS.values()
        )
        hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}).encode()
        with stream(owner) as (endpoint, events):
            self.assertEqual(other.send("POST", endpoint, hello, ACCEPT).status, 404)
            self.assertEqual(HttpClient(port=daemon.port).send("POST", endpoint, hello, ACCEPT).status, 401)
            accepted = owner.send("POST", endpoint, hello, ACCEPT)
            self.assertEqual((accepted.status, accepted.body), (202, b"Accepted"))
            event, data = next(events)
            self.assertEqual((event, json.loads(data)["id"]), ("message", 1))
        self.eventually(
            lambda: owner.send("POST", endpoint, hello, ACCEPT).status == 404, "the session outlived its stream"
        )

    def test_a_daemon_that_stops_ends_the_stream(self) -> None:
        """In order, with a session and without: a client sees the end of a whole response, not a cut one."""
        daemon = self.daemon("auto")
        client = HttpClient(port=daemon.port)
        hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}).encode()
        with stream(client) as (endpoint, events), stream(client) as (_, idle):
            client.send("POST", endpoint, hello, ACCEPT)
            self.assertEqual(next(events)[0], "message")
            daemon.stop()
            self.assertEqual((list(events), list(idle)), ([], []))


@contextlib.contextmanager
def stream(client: HttpClient) -> Iterator[tuple[str, Iterator[tuple[str, str]]]]:
    """A stream at /servers/demo/sse: where to post, and its further events."""
    with client.open("GET", "/servers/demo/sse", headers={"Accept": "text/event-stream"}) as (response, _):
        assert response.status == 200, response.status
        found = events_of(response)
        event, reference = next(found)
        assert event == "endpoint", event
        yield urljoin("/servers/demo/sse", reference), found


def events_of(response: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """Name and data of each event, as it arrives.

    Raises:
        IncompleteRead: The stream was cut.
    """
    buffer = b""
    while chunk := response.read1(65_536):
        buffer += chunk
        while b"\n\n" in buffer:
            block, _, buffer = buffer.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            if fields:
                yield fields["event"], fields["data"]
