"""The clients' side: whether what they were told could have come from one register served in order.

Every answer carries the index of the log at which it was true. So nobody has to guess an order: take the
writes by their index, put each read behind the write of its index, and see that it fits what was read and
that nobody was told something older than what anybody knew when he asked.

Source: as `atoll.verify.revisions`: with the order known, linearizability is one walk over the history.
Departure: the walk is made as answers come, so a history is never kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import inf

from atoll.algorithms.raft.events import Command
from atoll.algorithms.raft.messages import Entry
from atoll.verify.raft.register import LATE, TTL_S, ends, puts

SURE = 0.9
"""The part of a lease that a client counts on: no clock runs faster than 1.1 times the true one."""


class Violation(AssertionError):
    """An invariant does not hold: which, and what was seen."""

    def __init__(self, rule: str, seen: str) -> None:
        super().__init__(f"{rule}: {seen}")
        self.rule = rule


class History:
    """Checks of answers. `newest`: the greatest index that any client has been told."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.newest = 0
        self._now = now
        self._effects: dict[tuple[int, int], int] = {}
        self._values: dict[int, list[int]] = {}
        self._until: dict[int, float] = {}
        self._ended: dict[int, float] = {}

    def took_effect(self, entry: Entry, result: int) -> None:
        """The first member applied a committed command; `result` is the index of its one effect."""
        if entry.client:
            name = (entry.client, entry.sequence)
            if result == entry.index:
                if name in self._effects:
                    self._broken("exactly once", f"{name} has effect at {self._effects[name]} and {result}")
                self._effects[name] = result
            elif result == LATE:
                if name not in self._effects:
                    self._broken("exactly once", f"{name} is called late, and was never done")
            elif self._effects.get(name) != result:
                self._broken("exactly once", f"{name} answers {result}, had {self._effects.get(name)}")
        if (key := puts(entry.data)) is not None:
            if result == entry.index:
                self._values.setdefault(key, []).append(result)
        elif (lease := ends(entry.data)) is not None:
            self._ended.setdefault(lease, self._now())
            self._not_early(lease)

    def wrote(self, floor: int, commands: Sequence[Command], results: Sequence[int]) -> None:
        """A client was told that its commands took effect at these indices."""
        for command, result in zip(commands, results, strict=True):
            found = self._effects.get((command.client, command.sequence))
            if found != result:
                self._broken("a true answer", f"{command} was told {result}, it was {found}")
            if result <= floor:
                self._broken("real time", f"a write took effect at {result}, {floor} was known before it")
        self.newest = max(self.newest, *results)

    def read(self, floor: int, applied: int, keys: Sequence[int], values: Sequence[int]) -> None:
        """A client was shown these values (the index of each one's write), true at `applied`."""
        if applied < floor:
            self._broken("real time", f"a read of {applied}, {floor} was known before it was asked")
        for key, value in zip(keys, values, strict=True):
            writes = self._values.get(key, ())
            place = bisect_right(writes, applied)
            if value != (writes[place - 1] if place else 0):
                self._broken("a true answer", f"read {value} of key {key} at {applied}")
        self.newest = max(self.newest, applied)

    def believed(self, lease: int, sent: float) -> None:
        """A client was told that its lease goes on; it counts from the moment it asked."""
        until = sent + TTL_S * SURE
        if until > self._until.get(lease, 0.0):
            self._until[lease] = until
            self._not_early(lease)

    def _not_early(self, lease: int) -> None:
        ended, until = self._ended.get(lease, inf), self._until.get(lease, 0.0)
        if ended < until:
            self._broken("no lease ends early", f"{lease} ended at {ended:.3f}, promised to {until:.3f}")

    def _broken(self, rule: str, seen: str) -> None:
        raise Violation(rule, seen)
