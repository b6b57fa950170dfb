"""OR-set: add and remove in any copy; an addition that a removal had not seen stays.

A shopping list on two fridges. Striking out "milk" strikes the entries that one has read; milk that somebody
else writes down meanwhile is a wish of its own and stays. Nothing is kept of what was struck out.

Source: Bieniusa and others (2012), figure 3: the optimized observed-remove set, without tombstones.
Departure: deltas (Almeida and others, 2018), so the context may have gaps; elements are text.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from atoll.algorithms.crdt.causality import Context, Dot, surviving
from atoll.errors import FormatRefused


class ORSet(msgspec.Struct, array_like=True, tag="or-set"):
    """A set of text. `dots`: the additions that hold each element in it."""

    context: Context = msgspec.field(default_factory=Context)
    dots: dict[str, set[Dot]] = {}

    def __contains__(self, element: object) -> bool:
        return element in self.dots

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.dots))

    def __len__(self) -> int:
        return len(self.dots)

    @property
    def value(self) -> frozenset[str]:
        """The elements known here."""
        return frozenset(self.dots)

    def add(self, replica: str, element: str) -> ORSet:
        """Add, and answer the delta."""
        dot = self.context.next(replica)
        replaced = self.dots.get(element, set())
        self.context.add(dot)
        self.dots[element] = {dot}
        return ORSet(_known({dot} | replaced), {element: {dot}})

    def remove(self, element: str) -> ORSet:
        """Remove what is known here of `element`, and answer the delta; nothing happens if it is not here."""
        return ORSet(_known(self.dots.pop(element, set())))

    def clear(self) -> ORSet:
        """Remove everything known here, and answer the delta."""
        removed = {dot for dots in self.dots.values() for dot in dots}
        self.dots.clear()
        return ORSet(_known(removed))

    def merge(self, other: ORSet) -> None:
        """Know what `other` knows, too. Looks at every element of both."""
        for element, theirs in other.dots.items():
            mine = self.dots.get(element, set())
            self._keep(element, surviving(mine, self.context, theirs, other.context))
        for element in [element for element in self.dots if element not in other.dots]:
            self._keep(element, surviving(self.dots[element], self.context, set(), other.context))
        self.context.merge(other.context)

    def copy(self) -> ORSet:
        """Another one, equal to this."""
        return ORSet(self.context.copy(), {element: set(dots) for element, dots in self.dots.items()})

    def check(self) -> None:
        """FormatRefused for what no sequence of changes leads to."""
        self.context.check()
        used: set[Dot] = set()
        for dots in self.dots.values():
            if not dots or any(dot not in self.context for dot in dots) or not used.isdisjoint(dots):
                raise FormatRefused("found an element of a set without a dot of its own in the context")
            used |= dots

    def _keep(self, element: str, dots: set[Dot]) -> None:
        if dots:
            self.dots[element] = dots
        else:
            self.dots.pop(element, None)


def _known(dots: set[Dot]) -> Context:
    context = Context()
    context.add(*dots)
    return context
