"""When a client comes back: pure, so nothing here waits and nothing is connected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connection.peers import response
from hubbub.connection.refusals import outcome_of_refusal
from hubbub.connection.retry import (
    GIVES_UP_AFTER,
    GIVES_UP_AFTER_WAS_OPEN,
    STABLE_AFTER_S,
    Backoff,
    RetryLimit,
)


class TestRetryLimit:
    def test_a_few_in_a_row_are_enough(self) -> None:
        few, other = outcome_of_refusal(response(404)), outcome_of_refusal(response(503))
        limit = RetryLimit()
        for _ in range(3):
            tries = [limit.allows(few) for _ in range(GIVES_UP_AFTER - 1)]
            assert all(tries)
            assert limit.allows(other)
        assert [limit.allows(few) for _ in range(GIVES_UP_AFTER)][-1] is False

    def test_what_worked_before_is_tried_longer(self) -> None:
        limit = RetryLimit()
        limit.opened()
        tries = [
            limit.allows(outcome_of_refusal(response(404))) for _ in range(GIVES_UP_AFTER_WAS_OPEN)
        ]
        assert tries == [True] * (GIVES_UP_AFTER_WAS_OPEN - 1) + [False]

    def test_a_refusal_for_good_is_the_end_at_once(self) -> None:
        limit = RetryLimit()
        limit.opened()
        assert not limit.allows(outcome_of_refusal(response(401)))


class TestBackoff:
    def test_the_ceiling_doubles_up_to_the_greatest_delay(self) -> None:
        backoff = Backoff(rand=lambda: 1.0)
        assert [backoff.next_delay() for _ in range(8)] == [1, 2, 4, 8, 16, 20, 20, 20]

    def test_no_delay_is_below_the_least(self) -> None:
        backoff = Backoff(rand=lambda: 0.0)
        assert [backoff.next_delay() for _ in range(5)] == [0.5] * 5

    @given(
        least=st.floats(0, 10),
        span=st.floats(0, 100),
        rand=st.floats(0, 1, exclude_max=True),
        times=st.integers(1, 3000),
    )
    def test_every_delay_is_within_the_bounds(
        self, least: float, span: float, rand: float, times: int
    ) -> None:
        backoff = Backoff(least, least + span, rand=lambda: rand)
        backoff.attempts = times - 1
        assert least <= backoff.next_delay() <= least + span

    def test_the_delays_of_many_clients_spread(self) -> None:
        delays = [Backoff().next_delay() for _ in range(200)]
        assert len(set(delays)) == 200
        assert min(delays) < 0.6 < 0.9 < max(delays)

    def test_no_least_delay_still_spreads(self) -> None:
        assert Backoff(0.0, 20.0, rand=lambda: 0.5).next_delay() == 0.5

    def test_s12_a_fixed_delay(self) -> None:
        backoff = Backoff(fixed_delay_s=3.0)
        assert [backoff.next_delay() for _ in range(3)] == [3.0, 3.0, 3.0]

    def test_retry_after_is_a_lower_bound_that_keeps_the_jitter(self) -> None:
        assert Backoff(rand=lambda: 0.0).next_delay(7.0) == 7.5
        assert Backoff(rand=lambda: 1.0).next_delay(7.0) == 8.0
        assert Backoff(fixed_delay_s=3.0).next_delay(7.0) == 10.0

    def test_only_a_connection_that_stayed_open_makes_the_delays_short_again(self) -> None:
        backoff = Backoff(rand=lambda: 1.0)
        backoff.next_delay()
        backoff.next_delay()
        backoff.record_uptime(STABLE_AFTER_S - 0.01)
        assert backoff.next_delay() == 4.0
        backoff.record_uptime(STABLE_AFTER_S)
        assert backoff.next_delay() == 1.0

    @pytest.mark.parametrize(
        ("least", "greatest", "fixed"),
        [(-1.0, 20.0, None), (5.0, 1.0, None), (0.5, float("inf"), None), (0.5, 20.0, -1.0)],
    )
    def test_impossible_delays_are_refused(
        self, least: float, greatest: float, fixed: float | None
    ) -> None:
        with pytest.raises(ValueError, match="seconds"):
            Backoff(least, greatest, fixed)
