"""Between the envelopes of the eras."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.envelope import with_visit


class VisitTests(SynchronousTestCase):
    """Questions of servers of 2026-07-28 that lead a legacy client to a page."""

    def test_a_visit_gets_the_name_that_older_clients_demand(self) -> None:
        """Everything else keeps its bytes."""
        params = b'{"mode": "url","url":"https://example.com/","message":"caf\\u00e9", "x": 1.0}'
        self.assertEqual(
            with_visit(params, b'"7"'),
            b'{"mode":"url","url":"https://example.com/","message":"caf\\u00e9","x":1.0,"elicitationId":"7"}',
        )

    def test_what_is_no_visit_or_has_a_name_stays(self) -> None:
        """Forms, other questions, what cannot be read."""
        for params in (
            b'{"mode":"form","message":"m","requestedSchema":{}}',
            b'{"message":"m"}',
            b'{"mode":"url","elicitationId":"theirs"}',
            b'{"messages":[]}',
            b"[]",
        ):
            self.assertEqual(with_visit(params, b'"7"'), params)
