"""Gossip: rounds to reach all grow with the logarithm, and rumours die as the papers' tables say."""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.algorithms.gossip import Difference, Loss, Style, absorb, difference, digest, monger, spread

COPIES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 5), max_size=8).map(
    lambda versions: {key: (version, f"{key}{version}") for key, version in versions.items()}
)


def rounds(members: int, style: Style, times: int = 12) -> float:
    dice = random.Random(members)
    return mean(spread(members, style, dice).rounds for _ in range(times))


@pytest.mark.parametrize("members", [10, 100, 1000])
def test_push_reaches_all_in_the_rounds_that_theory_says(members: int) -> None:
    theory = math.log2(members) + math.log(members)
    assert rounds(members, Style.PUSH) == pytest.approx(theory, abs=2.5)


@pytest.mark.parametrize("members", [100, 1000, 4000])
def test_push_and_pull_together_need_the_fewest_rounds(members: int) -> None:
    both = rounds(members, Style.PUSH_PULL, 6)
    assert both < rounds(members, Style.PULL, 6) < rounds(members, Style.PUSH, 6)
    assert both == pytest.approx(math.log(members, 3) + math.log(math.log(members)), abs=2.5)


@pytest.mark.parametrize("style", Style)
def test_ten_times_the_members_cost_a_few_rounds_more(style: Style) -> None:
    steps = [rounds(10 * size, style) - rounds(size, style) for size in (10, 100)]
    assert all(0 < step < 9 for step in steps)


def test_pull_is_the_quicker_one_when_few_are_left() -> None:
    """Karp and others: the ignorant shrink by squares where they ask, by a factor where they wait."""
    dice = random.Random(3)

    def last_half(style: Style) -> float:
        told = [spread(2000, style, dice).informed for _ in range(6)]
        return mean(sum(count > 1000 for count in one) for one in told)

    assert last_half(Style.PULL) + 4 < last_half(Style.PUSH)


def test_it_knows_when_it_gives_up() -> None:
    one = spread(1000, Style.PUSH, random.Random(1), rounds_max=3)
    assert one.rounds == 3 and one.informed[-1] < 1000


@pytest.mark.parametrize(
    ("k", "residue", "traffic"), [(1, 0.18, 1.7), (2, 0.037, 3.3), (3, 0.011, 4.5), (4, 0.0036, 5.6)]
)
def test_rumours_die_as_in_table_one_of_demers(k: int, residue: float, traffic: float) -> None:
    check(k, residue, traffic, Style.PUSH, Loss.COUNTER, feedback=True)


@pytest.mark.parametrize(("k", "residue", "traffic"), [(1, 0.96, 0.04), (2, 0.20, 1.6), (3, 0.06, 2.8)])
def test_blind_rumours_die_as_in_table_two_of_demers(k: int, residue: float, traffic: float) -> None:
    check(k, residue, traffic, Style.PUSH, Loss.COIN, feedback=False)


@pytest.mark.parametrize(("k", "residue", "traffic"), [(1, 0.031, 2.7), (2, 0.00058, 4.5)])
def test_rumours_that_are_asked_for_die_as_in_table_three_of_demers(
    k: int, residue: float, traffic: float
) -> None:
    check(k, residue, traffic, Style.PULL, Loss.COUNTER, feedback=True)


def check(k: int, residue: float, traffic: float, style: Style, loss: Loss, *, feedback: bool) -> None:
    """The paper's tables are for 1,000 sites."""
    dice = random.Random(k)
    runs = [monger(1000, k, dice, style=style, loss=loss, feedback=feedback) for _ in range(40)]
    assert mean(run.residue for run in runs) == pytest.approx(residue, rel=0.25, abs=0.0008)
    assert mean(run.traffic for run in runs) == pytest.approx(traffic, rel=0.1, abs=0.02)


def test_the_residue_is_what_the_traffic_left() -> None:
    """Demers, section 1.4: s = e^-m, whoever tires when, where tellings go to members by chance."""
    dice = random.Random(9)
    for k in (1, 2, 3):
        runs = [monger(1000, k, dice) for _ in range(20)]
        assert mean(r.residue for r in runs) == pytest.approx(
            math.exp(-mean(r.traffic for r in runs)), rel=0.25
        )


@settings(deadline=None)
@given(COPIES, COPIES)
def test_after_push_and_pull_both_copies_are_the_same(first: dict, second: dict) -> None:  # type: ignore[type-arg]
    lacks = difference(digest(first), digest(second))
    told = absorb(first, {key: second[key] for key in lacks.to_first})
    assert told == absorb(second, {key: first[key] for key in lacks.to_second})
    assert difference(digest(told), digest(told)) == Difference((), ())


@settings(deadline=None)
@given(COPIES, COPIES)
def test_only_what_is_lacking_is_carried(first: dict, second: dict) -> None:  # type: ignore[type-arg]
    lacks = difference(digest(first), digest(second))
    for key in lacks.to_first:
        assert key not in first or first[key][0] < second[key][0]
    assert not set(lacks.to_first) & set(lacks.to_second)


@settings(deadline=None)
@given(COPIES, COPIES, COPIES)
def test_the_order_of_comparing_does_not_matter(a: dict, b: dict, c: dict) -> None:  # type: ignore[type-arg]
    assert absorb(absorb(a, b), c) == absorb(a, absorb(b, c)) == absorb(absorb(a, c), b)
    assert absorb(a, a) == a


def test_push_alone_carries_nothing_back() -> None:
    first, second = {"a": 1}, {"a": 2, "b": 1}
    assert difference(first, second, Style.PUSH) == Difference((), ())
    assert difference(first, second, Style.PULL) == Difference(("a", "b"), ())


def test_a_rumour_that_nobody_repeats_is_caught() -> None:
    """Negative control: with a coin that always falls, the table above is not met."""
    run = monger(1000, 1, random.Random(1), loss=Loss.COIN, feedback=False)
    assert run.residue > 0.9


@pytest.mark.parametrize("members", [10, 100, 1000, 10_000])
def test_the_page_shows_the_rounds_that_are_measured(members: int) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "concepts" / "gossip.md").read_text()
    means = []
    for style in Style:
        dice = random.Random(members)
        means.append(mean(spread(members, style, dice).rounds for _ in range(10)))
    assert f"| {members:,} | {means[0]:.1f} | {means[1]:.1f} | {means[2]:.1f} |" in page
