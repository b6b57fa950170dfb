"""Backoff grows with each failure, never past its ceiling, and never below its floor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.algorithms.backoff import full_jitter


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_it_stays_between_floor_and_ceiling(attempt: int, chance: float) -> None:
    assert 0.01 <= full_jitter(attempt, chance, first_s=0.1, ceiling_s=5, floor_s=0.01) <= 5


def test_its_range_doubles_until_the_ceiling() -> None:
    widest = [full_jitter(n, 1.0, first_s=1, ceiling_s=10) for n in range(1, 7)]
    assert widest == [1, 2, 4, 8, 10, 10]
