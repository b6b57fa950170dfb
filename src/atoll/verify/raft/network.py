"""The network between members and clients: letters that are late, lost, doubled, or cut off one way.

A village post with a careless boy. What makes it hard is not that letters vanish, but that an answer may
vanish while the question arrived, and that a letter of last week may arrive today.

A cut is a set of directed pairs, so that one-way cuts, rings and islands are the same thing. A letter that
is under way when its way is cut is lost too, as on a connection that breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log as _log
from random import Random
from typing import Any


@dataclass(slots=True, kw_only=True)
class Weather:
    """Probabilities for each letter; times in seconds. `slow`: a letter takes `slow_s` on top."""

    least_s: float = 0.0003
    mean_s: float = 0.001
    lost: float = 0.0
    doubled: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.3

    def clear(self) -> None:
        """No more trouble; letters still take their time."""
        self.lost = self.doubled = self.slow = 0.0


class Network:
    """Carries letters between names. `bitten(fault, name)` is told of each that was really hurt."""

    def __init__(
        self,
        dice: Random,
        at: Callable[..., None],
        now: Callable[[], float],
        bitten: Callable[[str, str], None],
    ) -> None:
        self.weather = Weather()
        self.cuts: dict[tuple[str, str], str] = {}
        """(from, to) -> the name of the fault that cut it."""
        self._dice, self._at, self._now, self._bitten = dice, at, now, bitten
        self._newest: dict[tuple[str, str], float] = {}

    def send(self, sender: str, to: str, hand: Callable[..., None], *letter: Any) -> None:
        """`hand(*letter)` is called when it arrives at `to`, if it does."""
        weather, dice = self.weather, self._dice
        chance = dice.random()
        if chance < weather.lost:
            self._bitten("loss", to)
            return
        delay = weather.least_s - (weather.mean_s - weather.least_s) * _log(1.0 - dice.random())
        if weather.slow and dice.random() < weather.slow:
            delay += dice.random() * weather.slow_s
            self._bitten("delay", to)
        self._carry(delay, sender, to, hand, letter)
        if chance > 1.0 - weather.doubled:
            self._bitten("duplication", to)
            later = 2.0 if dice.random() < 0.2 else 0.1
            self._carry(delay + dice.random() * later, sender, to, hand, letter)

    def _carry(
        self, delay: float, sender: str, to: str, hand: Callable[..., None], letter: tuple[Any, ...]
    ) -> None:
        due = self._now() + delay
        way = (sender, to)
        if due < self._newest.get(way, 0.0):
            self._bitten("reordering", to)
        else:
            self._newest[way] = due
        self._at(due, self._arrive, sender, to, hand, letter)

    def _arrive(self, sender: str, to: str, hand: Callable[..., None], letter: tuple[Any, ...]) -> None:
        if self.cuts and (fault := self.cuts.get((sender, to))) is not None:
            self._bitten(fault, to)
            return
        hand(*letter)

    # -- cuts ----------------------------------------------------------------------------------------

    def cut(self, fault: str, pairs: Iterable[tuple[str, str]]) -> None:
        """Letters from the first to the second of each pair are lost until `heal`."""
        for pair in pairs:
            self.cuts[pair] = fault

    def heal(self, fault: str | None = None) -> None:
        """End one fault's cuts, or all of them."""
        self.cuts = {} if fault is None else {p: f for p, f in self.cuts.items() if f != fault}


def split(left: Iterable[str], right: Iterable[str]) -> list[tuple[str, str]]:
    """Nothing passes between the two sides, in either direction."""
    right = list(right)
    return [pair for a in left for b in right for pair in ((a, b), (b, a))]


def one_way(left: Iterable[str], right: Iterable[str]) -> list[tuple[str, str]]:
    """What the left says does not reach the right; the right is still heard."""
    right = list(right)
    return [(a, b) for a in left for b in right]


def ring(names: list[str]) -> list[tuple[str, str]]:
    """Each member reaches only its two neighbours: everybody sees a majority, no two see the same one."""
    size = len(names)
    near = {(i, (i + step) % size) for i in range(size) for step in (-1, 0, 1)}
    return [(names[i], names[j]) for i in range(size) for j in range(size) if (i, j) not in near]
