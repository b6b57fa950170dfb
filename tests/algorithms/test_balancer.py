"""Least connections: the fewest first, ties in turn, and no endpoint is forgotten or flooded."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from atoll.algorithms.balancer import LeastConnections


def test_equal_lines_are_taken_in_turn() -> None:
    balancer = LeastConnections()
    chosen = []
    for _ in range(6):
        name = balancer.choose("abc")
        assert name is not None
        balancer.started(name)
        balancer.finished(name)
        chosen.append(name)
    assert chosen == list("abcabc")


def test_nobody_left_is_none() -> None:
    assert LeastConnections().choose("ab", without={"a", "b"}) is None
    assert LeastConnections().choose("") is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=200))
def test_the_chosen_one_always_has_the_fewest(steps: list[tuple[bool, int]]) -> None:
    balancer, serving, running = LeastConnections(), Counter("abc"), []
    serving.clear()
    for start, which in steps:
        if start or not running:
            name = balancer.choose("abc")
            assert name is not None and serving[name] == min(serving[n] for n in "abc")
            balancer.started(name)
            serving[name] += 1
            running.append(name)
        else:
            name = running.pop(which % len(running))
            balancer.finished(name)
            serving[name] -= 1
        assert all(balancer.serving(n) == serving[n] for n in "abc")
