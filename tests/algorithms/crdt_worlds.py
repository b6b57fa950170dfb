"""Small worlds of replicas that change, send, lose, double and reorder, beside a book of who knows what.

The book knows nothing of dots and merging: it keeps operations, and which of them each operation had seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atoll.algorithms.crdt import GCounter, LWWRegister, ORMap, ORSet, PNCounter
from atoll.algorithms.hybrid_clock import HybridClock

NAMES = ("a", "b", "c")
ELEMENTS = ("bread", "milk", "salt")


@dataclass(frozen=True)
class Operation:
    """`sees`: what it replaces or removes. `includes`: all that a value written by it contains."""

    id: int
    what: str
    key: str = ""
    amount: Any = 0
    sees: frozenset[int] = frozenset()
    includes: frozenset[tuple[int, int]] = frozenset()


@dataclass
class Replica:
    name: str
    state: Any
    known: dict[int, Operation] = field(default_factory=dict)
    clock: HybridClock = field(default_factory=HybridClock)

    def live(self, key: str) -> list[Operation]:
        """Operations on `key` that nothing known here has replaced or removed."""
        gone = {seen for operation in self.known.values() for seen in operation.sees}
        return [o for o in self.known.values() if o.key == key and o.what == "put" and o.id not in gone]


Act = Callable[[random.Random, Replica, int], tuple[Any, Operation]]


def count_up(dice: random.Random, at: Replica, id: int) -> tuple[Any, Operation]:
    amount = dice.randint(1, 5)
    return at.state.add(at.name, amount), Operation(id, "put", f"{at.name}+", amount)


def count(dice: random.Random, at: Replica, id: int) -> tuple[Any, Operation]:
    amount = dice.randint(-5, 5)
    line = f"{at.name}{'+' if amount > 0 else '-' if amount else '0'}"
    return at.state.add(at.name, amount), Operation(id, "put", line, amount)


def write(dice: random.Random, at: Replica, id: int) -> tuple[Any, Operation]:
    wall_ms = 1000 + dice.randint(0, 3)  # the same stamp at two replicas is nothing rare here
    at.clock.last = max(at.clock.last, at.state.stamp)
    stamp = at.clock.now(wall_ms)
    return at.state.set(id, stamp, at.name), Operation(id, "put", amount=(stamp, at.name))


def shop(dice: random.Random, at: Replica, id: int) -> tuple[Any, Operation]:
    key = dice.choice(ELEMENTS)
    sees = frozenset(operation.id for operation in at.live(key))
    if dice.random() < 0.6:
        return at.state.add(at.name, key), Operation(id, "put", key, sees=sees)
    return at.state.remove(key), Operation(id, "remove", key, sees=sees)


def keep_books(dice: random.Random, at: Replica, id: int) -> tuple[Any, Operation]:
    key = dice.choice(ELEMENTS[:2])
    live = at.live(key)
    sees = frozenset(operation.id for operation in live)
    if dice.random() < 0.3:
        return at.state.remove(key), Operation(id, "remove", key, sees=sees)
    amount = dice.randint(1, 5)
    includes = frozenset({(id, amount)}).union(*(operation.includes for operation in live))
    delta = at.state.update(at.name, key, PNCounter, lambda value, name: value.add(name, amount))
    return delta, Operation(id, "put", key, amount, sees, includes)


def told_by_the_book(kind: type, at: Replica) -> Any:
    """The value that a replica should show, by what it knows."""
    if kind in (GCounter, PNCounter):
        return sum(operation.amount for operation in at.known.values())
    if kind is LWWRegister:
        newest = max(at.known.values(), key=lambda operation: operation.amount, default=None)
        return newest.id if newest else None
    if kind is ORSet:
        return frozenset(key for key in ELEMENTS if at.live(key))
    totals = {}
    for key in ELEMENTS:
        if live := at.live(key):
            totals[key] = sum(amount for _, amount in frozenset().union(*(put.includes for put in live)))
    return totals


def shown(state: Any) -> Any:
    """The value that a replica shows."""
    if isinstance(state, ORMap):
        return {key: state.get(key, PNCounter).value for key in state}
    return state.value


ACTS: dict[type, Act] = {
    GCounter: count_up,
    PNCounter: count,
    LWWRegister: write,
    ORSet: shop,
    ORMap: keep_books,
}


class World:
    """Three replicas of one kind. `step` does one random thing; `states` remembers what was ever reached."""

    def __init__(self, kind: type, seed: int) -> None:
        self.kind, self.dice = kind, random.Random(seed)
        self.replicas = [Replica(name, kind()) for name in NAMES]
        self.letters: list[tuple[Any, dict[int, Operation]]] = []
        self.states: list[Any] = []
        self.changes: list[tuple[Any, Any, Any]] = []
        """Before, delta, after."""

    def step(self, number: int) -> None:
        at = self.dice.choice(self.replicas)
        match self.dice.random():
            case luck if luck < 0.5:
                before = at.state.copy()
                delta, operation = ACTS[self.kind](self.dice, at, number)
                at.known[number] = operation
                self.changes.append((before, delta.copy(), at.state.copy()))
                self.letters.append((delta, self.told_by(operation, at)))
            case luck if luck < 0.6:
                self.letters.append((at.state.copy(), dict(at.known)))
            case _ if self.letters:  # not taken out: it may come again, late, or never
                letter, known = self.dice.choice(self.letters[-12:])
                at.state.merge(letter)
                at.known |= known
        self.states.append(at.state.copy())

    def told_by(self, operation: Operation, at: Replica) -> dict[int, Operation]:
        """What its delta tells; a counter's delta is a whole line, with all that was added to it before."""
        if self.kind in (GCounter, PNCounter):
            return {id: other for id, other in at.known.items() if other.key == operation.key}
        return {operation.id: operation}

    def settle(self) -> None:
        """Everybody hears everybody, in some order, twice."""
        for _ in range(2):
            pairs = [(one, other) for one in self.replicas for other in self.replicas]
            self.dice.shuffle(pairs)
            for one, other in pairs:
                one.state.merge(other.state)
                one.known |= other.known
