"""OR-map: a map of CRDTs; a removal takes away what it had seen, and an update made meanwhile stays.

A folder of such lists. Throwing a list away throws away the copy that one has read; if somebody wrote on it
meanwhile, his copy stays in the folder, with all that he had before him when he wrote.

Source: Bieniusa and others (2012) for the dots; Almeida, Shoker and Baquero (2018), section 7.4, for maps of
them.
Departure: each update stores the whole value under its dot, so values need not know the map's context. What
is joined are whole values, so values of two kinds stand apart under one key. A removal opens a new era, and a
replica counts under another name in each: else what it adds anew could hide behind what it had added before.
So counters and sets in a map grow by a line for each replica and era: take out keys seldom, or keep
long-lived counters beside the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from atoll.algorithms.crdt.causality import Context, Dot, surviving
from atoll.algorithms.crdt.counter import GCounter, PNCounter
from atoll.algorithms.crdt.or_set import ORSet
from atoll.algorithms.crdt.register import LWWRegister
from atoll.errors import FormatRefused

Kind = TypeVar("Kind", "GCounter", "PNCounter", "LWWRegister", "ORSet", "ORMap")
Place = tuple[str, str]
"""A key, and the kind of what stands under it."""
ERA_MAX = 2**53


class ORMap(msgspec.Struct, array_like=True, tag="or-map"):
    """A map from text to CRDTs. A value under a dot is never changed again."""

    context: Context = msgspec.field(default_factory=Context)
    era: int = 0
    """Greater than those of all names that were removed."""
    entries: dict[Place, dict[Dot, State]] = {}

    def __contains__(self, key: object) -> bool:
        return any(key == held for held, _ in self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({key for key, _ in self.entries}))

    def __len__(self) -> int:
        return len({key for key, _ in self.entries})

    def get(self, key: str, kind: type[Kind]) -> Kind | None:
        """A copy of what stands under `key`; changes to it stay with the caller. None: no such key."""
        held = self.entries.get((key, _tag(kind)))
        if not held:
            return None
        joined = kind()
        for _, value in sorted(held.items()):
            assert isinstance(value, kind)
            joined.merge(value)
        return joined

    def update(
        self, replica: str, key: str, kind: type[Kind], change: Callable[[Kind, str], object]
    ) -> ORMap:
        """Let `change(value, name)` change the value, under that name for the replica; answers the delta."""
        place = (key, _tag(kind))
        value = self.get(key, kind) or kind()
        change(value, f"{replica}/{self.era}")
        seen = set(self.entries.get(place, ()))
        dot = self.context.next(replica)
        self.context.add(dot)
        self.entries[place] = {dot: value}
        delta = ORMap(era=self.era, entries={place: {dot: value}})
        delta.context.add(dot, *seen)
        return delta

    def remove(self, key: str) -> ORMap:
        """Remove what is known here of `key`, and answer the delta; nothing happens if it is not here."""
        delta = ORMap()
        for place in [place for place in self.entries if place[0] == key]:
            delta.context.add(*self.entries.pop(place))
        if delta.context != Context():
            self.era += 1
            delta.era = self.era
        return delta

    def merge(self, other: ORMap) -> None:
        """Know what `other` knows, too."""
        for place in [*self.entries, *(place for place in other.entries if place not in self.entries)]:
            mine, theirs = self.entries.get(place, {}), other.entries.get(place, {})
            dots = surviving(set(mine), self.context, set(theirs), other.context)
            if dots:
                self.entries[place] = {dot: mine[dot] if dot in mine else theirs[dot] for dot in dots}
            else:
                self.entries.pop(place, None)
        self.era = max(self.era, other.era)
        self.context.merge(other.context)

    def copy(self) -> ORMap:
        """Another one, equal to this."""
        entries = {place: dict(held) for place, held in self.entries.items()}
        return ORMap(self.context.copy(), self.era, entries)

    def check(self) -> None:
        """FormatRefused for what no sequence of changes leads to."""
        self.context.check()
        if not 0 <= self.era <= ERA_MAX:
            raise FormatRefused(f"found the era {self.era} in a map; expected 0 to {ERA_MAX}")
        used: set[Dot] = set()
        for (key, tag), held in self.entries.items():
            if not held or any(dot not in self.context for dot in held) or not used.isdisjoint(held):
                raise FormatRefused(f"found the key {key[:40]!r} without a dot of its own in the context")
            used |= held.keys()
            for value in held.values():
                if _tag(type(value)) != tag:
                    raise FormatRefused(f"found a {_tag(type(value))} as the {tag} of {key[:40]!r}")
                value.check()


State = GCounter | PNCounter | LWWRegister | ORSet | ORMap
"""Any of them."""


def _tag(kind: type[State]) -> str:
    return str(kind.__struct_config__.tag)
