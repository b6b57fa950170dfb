"""4.7: logical clocks order what can have been known, and claim no more than that.

The property test lets replicas write and read each other's letters at random, beside a book of what each of
them truly knows. The negative controls break the clocks in the ways the literature warns of.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms.logical_clock import COUNT_MAX, LamportClock, LamportStamp, Order, VectorClock
from atoll.errors import ConfigurationError, LimitReached

STORIES = sorted((Path(__file__).parent / "testdata" / "logical_clock").glob("*.txt"))
NAMES = ("a", "b", "c", "d")


class Table:
    """Letters by name, each with a vector clock, and a Lamport clock for each replica."""

    def __init__(self) -> None:
        self.letters: dict[str, VectorClock] = {}
        self.clocks: dict[str, LamportClock] = {}

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case [replica, "writes", letter]:
                return self.keep(letter, VectorClock().tick(replica))
            case [replica, "writes", letter, "having-read", *read]:
                known = VectorClock()
                for name in read:
                    known = known.merge(self.letters[name])
                return self.keep(letter, known.tick(replica))
            case ["compare", one, other]:
                return [self.letters[one].compare(self.letters[other]).value]
            case ["prune", letter, "to", most]:
                return self.keep(letter, self.letters[letter].prune(int(most)))
            case ["lamport", replica, "ticks"]:
                return [shown(self.clock(replica).tick())]
            case ["lamport", replica, "receives", time]:
                return [shown(self.clock(replica).receive(int(time)))]
        raise AssertionError(f"no such command: {words}")

    def keep(self, letter: str, clock: VectorClock) -> list[str]:
        self.letters[letter] = clock
        counts = " ".join(f"{name}:{count}" for name, count in sorted(clock.counts.items()))
        return [f"{counts}{' pruned' * bool(clock.forgotten)}"]

    def clock(self, replica: str) -> LamportClock:
        return self.clocks.setdefault(replica, LamportClock(replica))


def shown(stamp: LamportStamp) -> str:
    return f"{stamp.time} of {stamp.replica}"


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


Version = tuple[VectorClock, frozenset[int]]


def walk(seed: int, prune: Callable[[VectorClock, str], VectorClock]) -> list[Version]:
    """Versions of one thing: each written on top of what its replica holds, and what it truly knows."""
    dice = random.Random(seed)
    held: dict[str, Version] = {n: (VectorClock(), frozenset()) for n in NAMES}
    versions = []
    for event in range(30):
        name, other = dice.sample(NAMES, 2)
        clock, known = held[name]
        if dice.random() < 0.5:
            clock, known = clock.merge(held[other][0]), known | held[other][1]
        else:
            clock, known = clock.tick(name), known | {event}
            versions.append((clock, known))
        held[name] = (prune(clock, name), known)
        versions.append((held[name][0], known))
    return versions


def false_claims(versions: list[Version]) -> list[str]:
    """Where a clock says "not newer" of one that knows something the other does not."""
    found = []
    for one, knows in versions:
        for other, known in versions:
            order = one.compare(other)
            if order in (Order.BEFORE, Order.EQUAL) and not knows <= known:
                found.append(f"{one} {order.value} {other}")
            if order in (Order.AFTER, Order.EQUAL) and not known <= knows:
                found.append(f"{one} {order.value} {other}")
    return found


def missed_orders(versions: list[Version]) -> int:
    return sum(
        one.compare(other) is Order.CONCURRENT and (knows <= known or known <= knows)
        for one, knows in versions
        for other, known in versions
    )


@given(st.integers(0, 2**32))
def test_vector_clocks_say_exactly_who_knew_what(seed: int) -> None:
    versions = walk(seed, lambda clock, name: clock)
    assert false_claims(versions) == []
    assert missed_orders(versions) == 0


@given(st.integers(0, 2**32), st.integers(1, 3), st.booleans())
def test_pruned_clocks_may_miss_an_order_but_never_claim_a_false_one(seed: int, most: int, own: bool) -> None:
    assert false_claims(walk(seed, lambda clock, name: clock.prune(most, keep=name if own else ""))) == []


def test_pruning_that_says_nothing_of_it_is_caught() -> None:
    def silently(clock: VectorClock, name: str) -> VectorClock:
        return VectorClock(clock.prune(2, keep=name).counts)

    assert any(false_claims(walk(seed, silently)) for seed in range(20))


def test_counting_anew_after_pruning_is_caught() -> None:
    second_of_a = VectorClock({"a": 2})
    long = second_of_a.merge(VectorClock({"a": 4, "b": 9}))
    with_floor = long.prune(1)
    without = VectorClock(with_floor.counts, 0, with_floor.forgotten)
    assert without.tick("a").compare(without.merge(second_of_a)) is Order.BEFORE  # and a write is lost
    assert with_floor.tick("a").compare(with_floor.merge(second_of_a)) is Order.AFTER


def test_clocks_pruned_alike_go_on_telling_orders() -> None:
    long = VectorClock({f"r{n}": n + 1 for n in range(20)})
    kept = long.prune(5)
    assert len(kept.counts) == 5
    assert kept.compare(long.prune(5)) is Order.EQUAL
    assert kept.compare(kept.tick("r19")) is Order.BEFORE
    assert kept.tick("new")["new"] > 15  # above all that was forgotten
    assert kept.compare(kept.tick("r3")) is Order.BEFORE
    assert long.compare(kept) is Order.CONCURRENT  # the price


def test_a_pruned_clock_that_covers_a_small_one_still_follows_it() -> None:
    small = VectorClock({"x": 3})
    assert VectorClock({"x": 5, "y": 1, "z": 7}).prune(2).compare(small) is Order.AFTER


clocks = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4)).map(VectorClock)


@given(clocks, clocks, clocks)
def test_merging_is_the_least_upper_bound(one: VectorClock, other: VectorClock, third: VectorClock) -> None:
    merged = one.merge(other)
    assert merged == other.merge(one)
    assert one.merge(one) == one
    assert merged.merge(third) == one.merge(other.merge(third))
    assert one.compare(merged) in (Order.BEFORE, Order.EQUAL)


@given(st.integers(0, 2**32))
def test_a_cause_always_has_the_smaller_lamport_stamp(seed: int) -> None:
    dice = random.Random(seed)
    held = {name: LamportClock(name) for name in NAMES}
    knows: dict[str, frozenset[LamportStamp]] = {name: frozenset() for name in NAMES}
    for _ in range(40):
        name, other = dice.sample(NAMES, 2)
        if dice.random() < 0.5:
            stamp = held[name].tick()
        else:
            sent = held[other].tick()
            knows[other] |= {sent}
            stamp = held[name].receive(sent.time)
            knows[name] |= knows[other]
        assert all(known < stamp for known in knows[name])
        knows[name] |= {stamp}
    everything = [stamp for name in NAMES for stamp in knows[name] if stamp.replica == name]
    assert len(set(everything)) == len(everything)


def test_numbers_out_of_bounds_are_refused_and_move_nothing() -> None:
    clock = LamportClock("a", 7)
    for time in (-1, COUNT_MAX, 2**70):
        with pytest.raises(LimitReached, match="was not moved"):
            clock.receive(time)
    assert clock.time == 7
    with pytest.raises(LimitReached, match="take a new name"):
        VectorClock({"a": COUNT_MAX}).tick("a")
    for counts in ({"a": 0}, {"a": -1}, {"a": COUNT_MAX + 1}):
        with pytest.raises(ConfigurationError, match="expected 1 to"):
            VectorClock(counts)
    with pytest.raises(ConfigurationError, match="at least 1"):
        VectorClock({"a": 1}).prune(0)
