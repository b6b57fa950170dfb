"""Gossip: rumours that spread by calls at random, and how two copies find out what they lack.

A rumour in a town where everybody phones somebody every hour. Those who know tell (push), those who call ask
(pull), or both. Few know it for a while, then suddenly almost all do, and the last ones learn it fastest
where the ones who do not know ask. Beneath rumours, which may die too early, lies the slow comparing of
whole copies, which never does.

Source: Demers and others, Epidemic Algorithms for Replicated Database Maintenance (1987), sections 1.3 and
1.4. Karp, Schindelhauer, Shenker and Voecking, Randomized Rumor Spreading (2000), the random phone call
model.
Departure: a round is a barrier, as in both papers' analyses; time, loss and slow members are `swim`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar


class Dice(Protocol):
    """Chance, handed in: `random.Random` is one."""

    def random(self) -> float: ...


class Style(Enum):
    """Who tells whom in a call."""

    PUSH = "push"
    PULL = "pull"
    PUSH_PULL = "push-pull"


# -- a rumour that is told for ever: how many rounds to reach all ----------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """One rumour's way through a group."""

    informed: tuple[int, ...]
    """How many knew it before the first round, and after each."""
    transmissions: int
    """How often it was told, also to those who knew it."""

    @property
    def rounds(self) -> int:
        """Until all knew it, or nobody went on."""
        return len(self.informed) - 1


def spread(members: int, style: Style, dice: Dice, *, rounds_max: int = 1000) -> Spread:
    """One member knows a rumour; in each round every member calls another by chance, until all know it."""
    knows = bytearray(members)
    knows[0] = 1
    informed, told = [1], 0
    while informed[-1] < members and len(informed) <= rounds_max:
        before = bytes(knows)
        for caller in range(members):
            if style is Style.PUSH and not before[caller]:
                continue
            called = _other(caller, members, dice)
            if before[caller] and style is not Style.PULL:
                knows[called] = 1
                told += 1
            if before[called] and style is not Style.PUSH:
                knows[caller] = 1
                told += 1
        informed.append(sum(knows))
    return Spread(tuple(informed), told)


def _other(one: int, members: int, dice: Dice) -> int:
    other = int(dice.random() * (members - 1))
    return other + (other >= one)


# -- a rumour that people tire of: how many never hear it ------------------------------------------------


class Loss(Enum):
    """When one who tells a rumour tires of it."""

    COUNTER = "counter"
    """After `k` tellings that count."""
    COIN = "coin"
    """With chance 1/k at each telling that counts."""


@dataclass(frozen=True, slots=True)
class Mongering:
    """What is left when nobody tells it any more."""

    residue: float
    """The share of members who never heard it."""
    traffic: float
    """Tellings for each member."""
    rounds: int


def monger(
    members: int,
    k: int,
    dice: Dice,
    *,
    style: Style = Style.PUSH,
    loss: Loss = Loss.COUNTER,
    feedback: bool = True,
) -> Mongering:
    """Rumour mongering until nobody is infective. `feedback`: only a telling to one who knew counts.

    Push: each infective member tells one other in each round. Pull: each member asks one other. A round in
    which a teller told nobody anything new counts once; one in which it did sets its counter back.
    """
    state = bytearray(members)  # 0 susceptible, 1 infective, 2 removed
    counters = [0] * members
    state[0] = 1
    infective, told, rounds = [0], 0, 0
    while infective:
        rounds += 1
        useful, useless, calls = _told_in_a_round(state, infective, style, dice)
        told += calls
        for teller in infective:
            if teller not in useless and teller not in useful:
                continue
            counts = not feedback or (teller in useless and teller not in useful)
            if teller in useful and feedback:
                counters[teller] = 0
            if counts:
                counters[teller] += 1
                if counters[teller] >= k if loss is Loss.COUNTER else dice.random() * k < 1:
                    state[teller] = 2
        for newcomer in (one for ones in useful.values() for one in ones):
            state[newcomer] = 1
        infective = [one for one in range(members) if state[one] == 1]
    return Mongering(state.count(0) / members, told / members, rounds)


def _told_in_a_round(
    state: bytearray, infective: list[int], style: Style, dice: Dice
) -> tuple[dict[int, list[int]], set[int], int]:
    """Who told whom for the first time, who told somebody who knew, and how many tellings."""
    members = len(state)
    useful: dict[int, list[int]] = {}
    useless: set[int] = set()
    calls = 0
    callers = infective if style is Style.PUSH else range(members)
    for caller in callers:
        called = _other(caller, members, dice)
        for teller, hearer in ((caller, called), (called, caller)):
            if state[teller] != 1 or style is (Style.PULL if teller == caller else Style.PUSH):
                continue
            calls += 1
            if state[hearer] == 0:
                useful.setdefault(teller, []).append(hearer)
            else:
                useless.add(teller)
    return useful, useless, calls


# -- anti-entropy: what two copies lack of each other ----------------------------------------------------

Value = TypeVar("Value")
Copy = Mapping[str, tuple[int, Value]]
"""Of each key: a version that only rises, and a value. Equal versions are the same value."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The keys to be carried each way."""

    to_first: tuple[str, ...]
    to_second: tuple[str, ...]


def difference(
    first: Mapping[str, int], second: Mapping[str, int], style: Style = Style.PUSH_PULL
) -> Difference:
    """What `first`, the caller, and `second` lack, from the versions of their keys alone."""
    to_second = [key for key, version in first.items() if second.get(key, -1) < version]
    to_first = [key for key, version in second.items() if first.get(key, -1) < version]
    return Difference(
        tuple(sorted(to_first)) if style is not Style.PUSH else (),
        tuple(sorted(to_second)) if style is not Style.PULL else (),
    )


def digest(copy: Copy[Value]) -> dict[str, int]:
    """The versions of all keys: what one side sends first."""
    return {key: version for key, (version, _) in copy.items()}


def absorb(copy: Copy[Value], brought: Copy[Value]) -> dict[str, tuple[int, Value]]:
    """The copy with whatever is newer in what was brought."""
    merged = dict(copy)
    for key, (version, value) in brought.items():
        if key not in merged or merged[key][0] < version:
            merged[key] = (version, value)
    return merged
