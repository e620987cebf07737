"""Tests for mcptunnel.core.hsts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.hsts import RampState, hsts

DAY = 86_400.0
STEPS = (300, 86_400)
WHOLE = 63_072_000


class ValueTests(SynchronousTestCase):
    """The header's value."""

    def test_each_part_is_there_when_it_was_asked_for(self) -> None:
        """In the order of RFC 6797's examples."""
        self.assertEqual(hsts(300), "max-age=300")
        self.assertEqual(hsts(0), "max-age=0")
        self.assertEqual(hsts(1, include_subdomains=True), "max-age=1; includeSubDomains")
        self.assertEqual(hsts(1, include_subdomains=True, preload=True), "max-age=1; includeSubDomains; preload")


class RampTests(SynchronousTestCase):
    """The promise and the certificates."""

    def renewed(self, state: RampState, number: int, now: float | None = None, life: float = 10 * DAY) -> RampState:
        """Certificate ``number``, which begins its life on that day; put in service then unless told otherwise."""
        return state.renewed(f"{number:02x}", number * DAY, number * DAY + life, number * DAY if now is None else now)

    def test_it_grows_with_each_renewal_in_time_and_no_further_than_the_whole(self) -> None:
        """The first certificate is no renewal."""
        state, ages = RampState(), []
        for number in range(1, 6):
            state = self.renewed(state, number)
            ages.append(state.max_age(STEPS, WHOLE))
        self.assertEqual(ages, [300, 86_400, WHOLE, WHOLE, WHOLE])
        self.assertEqual([one.fingerprint for one in state.renewals], ["01", "02", "03", "04", "05"])

    def test_the_certificate_in_service_read_again_changes_nothing(self) -> None:
        """As at each reload, and at each start with a file."""
        state = self.renewed(RampState(), 1)
        self.assertIs(self.renewed(state, 1, now=5 * DAY), state)

    def test_an_older_one_that_comes_back_does_not_count_and_nor_does_its_way_back(self) -> None:
        """A ramp cannot be climbed by changing to and fro."""
        state = self.renewed(self.renewed(RampState(), 1), 2)
        for number in (1, 2, 1, 2):
            state = self.renewed(state, number, now=3 * DAY)
            self.assertEqual((state.step, state.fingerprint), (1, f"{number:02x}"))
        self.assertEqual(len(state.renewals), 2)

    def test_a_renewal_that_comes_too_late_begins_anew(self) -> None:
        """At the very second of expiry; clients have been locked out."""
        state = self.renewed(self.renewed(RampState(), 1), 2)
        self.assertEqual(self.renewed(state, 3, now=12 * DAY - 1).step, 2)
        late = self.renewed(state, 3, now=12 * DAY)
        self.assertEqual((late.step, late.renewals[-1].in_time), (0, False))
        self.assertEqual(self.renewed(late, 4, now=12 * DAY + 1).step, 1)

    def test_what_is_in_service_must_not_have_expired_even_if_a_better_one_was_there(self) -> None:
        """Put back to the old one, and left there until its end."""
        state = self.renewed(self.renewed(RampState(), 1), 2)
        state = self.renewed(state, 1, now=3 * DAY)
        self.assertEqual(self.renewed(state, 5, now=11 * DAY).step, 0)

    def test_what_is_remembered_is_bounded(self) -> None:
        """The newest stay; the count goes on."""
        state = RampState()
        for number in range(1, 101):
            state = self.renewed(state, number)
        self.assertEqual((state.step, len(state.renewals), state.renewals[-1].fingerprint), (99, 32, "64"))

    @given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 30)), max_size=30))
    def test_a_step_is_never_more_than_the_certificates_that_were_newer_than_all_before(
        self, swaps: list[tuple[int, float]]
    ) -> None:
        """Whatever is put in service, and when."""
        state, newest, newer = RampState(), 0, 0
        for number, day in swaps:
            if number > newest:
                newest, newer = number, newer + 1
            state = self.renewed(state, number, now=day * DAY)
            self.assertLess(state.step, max(newer, 1))
