"""4.7: hybrid time stamps rise at every replica and with every message, and stay near the wall clock.

The property test moves every machine's wall clock about, backwards too. The negative controls are the wall
clock alone and a clock that believes everybody.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms.hybrid_clock import COUNTER_MAX, WALL_MAX_MS, ZERO, HybridClock, Stamp, unpack
from atoll.errors import ConfigurationError, FormatRefused, LimitReached

STORIES = sorted((Path(__file__).parent / "testdata" / "hybrid_clock").glob("*.txt"))


class Table:
    """Replicas with a hybrid clock each; every command says what its wall clock shows."""

    def __init__(self) -> None:
        self.clocks: dict[str, HybridClock] = {}
        self.stamps: dict[str, Stamp] = {}

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case [replica, "writes", letter, "at", wall]:
                return self.keep(letter, self.clock(replica).now(int(wall)))
            case [replica, "reads", letter, "at", wall]:
                try:
                    stamp = self.clock(replica).receive(self.stamps[letter], int(wall))
                except LimitReached as error:
                    return [f"refused: {str(error).partition(';')[0]}"]
                return [f"{stamp.wall_ms}.{stamp.counter}"]
            case [replica, "restarts"]:
                self.clocks[replica] = HybridClock(last=self.clocks[replica].last)
                return []
        raise AssertionError(f"no such command: {words}")

    def keep(self, letter: str, stamp: Stamp) -> list[str]:
        self.stamps[letter] = stamp
        return [f"{stamp.wall_ms}.{stamp.counter}"]

    def clock(self, replica: str) -> HybridClock:
        return self.clocks.setdefault(replica, HybridClock())


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


class Wall(HybridClock):
    """What people write who have not read the paper."""

    def _move(self, wall_ms: int, newest: Stamp) -> Stamp:
        return Stamp(wall_ms)


def contradictions(kind: type[HybridClock], seed: int, drift_ms: int = 100) -> list[str]:
    """Where a stamp is not greater than all that its replica knew, or runs further ahead than any clock."""
    dice = random.Random(seed)
    clocks = [kind(drift_max_ms=2 * drift_ms) for _ in range(3)]
    newest = [ZERO] * 3
    offset_ms = [0] * 3
    true_ms, found = 1_000_000, []
    for _ in range(200):
        true_ms += dice.choice((0, 0, 1, 20))
        who, other = dice.sample(range(3), 2)
        if dice.random() < 0.1:
            offset_ms[who] = dice.randint(-drift_ms, drift_ms)
        wall_ms = true_ms + offset_ms[who]
        if dice.random() < 0.5:
            stamp = clocks[who].now(wall_ms)
        else:
            newest[who] = max(newest[who], newest[other])
            stamp = clocks[who].receive(newest[other], wall_ms)
        if stamp <= newest[who]:
            found.append(f"{stamp} follows {newest[who]}")
        if stamp.wall_ms > true_ms + drift_ms:
            found.append(f"{stamp} at {true_ms}")
        newest[who] = stamp
    return found


@given(st.integers(0, 2**32))
def test_stamps_rise_with_what_is_known_and_keep_near_the_wall_clock(seed: int) -> None:
    assert contradictions(HybridClock, seed) == []


def test_the_wall_clock_alone_is_caught() -> None:
    assert contradictions(Wall, 1)


def test_a_stamp_from_far_ahead_is_refused_and_moves_nothing() -> None:
    clock = HybridClock(drift_max_ms=500)
    before = clock.now(10_000)
    with pytest.raises(LimitReached, match="501 ms ahead"):
        clock.receive(Stamp(10_501), 10_000)
    assert clock.last == before
    assert clock.receive(Stamp(10_500), 10_000) == Stamp(10_500, 1)
    assert clock.ahead_ms(10_000) == 500


def test_one_fast_clock_cannot_carry_the_others_away() -> None:
    """Negative control: who believes everybody is an hour ahead."""
    fast = HybridClock().now(3_600_000)
    believer = HybridClock(drift_max_ms=10**9)
    believer.receive(fast, 0)
    assert believer.ahead_ms(0) == 3_600_000
    careful = HybridClock()
    with pytest.raises(LimitReached):
        careful.receive(fast, 0)
    assert careful.ahead_ms(0) == 0


def test_a_full_counter_borrows_the_next_millisecond() -> None:
    clock = HybridClock(last=Stamp(5, COUNTER_MAX))
    assert clock.now(5) == Stamp(6, 0)
    assert clock.now(5) == Stamp(6, 1)
    with pytest.raises(LimitReached, match="expected Unix milliseconds"):
        HybridClock(last=Stamp(WALL_MAX_MS, COUNTER_MAX)).now(5)


stamps = st.builds(Stamp, st.integers(0, WALL_MAX_MS), st.integers(0, COUNTER_MAX))


@given(stamps, stamps)
def test_packed_stamps_compare_as_they_do_unpacked(one: Stamp, other: Stamp) -> None:
    assert unpack(one.pack()) == unpack(one.to_bytes()) == one
    assert (one < other) == (one.pack() < other.pack()) == (one.to_bytes() < other.to_bytes())
    assert one.pack() < 2**64


@pytest.mark.parametrize("garbage", [-1, 2**64, b"", b"1234567", b"123456789"])
def test_garbage_is_no_stamp(garbage: int | bytes) -> None:
    with pytest.raises(FormatRefused, match="hybrid time stamp"):
        unpack(garbage)


def test_times_that_no_clock_shows_are_refused() -> None:
    for wall_ms in (-1, WALL_MAX_MS + 1):
        with pytest.raises(LimitReached, match="expected Unix milliseconds"):
            HybridClock().now(wall_ms)
        with pytest.raises(LimitReached, match="expected Unix milliseconds"):
            HybridClock().receive(ZERO, wall_ms)
    with pytest.raises(ConfigurationError, match="drift_max_ms=-1"):
        HybridClock(drift_max_ms=-1)
