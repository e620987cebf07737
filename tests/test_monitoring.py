"""Certificates that are about to end or that nobody should trust: the log, health, a webhook and a program say so."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from mcptunnel.core.alerts import Alert
from mcptunnel.core.certificates import Facts, Role, Verdict
from mcptunnel.core.verdicts import Change
from mcptunnel.services.alerts import document
from mcptunnel.test.tls.certs import DAY, Authority
from tests.certificates import authority, issue
from tests.clients import HttpClient
from tests.daemon import Daemon, DaemonCase, alive
from tests.listening import Receiver, over_tls, receiver
from tests.processes import ROOT, free_port, require
from tests.test_docs import blocks

OFTEN = {"expiry_check_interval": "1s"}
SOON: dict[str, Any] = {"since": -87 * DAY, "until": 3 * DAY}


class MonitoringCase(DaemonCase):
    """Daemons that look every second."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = self.place / "ca.pem"
        self.ca.write_bytes(authority().pem)

    def eventually(self, what: Callable[[], bool], message: str, seconds: float = 20.0) -> None:
        """Pauses between looks and attempts are part of what is waited for."""
        super().eventually(what, message, seconds)

    def health(self, daemon: Daemon, tls: bool = False) -> dict[str, Any]:
        client = HttpClient(port=daemon.port) if tls else HttpClient(port=daemon.port, tls=None)
        found: dict[str, Any] = json.loads(client.get("/health").body)
        return found

    def verdicts(self, daemon: Daemon, role: str, tls: bool = False) -> dict[str, str]:
        """By file."""
        return {c["file"]: c["verdict"] for c in self.health(daemon, tls)["certificates"] if c["role"] == role}

    def lines(self, daemon: Daemon, words: str) -> list[str]:
        return [line for line in daemon.process.output().splitlines() if words in line]

    def to(self, port: int, **others: Any) -> dict[str, Any]:
        return {"url": f"https://127.0.0.1:{port}/mcp", "ca_file": str(self.ca), **others}


