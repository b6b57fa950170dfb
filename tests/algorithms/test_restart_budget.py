"""Restart budget: waits double, a calm life forgives, too many in a window end it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.algorithms.restart_budget import RestartBudget, RestartLimits


def test_waits_double_up_to_the_longest_and_a_calm_life_starts_afresh() -> None:
    limits = RestartLimits(most=100, within_s=1e9, first_s=0.1, longest_s=1.0, calm_s=10)
    budget = RestartBudget(limits)
    waits = [budget.ended(now, 0.0) for now in range(6)]
    assert [round(wait or 0, 3) for wait in waits] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert budget.ended(10, 10.0) == 0.1


def test_too_many_within_the_window_is_none_and_later_it_may_again() -> None:
    budget = RestartBudget(RestartLimits(most=2, within_s=60))
    assert [budget.ended(at, 0) is None for at in (0, 1, 2)] == [False, False, True]
    assert budget.left(2) == 0 and budget.left(60.5) == 1
    assert budget.ended(61, 0) is not None
    budget.forgive()
    assert budget.left(61) == 2


def test_a_budget_of_none_gives_up_at_once() -> None:
    assert RestartBudget(RestartLimits(most=0)).ended(0, 1e6) is None


@given(st.lists(st.floats(0, 30), max_size=100), st.integers(0, 5))
def test_no_window_ever_holds_more_restarts_than_allowed(gaps: list[float], most: int) -> None:
    budget, now, granted = RestartBudget(RestartLimits(most=most, within_s=60)), 0.0, []
    for gap in gaps:
        now += gap
        if budget.ended(now, gap) is not None:
            granted.append(now)
        assert sum(now - at < 60 for at in granted) <= most
