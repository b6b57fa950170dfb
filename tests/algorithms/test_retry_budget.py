"""Retry budget: retries are at most a share of the first tries, and a reserve."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.algorithms.retry_budget import RetryBudget


@given(st.lists(st.booleans(), max_size=500))
def test_retries_never_pass_the_share_and_the_reserve(steps: list[bool]) -> None:
    budget, tried, retried = RetryBudget(share=0.2, reserve=10), 0, 0
    for retry in steps:
        if retry:
            retried += budget.take()
        else:
            budget.tried()
            tried += 1
        assert retried <= 0.2 * tried + 10


def test_a_quiet_time_saves_only_so_much() -> None:
    budget = RetryBudget(share=0.2, reserve=10, most=5)
    for _ in range(10_000):
        budget.tried()
    assert sum(budget.take() for _ in range(100)) == 15