class UpstreamTests(MonitoringCase):
    """What https servers present."""

    def test_each_server_has_its_verdict_and_none_stops_the_others(self) -> None:
        """Good, about to end, not trusted, of another name, not there, with an authority that is suddenly broken."""
        stranger = Authority.root("Stranger").issue("127.0.0.1", now=time.time()).write(self.place, "stranger")
        misnamed = authority().issue("other.test", now=time.time()).write(self.place, "misnamed")
        broken = self.place / "broken.pem"
        broken.write_bytes(authority().pem)
        gone = free_port()
        daemon = self.daemon(
            tls=OFTEN,
            servers={
                "good": self.to(over_tls(self, issue(self.place, "good"))),
                "soon": self.to(over_tls(self, issue(self.place, "soon", **SOON))),
                "stranger": self.to(over_tls(self, stranger)),
                "misnamed": self.to(over_tls(self, misnamed)),
                "gone": self.to(gone, ca_file=str(broken)),
            },
        )
        expected = {
            "mcpServers.good": "ok",
            "mcpServers.soon": "critical",
            "mcpServers.stranger": "invalid",
            "mcpServers.misnamed": "invalid",
        }
        self.eventually(lambda: self.verdicts(daemon, "upstream") == expected, "not every verdict is there")
        broken.write_text("nothing")
        self.eventually(
            lambda: bool(self.health(daemon)["certificate_sources"]["mcpServers.gone.ca_file"]), "no error in health"
        )
        time.sleep(2.5)
        self.assertEqual(self.verdicts(daemon, "upstream"), expected)
        health = self.health(daemon)
        flaws = {c["file"]: c["flaw"] for c in health["certificates"] if c["flaw"]}
        self.assertEqual(
            flaws,
            {
                "mcpServers.stranger": "unable to get local issuer certificate",
                "mcpServers.misnamed": "it does not name 127.0.0.1, but other.test",
            },
        )
        errors = {name: error for name, error in health["certificate_sources"].items() if error}
        self.assertEqual(
            errors,
            {
                "mcpServers.gone.ca_file": f"{broken}: no PEM certificate in it",
                "mcpServers.gone": "cannot connect (Connection was refused by other side: 111: Connection refused.)",
            },
        )
        self.assertEqual(health["status"], "ok")
        for words in (
            "(upstream, mcpServers.soon) is critical: 3.0 days of life are left",
            "(upstream, mcpServers.stranger) is invalid: unable to get local issuer certificate",
            "(upstream, mcpServers.misnamed) is invalid: it does not name 127.0.0.1, but other.test",
            "the certificates of mcpServers.gone cannot be looked at: cannot connect",
            "the certificates of mcpServers.gone.ca_file cannot be looked at: ",
        ):
            self.assertEqual(len(self.lines(daemon, words)), 1, words)
        self.assertEqual(self.lines(daemon, "mcpServers.good"), [])
        broken.write_bytes(authority().pem)
        words = "the certificates of mcpServers.gone.ca_file can be looked at again"
        self.eventually(lambda: len(self.lines(daemon, words)) == 1, "the recovery is not in the log")

    def test_the_way_is_the_one_of_calls(self) -> None:
        """Through a tunnel of a proxy, by the name of the server."""
        port, asked = free_port(), self.place / "tinyproxy.log"
        configuration = self.place / "tinyproxy.conf"
        configuration.write_text(
            f'Port {port}\nListen 127.0.0.1\nLogFile "{asked}"\nLogLevel Connect\nMaxClients 9\nAllow 127.0.0.1\n'
        )
        self.start("tinyproxy", [require("tinyproxy"), "-d", "-c", str(configuration)], port)
        far = over_tls(self, issue(self.place, "far", **SOON))
        server = self.to(far, url=f"https://localhost:{far}/mcp", proxy=f"http://127.0.0.1:{port}")
        daemon = self.daemon(tls=OFTEN, servers={"far": server})
        self.eventually(
            lambda: self.verdicts(daemon, "upstream") == {"mcpServers.far": "critical"}, "no verdict through the proxy"
        )
        self.assertIn(f"CONNECT localhost:{far}", asked.read_text("utf-8", "replace"))

    def test_a_server_that_never_answers_does_not_keep_the_daemon(self) -> None:
        """It starts, serves and stops meanwhile."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        daemon = self.daemon(tls=OFTEN, servers={"silent": self.to(silent.getsockname()[1])})
        silent.settimeout(10)
        accepted, _ = silent.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(self.health(daemon)["status"], "ok")
        daemon.stop()


class GuideTests(MonitoringCase):
    """docs/monitoring.rst."""

    def test_the_document_in_the_guide_is_the_one_that_targets_get(self) -> None:
        """The same keys in the same order."""
        (shown,) = [block for block in blocks("monitoring") if block.kind == "json"]
        facts = Facts(file="", role="leaf", subject="", issuer="", serial="", not_before=0.0, not_after=1.0)
        change = Change(facts=facts, before="ok", after="warning", remaining=1.0, when=0.0)
        sent = json.loads(document(Alert.of(change), "edge-1"))
        self.assertEqual(list(json.loads(shown.body)), list(sent))

    def test_every_role_and_every_verdict_is_explained(self) -> None:
        """A new one is written down."""
        text = (ROOT / "docs" / "monitoring.rst").read_text()
        for word in (*get_args(Role), *get_args(Verdict)):
            self.assertIn(f"``{word}``", text)


class AlertTests(MonitoringCase):
    """Who is told."""

    def setUp(self) -> None:
        super().setUp()
        self.pair = issue(self.place, "own", **SOON)
        self.noted = self.place / "noted.jsonl"

    def serve(self, *alerts: dict[str, Any]) -> Daemon:
        tls = {"cert_file": self.pair.cert_file, "key_file": self.pair.key_file, **OFTEN}
        return self.daemon("application", tls=tls, alerts=list(alerts))

    def note(self) -> dict[str, Any]:
        return {"command": ["/bin/sh", "-c", f"cat >> '{self.noted}'; echo >> '{self.noted}'"]}

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.noted.read_text().splitlines()] if self.noted.exists() else []

    def verdicts_in(self, taken: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return [(document["before"], document["verdict"]) for document in taken]

    def test_a_webhook_that_fails_twice_and_a_program_hear_of_each_change_once(self) -> None:
        """Of the trouble, and of the renewal that ends it."""
        hook: Receiver = receiver(self, refusals=[500, 302])
        daemon = self.serve({"webhook": hook.url, "headers": {"Authorization": "Bearer T0KEN"}}, self.note())
        self.eventually(lambda: len(hook.documents) == 1, "nothing was delivered")
        self.eventually(lambda: len(self.notes()) == 1, "the program was not run")
        self.assertEqual(hook.attempts, [500, 302, 204])
        self.assertEqual(hook.headers["authorization"], "Bearer T0KEN")
        (document,) = hook.documents
        self.assertEqual(document, self.notes()[0])
        self.assertEqual(
            {key: document[key] for key in ("version", "event", "verdict", "before", "role", "file", "days_left")},
            {
                "version": 1,
                "event": "certificate_verdict",
                "verdict": "critical",
                "before": "ok",
                "role": "leaf",
                "file": self.pair.cert_file,
                "days_left": 3.0,
            },
        )
        self.assertEqual(self.verdicts(daemon, "leaf", tls=True), {self.pair.cert_file: "critical"})
        self.assertEqual(len(self.lines(daemon, "is critical: 3.0 days of life are left")), 1)
        issue(self.place, "own")
        os.kill(daemon.process.popen.pid, signal.SIGHUP)
        self.eventually(lambda: len(hook.documents) == 2 and len(self.notes()) == 2, "the renewal was not told of")
        self.assertEqual(self.verdicts_in(hook.documents), [("ok", "critical"), ("critical", "ok")])
        time.sleep(2.5)
        self.assertEqual((len(hook.documents), len(self.notes())), (2, 2))
        self.assertEqual(len(self.lines(daemon, "is ok again")), 1)
        self.assertEqual(self.lines(daemon, "T0KEN"), [])

    def test_a_program_that_fails_is_run_again(self) -> None:
        """And what it said is to be seen when one debugs."""
        mark = self.place / "mark"
        script = f"if [ -e '{mark}' ]; then cat > '{self.noted}'; else touch '{mark}'; echo no luck >&2; exit 3; fi"
        tls = {"cert_file": self.pair.cert_file, "key_file": self.pair.key_file, **OFTEN}
        daemon = self.daemon(
            "application",
            tls=tls,
            alerts=[{"command": ["/bin/sh", "-c", script]}],
            logging={"level": "debug", "access": "json", "access_file": str(self.place / "access.log")},
        )
        self.eventually(lambda: len(self.notes()) == 1, "it was not run again")
        self.eventually(
            lambda: len(self.lines(daemon, "alerts[0] (/bin/sh): it exited with status 3: no luck")) == 1, "not said"
        )

    def test_the_end_of_the_daemon_ends_a_program_and_what_it_has_started(self) -> None:
        """None of them outlives it."""
        pids = self.place / "pids"
        script = f"import os,subprocess,time;p=subprocess.Popen(['sleep','99']);open({str(pids)!r},'w').write"
        script += "(f'{os.getpid()} {p.pid}');time.sleep(99)"
        daemon = self.serve({"command": [sys.executable, "-c", script]})
        self.eventually(lambda: pids.exists() and " " in pids.read_text(), "it was not run")
        daemon.stop()
        self.eventually(lambda: not any(alive(int(pid)) for pid in Path(pids).read_text().split()), "they live on")
        self.assertEqual(len(self.lines(daemon, "1 alerts were not delivered before the end")), 1)

    def test_a_webhook_over_tls_must_be_who_it_says(self) -> None:
        """What the system trusts counts: the other one gets nothing, and keeps nobody waiting."""
        self.patch(os, "environ", {**os.environ, "SSL_CERT_FILE": str(self.ca)})
        stranger = Authority.root("Stranger").issue("127.0.0.1", now=time.time()).write(self.place, "stranger")
        false, true = receiver(self, pair=stranger), receiver(self, pair=issue(self.place, "hook"))
        daemon = self.serve({"webhook": false.url}, {"webhook": true.url})
        self.eventually(lambda: len(true.documents) == 1, "nothing was delivered")
        time.sleep(2.0)
        self.assertEqual(false.attempts, [])
        self.assertEqual(self.health(daemon, tls=True)["status"], "ok")
