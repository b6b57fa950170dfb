"""Logical clocks: what can have been known when something was done, without asking a clock on the wall.

Letters that quote letters. A number on each, greater than that of every letter read before, puts them into
one line that never contradicts who answered whom (Lamport). One number for each writer tells more: whether
two letters answer each other at all, or were written without knowledge of one another (vector clock).

Source: Lamport, Time, Clocks, and the Ordering of Events in a Distributed System (1978); Fidge, Timestamps in
Message-Passing Systems That Preserve the Partial Ordering (1988); Mattern, Virtual Time and Global States of
Distributed Systems (1989).
Departure: a vector clock can be pruned, and then knows that it was: it goes on comparing with those that were
pruned alike, and calls the rest concurrent. A pruned clock that says nothing of it calls the newer of two
writes the older one, and the newer write is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from atoll.errors import ConfigurationError, LimitReached

COUNT_MAX = 2**63 - 1
ALIEN = -1
"""In `forgotten`: pruned in ways that cannot be compared with anything."""


class Order(Enum):
    """How one event stands to another."""

    BEFORE = "before"
    AFTER = "after"
    EQUAL = "equal"
    CONCURRENT = "concurrent"


class LamportStamp(NamedTuple):
    """A place in one line of all events: by time, and where that is equal by replica."""

    time: int
    replica: str


@dataclass(slots=True)
class LamportClock:
    """One replica's counter. If one event can have caused another, its stamp is smaller; not the reverse."""

    replica: str
    time: int = 0

    def tick(self) -> LamportStamp:
        """The stamp of an event here, or of a message about to be sent."""
        if self.time >= COUNT_MAX:
            raise LimitReached(f"the clock of {self.replica} stands at its end, {COUNT_MAX}: begin a new one")
        self.time += 1
        return LamportStamp(self.time, self.replica)

    def receive(self, time: int) -> LamportStamp:
        """The stamp of receiving a message that was sent at `time`; a time out of bounds is refused."""
        if not 0 <= time < COUNT_MAX:
            raise LimitReached(
                f"found the time {time}; expected 0 to {COUNT_MAX - 1}. The clock was not moved"
            )
        self.time = max(self.time, time)
        return self.tick()


@dataclass(frozen=True, slots=True)
class VectorClock:
    """How many events of each replica are known. A value: every verb answers a new one.

    `floor` and `forgotten` are 0 until it is pruned: no dropped count was above `floor`, and `forgotten`
    names what was dropped.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    floor: int = 0
    forgotten: int = 0

    def __post_init__(self) -> None:
        if any(not 0 < count <= COUNT_MAX for count in self.counts.values()):
            raise ConfigurationError(f"found the counts {dict(self.counts)}; expected 1 to {COUNT_MAX}")

    def __getitem__(self, replica: str) -> int:
        """Events of `replica` known here, at least; 0 for one that is not named."""
        return self.counts.get(replica, 0)

    def tick(self, replica: str) -> VectorClock:
        """The clock of a new event at `replica`; on a clock that holds all its own events."""
        count = max(self[replica], self.floor if replica not in self.counts else 0) + 1
        if count > COUNT_MAX:
            raise LimitReached(f"the count of {replica} stands at its end, {COUNT_MAX}: take a new name")
        return replace(self, counts={**self.counts, replica: count})

    def merge(self, other: VectorClock) -> VectorClock:
        """What is known to who knows both."""
        names = self.counts.keys() | other.counts.keys()
        merged = {name: max(self[name], other[name]) for name in sorted(names)}
        # What nobody dropped adds nothing to what one has dropped; two who dropped differently fit nowhere.
        dropped = {clock.forgotten for clock in (self, other)} - {0}
        forgotten = dropped.pop() if len(dropped) == 1 else ALIEN if dropped else 0
        return VectorClock(merged, max(self.floor, other.floor), forgotten)

    def compare(self, other: VectorClock) -> Order:
        """How this stands to `other`. BEFORE, AFTER and EQUAL are certain.

        Between clocks that were pruned, BEFORE says "nothing in it is unknown there", and CONCURRENT may mean
        that nobody can tell any more: keep both, as for every conflict.
        """
        within, around = self._within(other), other._within(self)
        if within and around:
            return Order.EQUAL
        return Order.BEFORE if within else Order.AFTER if around else Order.CONCURRENT

    def _within(self, other: VectorClock) -> bool:
        """Certainly nothing is known here that is not known there."""
        same_gaps = self.forgotten in (0, other.forgotten) and self.forgotten != ALIEN
        return same_gaps and all(count <= other[name] for name, count in self.counts.items())

    def prune(self, most: int, keep: str = "") -> VectorClock:
        """At most `most` replicas, `keep` among them: those with the fewest events are dropped.

        The price: next to a clock that was pruned otherwise, or not at all, it may be called concurrent with
        what it follows. That is a conflict too many, never a write too few.
        """
        if most < 1:
            raise ConfigurationError(f"found room for {most} replicas; expected at least 1")
        if len(self.counts) <= most:
            return self
        order = sorted(self.counts.items(), key=lambda item: (item[0] == keep, item[1], item[0]))
        dropped, kept = order[: len(order) - most], order[len(order) - most :]
        floor = max(self.floor, *(count for _, count in dropped))
        forgotten = self.forgotten
        if forgotten != ALIEN:
            forgotten = (forgotten + sum(_digest(*item) for item in dropped)) % 2**63 or 1
        return VectorClock(dict(sorted(kept)), floor, forgotten)


def _digest(name: str, count: int) -> int:
    return int.from_bytes(blake2b(f"{count} {name}".encode(), digest_size=8).digest())
