"""Causal context: which changes are known, so that "not here" can be told from "removed".

Two copies of a guest list, one without Ann. Was she struck off, or not yet written down? Every line has a
number by its writer, and each copy remembers up to which number it has seen each writer's lines. Ann's
number seen, and she is not on it: struck off. Not seen: new.

Source: Bieniusa, Zawirski, Preguica, Shapiro, Baquero, Balegas and Duarte, An Optimized Conflict-free
Replicated Set (2012): a version vector instead of tombstones; Almeida, Shoker and Baquero (2018), section
7.2: the dots beside the vector that deltas leave when they come out of order.
"""

from __future__ import annotations

import msgspec

from atoll.errors import FormatRefused

Dot = tuple[str, int]
"""A change: which replica's, and its how-manieth."""
COUNT_MAX = 2**63 - 1


class Context(msgspec.Struct, array_like=True):
    """A set of dots: all up to `vector[replica]`, and those that came early, in `early`."""

    vector: dict[str, int] = {}
    early: set[Dot] = set()

    def __contains__(self, dot: object) -> bool:
        assert isinstance(dot, tuple)
        replica, count = dot
        return count <= self.vector.get(replica, 0) or dot in self.early

    def next(self, replica: str) -> Dot:
        """A dot of `replica` that was never used: it knows all its own."""
        early = (count for name, count in self.early if name == replica)
        return replica, max(self.vector.get(replica, 0), *early, 0) + 1

    def replicas(self) -> list[str]:
        """Whose changes are known."""
        return sorted({*self.vector, *(replica for replica, _ in self.early)})

    def add(self, *dots: Dot) -> None:
        """Know these too."""
        self.early.update(dot for dot in dots if dot not in self)
        if self.early:
            self._close()

    def merge(self, other: Context) -> None:
        """Know what `other` knows, too."""
        for replica, count in other.vector.items():
            if count > self.vector.get(replica, 0):
                self.vector[replica] = count
        self.early |= other.early
        if self.early:
            self._close()

    def copy(self) -> Context:
        """Another one, equal to this."""
        return Context(dict(self.vector), set(self.early))

    def check(self) -> None:
        """FormatRefused for what no sequence of changes leads to."""
        counts = [*self.vector.values(), *(count for _, count in self.early)]
        if any(not 0 < count <= COUNT_MAX for count in counts):
            raise FormatRefused(f"found a dot whose number is not in 1 to {COUNT_MAX}")
        again = self.copy()
        again._close()
        if again != self:
            raise FormatRefused("found dots beside a version vector that are in it, or continue it")

    def _close(self) -> None:
        """Move what the vector has reached into it, so that equal knowledge looks equal."""
        for replica, count in sorted(self.early):
            known = self.vector.get(replica, 0)
            if count == known + 1:
                self.vector[replica] = count
            if count <= known + 1:
                self.early.discard((replica, count))


def surviving(mine: set[Dot], known: Context, theirs: set[Dot], known_there: Context) -> set[Dot]:
    """Of two copies' dots those that stay: in both, or in one and new to the other."""
    return {dot for dot in mine if dot in theirs or dot not in known_there} | {
        dot for dot in theirs if dot in mine or dot not in known
    }
