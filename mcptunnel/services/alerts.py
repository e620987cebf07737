"""Who is told of what happens to certificates: webhooks and programs, each with a queue of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import define, frozen
from twisted.application.service import Service

from mcptunnel.config.schema import AlertConfig
from mcptunnel.core.alerts import Alert, told
from mcptunnel.core.certificates import Verdict
from mcptunnel.core.verdicts import Change, days
from mcptunnel.services.delivery import Delivery
from mcptunnel.services.notifier import Notifier
from mcptunnel.services.shown import rfc3339, shown_facts
from mcptunnel.services.ways import way_to
from mcptunnel.services.webhook import Webhook, agent_on

__all__ = ["Alerts", "Target", "document", "reload_alert"]


@frozen(kw_only=True)
class Target:
    """Somebody who is told.

    Attributes:
        delivery: The way there.
        least: The least verdict that is told of.
    """

    delivery: Delivery
    least: Verdict


@define(eq=False, slots=False)
class Alerts(Service):
    """Everybody who is told. Nothing waits for them, and nothing is said to them before the start or after the end.

    Attributes:
        host: What this machine is called, for whoever has several.
        targets: In the order of the configuration.
    """

    host: str
    targets: Sequence[Target] = ()

    @classmethod
    def from_config(
        cls, alerts: Sequence[AlertConfig], host: str, reactor: Any, environ: Mapping[str, str] = os.environ
    ) -> Alerts:
        """Those of ``alerts``; nothing is connected or run yet.

        Raises:
            ConfigError: The environment names a proxy that cannot be used.
        """
        return cls(host, [_target(at, entry, reactor, environ) for at, entry in enumerate(alerts)])

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        for target in self.targets:
            target.delivery.start()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        for target in self.targets:
            target.delivery.stop()

    def tell(self, alert: Alert) -> None:
        """Put ``alert`` on its way to everybody whom it concerns. Returns at once."""
        written = document(alert, self.host)
        for target in self.targets:
            if told(alert, target.least):
                target.delivery.put(written)

    def changed(self, change: Change) -> None:
        """Tell of a change of a verdict."""
        self.tell(Alert.of(change))


def reload_alert(trouble: str | None, when: float) -> Alert:
    """That certificates on disk were refused or are not what clients are shown, or that this is over.

    Args:
        trouble: What is wrong, one line for each reason; None when it is right again.
        when: Seconds since the epoch.
    """
    if trouble is None:
        message = "what is on disk is in force again"
        return Alert(event="reload_recovered", verdict="ok", before="critical", message=message, when=when)
    message = f"what is on disk is not what is in force: {'; '.join(trouble.splitlines())}"
    return Alert(event="reload_refused", verdict="critical", before="ok", message=message, when=when)


def document(alert: Alert, host: str) -> bytes:
    """The JSON that targets get. Keys are added in later versions, but none is taken away while ``version`` is 1."""
    facts = alert.facts
    about: dict[str, Any] = (
        dict.fromkeys(("subject", "names", "file", "role", "serial", "fingerprint", "not_after", "days_left"))
        if facts is None
        else {**shown_facts(facts), "days_left": days(facts.remaining(alert.when))}
    )
    return json.dumps(
        {
            "version": 1,
            "event": alert.event,
            "host": host,
            "time": rfc3339(alert.when),
            "verdict": alert.verdict or "gone",
            "before": alert.before,
            **about,
            "message": alert.message,
        },
        ensure_ascii=False,
    ).encode()


def _target(at: int, entry: AlertConfig, reactor: Any, environ: Mapping[str, str]) -> Target:
    name = f"alerts[{at}]"
    if entry.command is not None:
        target, send = f"{name} ({entry.command[0]})", Notifier(entry.command, reactor).send
    else:
        url = entry.webhook or ""
        parts = urlsplit(url)
        # A proxy would want to see requests for http in another form.
        way = way_to(url, reactor, environ, key=name, proxy=None if parts.scheme == "https" else "none")
        # Neither path nor query is shown: with many services they are the secret.
        target = f"{name} ({parts.scheme}://{parts.netloc.rpartition('@')[2]})"
        send = Webhook(url, entry.headers, agent_on(way, reactor), reactor).send
    return Target(delivery=Delivery(target=target, send=send, clock=reactor), least=entry.least)
