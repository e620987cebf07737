"""The daemon behind real nginx, Traefik, Caddy and HAProxy: calls, streams, WebSocket, and who the client is."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
import time
from typing import Any

from mcp import Client

from tests.certificates import NAME, authority, client_context
from tests.clients import CLIENT, STRANGER, HttpClient, Reply, dial, modern, websocket
from tests.daemon import Daemon
from tests.processes import require
from tests.proxies import ETC, Proxy, ProxyCase
from tests.sdk import ERAS, over_http, session, text

# Where every proxy stands, as the daemon sees it; nobody else is trusted in these tests.
PROXY = "127.0.0.1"
DEMO = "/servers/demo/mcp"
TOOLS = ["echo", "add", "clock", "count", "ask"]
# `count` reports every 0.1 s: so many steps, and what must lie between the first report and the answer at least.
STEPS = 5
SPREAD = 0.25


class _Behind(ProxyCase):
    """What must work behind every proxy."""

    def check_all(
        self, proxy: Proxy, daemon: Daemon, *, peer: str = PROXY, ws_client: str = CLIENT, verdict: str = "forwarded"
    ) -> None:
        """Calls in both eras, streams, WebSocket; the records say who the client is.

        Args:
            proxy: What stands in front.
            daemon: What stands behind.
            peer: The records' ``peer``.
            ws_client: The client of the WebSocket's records.
            verdict: The records' ``verdict``.
        """
        who = {"peer": peer, "client": CLIENT, "scheme": "https", "verdict": verdict}
        self.check_modern(proxy, daemon, who)
        self.check_legacy(proxy, daemon, who)
        self.check_websocket(proxy, daemon, {"peer": peer, "client": ws_client, "scheme": "https"})
        self.check_sdk(proxy)

    def check_sdk(self, proxy: Proxy) -> None:
        """The official client, with a question that the server asks back on the way."""

        async def steps(client: Client) -> None:
            assert text(await client.call_tool("ask", {})) == "Hello Ada!"
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS

        for era in ERAS:
            session(over_http(proxy.port, DEMO, tls=client_context()), era, steps)

    def check_modern(self, proxy: Proxy, daemon: Daemon, who: dict[str, str]) -> None:
        client = proxy.client()
        listed = client.modern(DEMO, "tools/list")
        self.assertEqual([tool["name"] for tool in listed.last["result"]["tools"]], TOOLS)
        self.assertIn("Strict-Transport-Security", listed.headers)
        self.assertEqual(client.modern("/mcp", "tools/call", name="echo", arguments={"text": "é"}).text, "é")
        counted = client.modern(DEMO, "tools/call", name="count", arguments={"to": STEPS}, _meta={"progressToken": "p"})
        self.check_stream(counted)
        record = daemon.record(era="modern", method="tools/call", target="count")
        self.assertEqual({key: record[key] for key in who}, who, record)
        # A proxy may drop or keep the client's port; the name is the client's either way.
        self.assertEqual(record["host"].partition(":")[0], NAME, record)

    def check_legacy(self, proxy: Proxy, daemon: Daemon, who: dict[str, str]) -> None:
        client = proxy.client()
        opened = client.initialize(DEMO)
        self.assertEqual(opened.last["result"]["serverInfo"]["name"], "mcptunnel-demo")
        self.assertEqual(len(client.legacy(DEMO, "tools/list").last["result"]["tools"]), len(TOOLS))
        self.assertEqual(client.legacy(DEMO, "tools/call", name="add", arguments={"a": 2, "b": 3}).text, "5")
        counted = client.legacy(DEMO, "tools/call", name="count", arguments={"to": STEPS}, _meta={"progressToken": "p"})
        self.check_stream(counted)
        record = daemon.record(era="legacy", method="tools/call", target="count")
        self.assertEqual({key: record[key] for key in who}, who, record)
        self.assertEqual(client.send("DELETE", DEMO, None, client.legacy_headers()).status, 200)
        self.assertEqual(client.legacy(DEMO, "tools/list").status, 404)

    def check_stream(self, reply: Reply) -> None:
        """Every report came, in order, when it was made: nothing on the way collected them."""
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.headers.get_content_type(), "text/event-stream")
        steps = [message["params"]["progress"] for message in reply.messages[:-1]]
        self.assertEqual(steps, list(range(1, STEPS + 1)))
        self.assertEqual(reply.text, f"counted to {STEPS}")
        self.check_times(reply.times)

    def check_times(self, times: list[float]) -> None:
        spread = times[-1] - times[0]
        self.assertGreater(spread, SPREAD, f"events came in a bunch, at {times}")
        # None of the steps waited for a later one either.
        self.assertGreater(
            len({round(at, 2) for at in times[:STEPS]}), STEPS - 2, f"events came in bunches, at {times}"
        )

    def check_websocket(self, proxy: Proxy, daemon: Daemon, who: dict[str, str]) -> None:
        with websocket(proxy.port, tls=client_context()) as ws:
            self.assertEqual(ws.connection.subprotocol, "mcp")
            self.assertEqual(ws.initialize()["protocolVersion"], "2025-11-25")
            listed, _ = ws.call("tools/list")
            self.assertEqual([tool["name"] for tool in listed["result"]["tools"]], TOOLS)
            called, times = ws.call("tools/call", name="count", arguments={"to": STEPS}, _meta={"progressToken": "p"})
            self.assertEqual(called["result"]["content"][0]["text"], f"counted to {STEPS}")
            self.assertEqual(len(times), STEPS + 1)
            self.check_times(times)
        record = daemon.record(protocol="ws", method="tools/call", target="count")
        self.assertEqual({key: record[key] for key in who}, who, record)
        upgrade = daemon.record(protocol="ws", status=101, path="/mcp/ws")
        self.assertEqual({key: upgrade[key] for key in who}, who, upgrade)

    def check_forged(self, proxy: Proxy, daemon: Daemon) -> None:
        """What the client itself writes into forwarding headers counts for nothing."""
        forged = {
            "X-Forwarded-For": "198.51.100.1, 127.0.0.1",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": "evil.example",
            "X-Real-IP": "198.51.100.2",
            "Forwarded": "for=198.51.100.3;proto=http;host=evil.example",
        }
        client = proxy.client()
        client.headers = forged
        self.assertEqual(client.modern(DEMO, "tools/call", name="clock").status, 200)
        record = daemon.record(target="clock")
        self.assertEqual((record["client"], record["scheme"]), (CLIENT, "https"), record)
        self.assertEqual(record["host"].partition(":")[0], NAME, record)
        with websocket(proxy.port, tls=client_context(), headers=forged) as ws:
            ws.initialize()
            ws.call("tools/call", name="echo", arguments={"text": "forged"})
        record = daemon.record(protocol="ws", target="echo")
        self.assertEqual((record["client"], record["scheme"]), (CLIENT, "https"), record)

    def check_http2(self, proxy: Proxy, daemon: Daemon) -> None:
        """HTTP/2 between client and proxy: the same call, the same stream, event by event."""
        (self.place / "ca.pem").write_bytes(authority().pem)
        message = modern("tools/call", name="count", arguments={"to": STEPS}, _meta={"progressToken": "p"})
        argv = [require("curl"), "--http2", "--no-buffer", "--silent", "--show-error", "--max-time", "15"]
        argv += ["--cacert", str(self.place / "ca.pem"), "--interface", CLIENT, "--write-out", "%{http_version}\n"]
        argv += ["--resolve", f"{NAME}:{proxy.port}:127.0.0.1", f"https://{NAME}:{proxy.port}{DEMO}"]
        argv += ["--data-binary", json.dumps(message)]
        for name, value in proxy.client().modern_headers(message).items():
            argv += ["--header", f"{name}: {value}"]
        times: list[float] = []
        lines: list[str] = []
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as curl:
            assert curl.stdout is not None
            for line in curl.stdout:
                lines.append(line)
                if line.startswith("data:"):
                    times.append(time.monotonic())
        self.assertEqual((curl.returncode, lines[-1]), (0, "2\n"), lines)
        self.assertEqual(len(times), STEPS + 1, lines)
        self.check_times(times)
        record = daemon.record(target="count")
        self.assertEqual((record["client"], record["scheme"]), (CLIENT, "https"), record)

    def check_hang_up(self, proxy: Proxy, daemon: Daemon) -> None:
        """A client that goes away ends its call here too, long before the call would end."""
        message = modern("tools/call", name="count", arguments={"to": 99}, _meta={"progressToken": "p"})
        client = proxy.client()
        with client.open("POST", DEMO, json.dumps(message).encode(), client.modern_headers(message)) as (response, _):
            self.assertIn(b"data:", response.read1(65_536))

        # Every other call of this tool was answered.
        def given_up() -> list[dict[str, Any]]:
            return [record for record in daemon.records() if record.get("target") == "count" and "error" in record]

        self.eventually(lambda: bool(given_up()), "the call goes on")
        (record,) = given_up()
        self.assertGreater(record["duration"], 0.05, record)
        self.assertLess(record["duration"], 5, record)


class SpecificationTests(_Behind):
    """The configurations that the specification prints; names, ports and paths replaced, nothing else."""

    def test_nginx_before_behind_proxy(self) -> None:
        """nginx as specified. It buffers: only our X-Accel-Buffering lets events through."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        proxy = self.nginx(daemon, "nginx-spec.conf")
        # Its block for /mcp/ws sends no X-Forwarded-For: all that anybody can know there is nginx itself.
        self.check_all(proxy, daemon, ws_client=PROXY)
        # And what a client sends there is handed on, so that it names itself: why our own configuration sets every
        # header. Were this refused some day, the guide's warning could go.
        with websocket(proxy.port, tls=client_context(), headers={"X-Forwarded-For": "198.51.100.1"}) as ws:
            ws.initialize()
        self.assertEqual(daemon.record(protocol="ws", method="initialize")["client"], "198.51.100.1")

    def test_nginx_before_auto(self) -> None:
        """The same before mode auto."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        self.check_all(self.nginx(daemon, "nginx-spec.conf"), daemon, ws_client=PROXY)

    def test_traefik_before_behind_proxy(self) -> None:
        """Traefik as specified."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        self.check_all(self.traefik(daemon, "traefik-spec.yaml"), daemon)

    def test_traefik_before_auto(self) -> None:
        """The same before mode auto."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        self.check_all(self.traefik(daemon, "traefik-spec.yaml"), daemon)

    def test_nothing_of_ours_is_in_them(self) -> None:
        """nginx buffers and speaks HTTP/1.0 here: were that switched off, the tests above would show less."""
        text = (ETC / "nginx-spec.conf").read_text()
        self.assertNotIn("buffering", text)
        self.assertEqual(text.count("proxy_http_version"), 1)


class RecommendedTests(_Behind):
    """The configurations that our guides recommend."""

    def check(self, proxy: Proxy, daemon: Daemon) -> None:
        self.check_all(proxy, daemon)
        self.check_forged(proxy, daemon)
        self.check_http2(proxy, daemon)
        self.check_hang_up(proxy, daemon)

    def test_nginx_before_behind_proxy(self) -> None:
        """nginx."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        self.check(self.nginx(daemon), daemon)

    def test_traefik_before_behind_proxy(self) -> None:
        """Traefik."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        self.check(self.traefik(daemon), daemon)

    def test_caddy_before_behind_proxy(self) -> None:
        """Caddy."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        self.check(self.caddy(daemon), daemon)

    def test_caddy_before_auto(self) -> None:
        """Caddy before mode auto."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        self.check_all(self.caddy(daemon), daemon)

    def test_haproxy_before_behind_proxy(self) -> None:
        """HAProxy that ends TLS."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        self.check(self.haproxy(daemon), daemon)

    def test_haproxy_before_auto(self) -> None:
        """HAProxy that ends TLS, before mode auto."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        self.check_all(self.haproxy(daemon), daemon)


class ProxyProtocolTests(_Behind):
    """HAProxy with send-proxy-v2: TLS ends with us, and the PROXY header says who the client is."""

    def passing_through(self, mode: str, proxy_protocol: str) -> tuple[Proxy, Daemon]:
        daemon = self.daemon(mode, trusted=(PROXY,), server={"proxy_protocol": proxy_protocol})
        return self.haproxy(daemon, "haproxy-proxy-protocol.cfg"), daemon

    def test_required(self) -> None:
        """With the header everything works; without it a trusted peer gets nothing."""
        proxy, daemon = self.passing_through("auto", "required")
        self.check_all(proxy, daemon, peer=CLIENT, verdict="direct")
        without = HttpClient(port=daemon.port, source=PROXY)
        with self.assertRaises((OSError, http.client.HTTPException)):
            without.get("/health/live")

    def test_optional(self) -> None:
        """With the header and without it, on one port."""
        proxy, daemon = self.passing_through("application", "optional")
        self.check_all(proxy, daemon, peer=CLIENT, verdict="direct")
        without = HttpClient(port=daemon.port, source=PROXY)
        self.assertEqual(without.modern(DEMO, "tools/call", name="clock").status, 200)
        self.assertEqual(daemon.record(target="clock")["client"], PROXY)

    def test_off(self) -> None:
        """While proxy_protocol is off the header is no TLS and no HTTP: the connection ends."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        with self.assertRaises(AssertionError) as caught:
            self.patch_ready(1.5)
            self.haproxy(daemon, "haproxy-proxy-protocol.cfg")
        self.assertIn("nothing answers", str(caught.exception))
        self.assertEqual(daemon.records(), [])

    def test_untrusted_sender(self) -> None:
        """A PROXY header of somebody who is not listed is not believed: the connection ends."""
        daemon = self.daemon("auto", trusted=("127.0.0.2",), server={"proxy_protocol": "optional"})
        with self.assertRaises(AssertionError) as caught:
            self.patch_ready(1.5)
            self.haproxy(daemon, "haproxy-proxy-protocol.cfg")
        self.assertIn("nothing answers", str(caught.exception))
        self.assertEqual(daemon.records(), [])

    def patch_ready(self, seconds: float) -> None:
        """Wait no longer than this for a proxy that shall never be ready."""
        self.patch(self, "ready_seconds", seconds)


