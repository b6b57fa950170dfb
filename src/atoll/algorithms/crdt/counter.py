"""Counters: one that only grows, and one that also goes down.

Each shop counts its own customers in a line of its own; the total is the sum of the lines. Of two copies of
a line the longer is the newer, so nothing is counted twice and nothing is forgotten. Going down is a second
counter that counts the departures.

Source: Shapiro and others (2011), specifications 6 and 7.
"""

from __future__ import annotations

import msgspec

from atoll.errors import ConfigurationError, FormatRefused, LimitReached

COUNT_MAX = 2**63 - 1


class GCounter(msgspec.Struct, array_like=True, tag="g-counter"):
    """A sum that only grows. `counts`: what each replica has added."""

    counts: dict[str, int] = {}

    @property
    def value(self) -> int:
        """The sum of all that is known here."""
        return sum(self.counts.values())

    def add(self, replica: str, amount: int = 1) -> GCounter:
        """Add `amount`, more than 0, and answer the delta."""
        if amount < 1:
            raise ConfigurationError(f"found the amount {amount}; a G-counter only grows: take a PN-counter")
        count = self.counts.get(replica, 0) + amount
        if count > COUNT_MAX:
            raise LimitReached(f"the count of {replica} would pass {COUNT_MAX}: take a new name")
        self.counts[replica] = count
        return GCounter({replica: count})

    def merge(self, other: GCounter) -> None:
        """Know what `other` knows, too."""
        for replica, count in other.counts.items():
            if count > self.counts.get(replica, 0):
                self.counts[replica] = count

    def copy(self) -> GCounter:
        """Another one, equal to this."""
        return GCounter(dict(self.counts))

    def check(self) -> None:
        """FormatRefused for what no sequence of changes leads to."""
        if any(not 0 < count <= COUNT_MAX for count in self.counts.values()):
            raise FormatRefused(f"found a count that is not in 1 to {COUNT_MAX} in a counter")


class PNCounter(msgspec.Struct, array_like=True, tag="pn-counter"):
    """A sum that goes up and down. It may fall below 0: nobody who takes one knows what others take."""

    added: GCounter = msgspec.field(default_factory=GCounter)
    taken: GCounter = msgspec.field(default_factory=GCounter)

    @property
    def value(self) -> int:
        """The sum of all that is known here."""
        return self.added.value - self.taken.value

    def add(self, replica: str, amount: int = 1) -> PNCounter:
        """Add `amount`, which may be below 0, and answer the delta."""
        if amount >= 0:
            return PNCounter(added=self.added.add(replica, amount) if amount else GCounter())
        return PNCounter(taken=self.taken.add(replica, -amount))

    def merge(self, other: PNCounter) -> None:
        """Know what `other` knows, too."""
        self.added.merge(other.added)
        self.taken.merge(other.taken)

    def copy(self) -> PNCounter:
        """Another one, equal to this."""
        return PNCounter(self.added.copy(), self.taken.copy())

    def check(self) -> None:
        """FormatRefused for what no sequence of changes leads to."""
        self.added.check()
        self.taken.check()
