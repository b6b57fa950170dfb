"""Phi accrual: the properties of its paper, the meaning of its number, and what a hiccup does to it."""

from __future__ import annotations

import itertools
import math
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.algorithms.failure_detector import PhiAccrual
from atoll.errors import ConfigurationError

GAPS = st.lists(st.floats(0.01, 20, allow_nan=False), min_size=2, max_size=60)


def heard(gaps: list[float], **more: float) -> tuple[PhiAccrual, float]:
    detector, now = PhiAccrual(1.0, 0.0, **more), 0.0  # type: ignore[arg-type]
    for gap in gaps:
        now += gap
        detector.heartbeat(now)
    return detector, now


@settings(deadline=None)
@given(GAPS)
def test_asymptotic_completeness_the_silence_of_a_dead_sender_surpasses_every_threshold(
    gaps: list[float],
) -> None:
    detector, _ = heard(gaps)
    for threshold in (1, 8, 16, 100, 10_000):
        due = detector.due(threshold)
        assert math.isfinite(due)
        assert detector.phi(due + 0.001) >= threshold * 0.999


@settings(deadline=None)
@given(GAPS)
def test_eventual_monotony_phi_never_falls_while_nothing_comes(gaps: list[float]) -> None:
    detector, last = heard(gaps)
    seen = [detector.phi(last + step / 7) for step in range(2000)]
    assert seen == sorted(seen)


@settings(deadline=None)
@given(GAPS)
def test_upper_bound_phi_is_finite_while_heartbeats_come(gaps: list[float]) -> None:
    detector, now = PhiAccrual(1.0, 0.0), 0.0
    for gap in gaps:
        now += gap
        assert math.isfinite(detector.phi(now))
        detector.heartbeat(now)


@settings(deadline=None)
@given(GAPS)
def test_reset_a_heartbeat_brings_phi_back_to_nearly_nothing(gaps: list[float]) -> None:
    detector, last = heard(gaps)
    assert detector.phi(last) < 1


def test_phi_of_one_means_wrong_once_in_ten_times() -> None:
    """Section 4: with threshold phi a living sender is suspected wrongly with chance 10^-phi."""
    dice = random.Random(4)
    detector, now, wrong = PhiAccrual(1.0, 0.0), 0.0, {1.0: 0, 2.0: 0}
    for count in range(21_000):
        gap = max(0.0, dice.gauss(1.0, 0.2))
        for threshold in wrong:
            wrong[threshold] += count >= 1000 and detector.due(threshold) < now + gap
        now += gap
        detector.heartbeat(now)
    assert wrong[1.0] / 20_000 == pytest.approx(0.1, rel=0.15)
    assert wrong[2.0] / 20_000 == pytest.approx(0.01, rel=0.3)


def test_a_higher_threshold_is_reached_later() -> None:
    detector, _ = heard([1.0, 1.1, 0.9, 1.0, 1.2])
    dues = [detector.due(threshold) for threshold in (0.5, 1, 3, 8, 12, 300, 5000)]
    assert dues == sorted(set(dues))
    assert [round(detector.phi(due), 6) for due in dues] == [0.5, 1, 3, 8, 12, 300, 5000]


def test_it_adapts_to_a_network_that_became_slower() -> None:
    detector, now = heard([1.0] * 50, window=20)
    assert detector.phi(now + 3) > 8
    for _ in range(20):
        now += 3.0
        detector.heartbeat(now)
    assert detector.phi(now + 3) < 1


def test_an_irregular_sender_gets_more_patience() -> None:
    dice = random.Random(1)
    calm, when = heard([1.0 + 0.01 * dice.random() for _ in range(200)])
    wild, then = heard([2 * dice.random() for _ in range(200)])
    assert wild.due(8) - then > calm.due(8) - when


def test_only_the_window_counts() -> None:
    detector, _ = heard([9.0] * 30 + [1.0] * 10, window=10)
    assert detector.mean_s == pytest.approx(1.0)


def test_a_perfectly_regular_sender_is_not_suspected_at_its_first_hiccup() -> None:
    """The departure: a floor under the deviation. Without it, phi here would be past every threshold."""
    detector, now = heard([1.0] * 100)
    assert detector.phi(now + 1.2) < 3
    bare, now = heard([1.0] * 100, deviation_min_s=1e-6)
    assert bare.phi(now + 1.2) > 1000


def test_before_the_first_heartbeats_the_promised_interval_counts() -> None:
    detector = PhiAccrual(10.0, 100.0)
    assert detector.phi(105.0) < 0.1
    assert detector.phi(130.0) > 8


def test_the_tail_is_continued_without_a_step() -> None:
    detector, now = heard([1.0] * 10)
    phis = [detector.phi(now + 1 + 3.6 + step / 1000) for step in range(200)]
    assert max(b - a for a, b in itertools.pairwise(phis)) < 0.5


@pytest.mark.parametrize("wrong", [{"interval_s": 0.0}, {"window": 1}, {"deviation_min_s": 0.0}])
def test_what_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        PhiAccrual(**{"interval_s": 1.0, "now": 0.0, **wrong})  # type: ignore[arg-type]


def test_a_clock_that_does_not_move_does_no_harm() -> None:
    detector, now = heard([1.0, 0.0, 0.0, 1.0])
    assert math.isfinite(detector.phi(now)) and detector.mean_s == 0.5


def test_the_example_of_the_page_holds() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "concepts" / "failure_detector.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "failure_detector.md", "exec"), {})