class OnePortTests(_Behind):
    """Mode auto: TLS clients, a trusted proxy and strangers, all on one port at the same time."""

    def test_direct_tls_and_a_trusted_proxy_at_once(self) -> None:
        """Each gets its own identity while the streams of both run."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        direct = HttpClient(port=daemon.port, source=STRANGER)
        proxied = HttpClient(
            port=daemon.port,
            source=PROXY,
            tls=None,
            headers={"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https", "X-Forwarded-Host": NAME},
        )
        message = modern("tools/call", name="count", arguments={"to": STEPS}, _meta={"progressToken": "p"})
        body = json.dumps(message).encode()
        headers = direct.modern_headers(message)
        with (
            direct.open("POST", DEMO, body, headers) as (one, _),
            proxied.open("POST", DEMO, body, headers) as (other, _),
        ):
            self.assertEqual((one.status, other.status), (200, 200))
            self.assertIn(b"counted to", one.read())
            self.assertIn(b"counted to", other.read())
            self.assertIsNotNone(one.headers["Strict-Transport-Security"])
            self.assertIsNotNone(other.headers["Strict-Transport-Security"])
        seen = {
            (daemon.record(target="count", peer=peer)["client"], daemon.record(target="count", peer=peer)["scheme"])
            for peer in (STRANGER, PROXY)
        }
        self.assertEqual(seen, {(STRANGER, "https"), (CLIENT, "https")})

    def test_forwarded_headers_of_a_direct_client_count_for_nothing(self) -> None:
        """Trust is the peer's, not the header's."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        client = HttpClient(
            port=daemon.port, source=STRANGER, headers={"X-Forwarded-For": "10.1.1.1", "X-Forwarded-Proto": "http"}
        )
        self.assertEqual(client.modern(DEMO, "tools/call", name="clock").status, 200)
        record = daemon.record(target="clock")
        self.assertEqual((record["client"], record["scheme"], record["verdict"]), (STRANGER, "https", "stripped"))

    def test_untrusted_plaintext_never_arrives(self) -> None:
        """A stranger without TLS: a redirect where that is harmless, a refusal that names the https URL elsewhere."""
        daemon = self.daemon("auto", trusted=(PROXY,))
        stranger = HttpClient(port=daemon.port, source=STRANGER, tls=None)
        moved = stranger.get("/mcp")
        self.assertEqual(moved.status, 308)
        self.assertEqual(moved.headers["Location"], f"https://{NAME}:{daemon.port}/mcp")
        for refused in (
            stranger.modern(DEMO, "tools/call", name="clock"),
            stranger.get("/mcp", Authorization="Bearer secret"),
            stranger.send("POST", DEMO, b"{}", {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}),
        ):
            self.assertEqual(refused.status, 403)
            self.assertEqual(refused.last["reason"], "https_required")
            self.assertIn(f"https://{NAME}", refused.body.decode())
        for reply in (moved, refused):
            self.assertNotIn("Strict-Transport-Security", reply.headers)
        self.assertEqual([r for r in daemon.records() if r.get("method")], [], "the relay saw a plaintext call")

    def test_plaintext_modes_refuse_tls_and_strangers(self) -> None:
        """behind_proxy: TLS is closed, a stranger gets 403; the trusted peer next to them is served."""
        daemon = self.daemon("behind_proxy", trusted=(PROXY,))
        with self.assertRaises((ssl.SSLError, OSError)):
            HttpClient(port=daemon.port, source=STRANGER).get("/health/live")
        stranger = HttpClient(port=daemon.port, source=STRANGER, tls=None)
        self.assertEqual(stranger.modern(DEMO, "tools/call", name="clock").status, 403)
        trusted = HttpClient(port=daemon.port, source=PROXY, tls=None)
        self.assertEqual(trusted.modern(DEMO, "tools/call", name="clock").status, 200)
        self.assertEqual(daemon.record(target="clock")["scheme"], "http")

    def test_application_mode_explains_itself_to_plaintext(self) -> None:
        """application: a readable 400 for plaintext, even of a trusted peer; TLS on the same port works."""
        daemon = self.daemon("application", trusted=(PROXY,))
        for source in (PROXY, STRANGER):
            refused = HttpClient(port=daemon.port, source=source, tls=None).get("/health/live")
            self.assertEqual(refused.status, 400)
            self.assertIn("https", refused.body.decode())
        self.assertEqual(HttpClient(port=daemon.port, source=STRANGER).get("/health/live").status, 200)

    def test_a_slow_first_byte_harms_nobody_else(self) -> None:
        """Connections that say nothing are open while others are served, and are closed after their time."""
        daemon = self.daemon("auto", trusted=(PROXY,), server={"limits": {"preface_timeout": "1s"}})
        silent = [dial(daemon.port, STRANGER) for _ in range(20)]
        try:
            self.assertEqual(HttpClient(port=daemon.port, source=STRANGER).get("/health/live").status, 200)
            started = time.monotonic()
            for sock in silent:
                sock.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(sock.recv(1), b"")
            self.assertLess(time.monotonic() - started, 4)
        finally:
            for sock in silent:
                sock.close()
