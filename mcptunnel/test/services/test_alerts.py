"""Tests for mcptunnel.services.alerts."""

from __future__ import annotations

import json
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcptunnel.config.load import load_text
from mcptunnel.core.alerts import Alert
from mcptunnel.core.certificates import DAY, Facts
from mcptunnel.core.errors import ConfigError
from mcptunnel.core.verdicts import Change
from mcptunnel.services import alerts
from mcptunnel.services.alerts import Alerts, Target, document
from mcptunnel.services.delivery import Delivery
from mcptunnel.services.ways import Way, way_to
from mcptunnel.test.services.test_notifier import Reactor
from mcptunnel.test.tls.certs import NOW
from mcptunnel.upstream.endpoints import Kept, Tunnel

FACTS = Facts(
    file="/etc/a.pem",
    role="leaf",
    subject="CN=ä",
    issuer="CN=b",
    serial="ab12",
    names=("a.test", "b.test"),
    not_before=NOW - 80 * DAY,
    not_after=NOW + 10 * DAY,
    fingerprint="f" * 64,
)
CHANGE = Change(facts=FACTS, before="ok", after="warning", remaining=10 * DAY, when=NOW)
REFUSED = Alert(event="reload_refused", verdict="critical", before="ok", message="no such file", when=NOW)


class DocumentTests(SynchronousTestCase):
    """What a target gets."""

    def test_a_change_of_a_verdict(self) -> None:
        """Every key; JSON, as UTF-8."""
        self.assertEqual(
            json.loads(document(Alert.of(CHANGE), "edge-1")),
            {
                "version": 1,
                "event": "certificate_verdict",
                "host": "edge-1",
                "time": "2027-01-15T08:00:00Z",
                "verdict": "warning",
                "before": "ok",
                "subject": "CN=ä",
                "names": ["a.test", "b.test"],
                "file": "/etc/a.pem",
                "role": "leaf",
                "serial": "ab12",
                "fingerprint": "f" * 64,
                "not_after": "2027-01-25T08:00:00Z",
                "days_left": 10.0,
                "message": CHANGE.message,
            },
        )
        self.assertIn("ä".encode(), document(Alert.of(CHANGE), "edge-1"))

    def test_what_is_about_no_certificate_has_the_same_keys(self) -> None:
        """Null, so that a receiver need not ask first."""
        shown = json.loads(document(REFUSED, "h"))
        self.assertEqual(shown.keys(), json.loads(document(Alert.of(CHANGE), "h")).keys())
        self.assertEqual((shown["event"], shown["verdict"], shown["file"]), ("reload_refused", "critical", None))

    def test_what_is_not_in_use_any_more_is_gone(self) -> None:
        """Which is no verdict, but the end of one."""
        gone = Change(facts=FACTS, before="expired", after=None, remaining=-DAY, when=NOW)
        shown = json.loads(document(Alert.of(gone), "h"))
        self.assertEqual((shown["verdict"], shown["before"]), ("gone", "expired"))


class AlertsTests(SynchronousTestCase):
    """Who is told of what."""

    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.told: list[tuple[str, str]] = []

    def target(self, name: str, least: Any = "warning") -> Target:
        def send(written: bytes) -> Deferred[None]:
            self.told.append((name, json.loads(written)["event"]))
            return succeed(None)

        return Target(delivery=Delivery(target=name, send=send, clock=self.reactor), least=least)

    def test_each_target_is_told_of_what_concerns_it(self) -> None:
        """From its start on, nothing after its end; what came before is told then."""
        service = Alerts("h", [self.target("all"), self.target("grave", "critical")])
        self.assertTrue(verifyObject(IService, service))
        service.changed(CHANGE)
        self.assertEqual(self.told, [])
        service.startService()
        self.assertEqual(self.told, [("all", "certificate_verdict")])
        service.tell(REFUSED)
        self.assertEqual(self.told[1:], [("all", "reload_refused"), ("grave", "reload_refused")])
        service.stopService()
        service.tell(REFUSED)
        self.assertEqual(len(self.told), 3)

    def test_targets_are_those_of_the_configuration(self) -> None:
        """Named without their secrets; nothing is connected or run before there is something to say."""
        config = load_text(
            "alerts:\n"
            "- {webhook: 'https://hooks.test:8443/s/T0KEN?key=T0KEN', headers: {Authorization: 'Bearer T0KEN'}}\n"
            "- {command: [/bin/pager, --token, T0KEN], least: critical}\n"
            "- {webhook: 'http://plain.test/T0KEN'}\n",
            name="f",
            environ={},
        )
        environ = {"https_proxy": "http://proxy.test:3128", "http_proxy": "http://proxy.test:3128"}
        service = Alerts.from_config(config.alerts, "h", self.reactor, environ)
        self.assertEqual(
            [(target.delivery.target, target.least) for target in service.targets],
            [
                ("alerts[0] (https://hooks.test:8443)", "warning"),
                ("alerts[1] (/bin/pager)", "critical"),
                ("alerts[2] (http://plain.test)", "warning"),
            ],
        )
        service.startService()
        self.assertEqual((self.reactor.tcpClients, self.reactor.getDelayedCalls()), ([], []))
        self.reactor.refuse = OSError(11, "not today")
        with capturedLogs() as events:
            service.tell(REFUSED)
            service.stopService()
        self.assertNotIn("T0KEN", " ".join(formatEvent(event) for event in events))
        self.assertNotIn("T0KEN", repr(service))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_proxy_is_for_https_alone(self) -> None:
        """As the environment says; requests for http would need another form for it."""
        config = load_text(
            "alerts: [{webhook: 'https://hooks.test/'}, {webhook: 'http://hooks.test/'}]", name="f", environ={}
        )
        ways: list[Way] = []

        def noting(*args: Any, **kwargs: Any) -> Way:
            ways.append(way_to(*args, **kwargs))
            return ways[-1]

        self.patch(alerts, "way_to", noting)
        proxy = "http://proxy.test:3128"
        Alerts.from_config(config.alerts, "h", self.reactor, {"https_proxy": proxy, "http_proxy": proxy})
        self.assertEqual([type(way.plain()) for way in ways], [Tunnel, Kept])
        error = self.assertRaises(
            ConfigError, Alerts.from_config, config.alerts, "h", self.reactor, {"https_proxy": "socks5://proxy.test"}
        )
        self.assertIn("alerts[0]", str(error))
