"""4.8: merging is commutative, associative, idempotent and only ever adds; and the values are those meant.

States are reached as they are in life: changes and deltas and whole states, lost, doubled and out of order.
The book beside them knows only which operation had seen which. Each broken merge must be caught by a law.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from crdt_worlds import ACTS, World, shown, told_by_the_book

from atoll.algorithms.crdt import (
    Context,
    GCounter,
    Limits,
    LWWRegister,
    ORMap,
    ORSet,
    decode,
    encode,
)
from atoll.algorithms.hybrid_clock import Stamp
from atoll.errors import ConfigurationError, Conflict, FormatRefused, LimitReached

KINDS = list(ACTS)
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
seeds = st.integers(0, 2**32)


def walked(kind: type, seed: int, steps: int = 40) -> World:
    world = World(kind, seed)
    for number in range(steps):
        world.step(number + 1)
    return world


def join(*states: Any) -> Any:
    joined = states[0].copy()
    for state in states[1:]:
        joined.merge(state)
    return joined


def broken_laws(world: World) -> set[str]:
    """The names of the laws that do not hold among the states of a world."""
    found = set()
    for _ in range(30):
        one, other, third = (world.dice.choice(world.states) for _ in range(3))
        if join(one, other) != join(other, one):
            found.add("commutative")
        if join(join(one, other), third) != join(one, join(other, third)):
            found.add("associative")
        if join(one, one) != one or join(one, other, other) != join(one, other):
            found.add("idempotent")
    for before, delta, after in world.changes:
        if join(before, after) != after:
            found.add("monotone")
        if join(before, delta) != after:
            found.add("delta")
    return found


def wrong_values(world: World) -> list[str]:
    """Where a replica does not show what the book says that it should."""
    return [
        f"{at.name} shows {shown(at.state)}, the book says {said}"
        for at in world.replicas
        if shown(at.state) != (said := told_by_the_book(world.kind, at))
    ]


@by_kind
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_merging_keeps_its_laws(kind: type, seed: int) -> None:
    assert broken_laws(walked(kind, seed)) == set()


@by_kind
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_every_replica_shows_what_it_knows_and_at_last_all_show_the_same(kind: type, seed: int) -> None:
    world = World(kind, seed)
    for number in range(40):
        world.step(number + 1)
        assert wrong_values(world) == []
    world.settle()
    assert wrong_values(world) == []
    first, *others = world.replicas
    assert all(other.state == first.state for other in others)


@by_kind
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_what_is_encoded_is_decoded_and_what_is_damaged_is_refused_or_whole(kind: type, seed: int) -> None:
    world = walked(kind, seed, 20)
    for state in world.states:
        assert decode(encode(state)) == state
    data = bytearray(encode(world.states[-1]))
    data[world.dice.randrange(len(data))] ^= 1 << world.dice.randrange(8)
    for bad in (bytes(data), bytes(data[: world.dice.randrange(len(data))])):
        try:
            decode(bad).check()
        except (FormatRefused, LimitReached):
            continue


# -- broken ones, each caught by a law -----------------------------------------------------------------


class Summing(GCounter, tag="g-counter"):
    """Adds the lines up instead of taking the longer."""

    def merge(self, other: GCounter) -> None:
        for replica, count in other.counts.items():
            self.counts[replica] = self.counts.get(replica, 0) + count

    def copy(self) -> Summing:
        return Summing(dict(self.counts))


class Untied(LWWRegister, tag="lww-register"):
    """Of two with one stamp keeps its own."""

    def _rank(self) -> Any:
        return self.wall_ms, self.counter

    def copy(self) -> Untied:
        return Untied(self.wall_ms, self.counter, self.replica, self.packed)


class Contextless(ORSet, tag="or-set"):
    """Keeps every addition of both, whatever was removed."""

    def merge(self, other: ORSet) -> None:
        for element, dots in other.dots.items():
            self.dots[element] = self.dots.get(element, set()) | dots
        self.context.merge(other.context)

    def copy(self) -> Contextless:
        return Contextless(self.context.copy(), {element: set(dots) for element, dots in self.dots.items()})


class Forgetful(ORSet, tag="or-set"):
    """Forgets what it has seen removed: nothing is left of the context but what is in the set."""

    def merge(self, other: ORSet) -> None:
        super().merge(other)
        self.context = Context()
        self.context.add(*(dot for dots in self.dots.values() for dot in dots))

    def copy(self) -> Forgetful:
        return Forgetful(self.context.copy(), {element: set(dots) for element, dots in self.dots.items()})


class OneName(ORMap, tag="or-map"):
    """Counts on under its old name after a removal."""

    def update(self, replica: str, key: str, kind: Any, change: Any) -> ORMap:
        return super().update(replica, key, kind, lambda value, name: change(value, replica))

    def copy(self) -> OneName:
        return OneName(
            self.context.copy(), self.era, {place: dict(held) for place, held in self.entries.items()}
        )


@pytest.mark.parametrize(
    ("broken", "sound", "law"),
    [
        (Summing, GCounter, "idempotent"),
        (Untied, LWWRegister, "commutative"),
        (Contextless, ORSet, "monotone"),
        (Forgetful, ORSet, "associative"),
    ],
)
def test_a_broken_merge_is_caught_by_the_law(broken: type, sound: type, law: str) -> None:
    ACTS[broken] = ACTS[sound]
    try:
        assert any(law in broken_laws(walked(broken, seed)) for seed in range(50))
    finally:
        del ACTS[broken]


def test_a_map_that_counts_on_under_an_old_name_is_caught_by_the_book() -> None:
    def caught(kind: type, seed: int) -> bool:
        world = walked(kind, seed, 60)
        world.kind = ORMap
        return bool(wrong_values(world))

    ACTS[OneName] = ACTS[ORMap]
    try:
        assert any(caught(OneName, seed) for seed in range(300))
        assert not any(caught(ORMap, seed) for seed in range(300))
    finally:
        del ACTS[OneName]


# -- what is refused -----------------------------------------------------------------------------------

FULL = encode(GCounter({"a": 1}))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"hello",
        FULL[:-1],
        FULL + b"\x00",
        msgspec.msgpack.encode((2, GCounter())),
        msgspec.msgpack.encode((1, ["no-such-kind", {}])),
        msgspec.msgpack.encode((1, ["g-counter", {"a": -1}])),
        msgspec.msgpack.encode((1, ["g-counter", {"a": 0}])),
        msgspec.msgpack.encode((1, ["g-counter", {"a": True}])),
        msgspec.msgpack.encode((1, ["lww-register", -1, 0, "a", b"\xc0"])),
        msgspec.msgpack.encode((1, ["lww-register", 1, 0, "a", b"\xc1"])),
        msgspec.msgpack.encode((1, ["or-set", [{}, []], {"milk": [["a", 1]]}])),
        msgspec.msgpack.encode((1, ["or-set", [{"a": 1}, []], {"milk": []}])),
        msgspec.msgpack.encode((1, ["or-set", [{"a": 1}, []], {"milk": [["a", 1]], "salt": [["a", 1]]}])),
        msgspec.msgpack.encode((1, ["or-set", [{"a": 1}, [["a", 2]]], {}])),
        msgspec.msgpack.encode((1, ["or-set", [{}, [["a", 0]]], {}])),
        msgspec.msgpack.encode((1, ["or-map", [{}, []], -1, {}])),
        b"\x92\x01" + b"\x91" * 100_000,
    ],
)
def test_garbage_is_refused_with_what_was_found(garbage: bytes) -> None:
    with pytest.raises(FormatRefused, match="found"):
        decode(garbage)


def test_a_value_under_the_wrong_kind_is_refused() -> None:
    state = ORMap()
    state.update("a", "likes", GCounter, lambda value, name: value.add(name))
    state.entries[("likes", "or-set")] = state.entries.pop(("likes", "g-counter"))
    with pytest.raises(FormatRefused, match="found a g-counter as the or-set"):
        decode(encode(state))


def nested(depth: int) -> ORMap:
    state = ORMap()
    if depth:
        state.update("a", "inner", ORMap, lambda value, name: value.merge(nested(depth - 1)))
    return state


def test_what_is_too_large_is_refused_before_it_is_merged() -> None:
    with pytest.raises(LimitReached, match="at most 5 are read"):
        decode(FULL, Limits(bytes_max=5))
    with pytest.raises(LimitReached, match="name of 2000 characters"):
        decode(encode(GCounter({"a" * 2000: 1})))
    assert decode(encode(nested(7)))
    with pytest.raises(LimitReached, match="deeper than 8"):
        decode(encode(nested(8)))


def test_a_counter_refuses_what_it_cannot_count() -> None:
    with pytest.raises(ConfigurationError, match="take a PN-counter"):
        GCounter().add("a", 0)
    with pytest.raises(LimitReached, match="take a new name"):
        GCounter({"a": 2**63 - 1}).add("a")


def test_a_register_refuses_a_stamp_that_would_lose() -> None:
    register = LWWRegister()
    register.set("new", Stamp(20), "a")
    with pytest.raises(Conflict, match="Let the clock receive"):
        register.set("old", Stamp(20), "b")
    assert register.value == "new"
