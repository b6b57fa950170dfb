"""A log in memory: what a runtime keeps on disk, for tests and simulations."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.algorithms.raft.membership import unpack
from atoll.algorithms.raft.messages import Entry, Index, Kind, Membership, Snapshot, Term


class MemoryLog:
    """A `LogView`: written by `write`, cut below a snapshot by `compact`, replaced by `install`."""

    def __init__(self, entries: Iterable[Entry] = (), snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot
        self._entries: list[Entry] = []
        self._first: Index = snapshot.index + 1 if snapshot else 1
        self._before: Term = snapshot.term if snapshot else 0
        self._memberships: list[tuple[Index, Membership]] = []
        given = tuple(entries)
        if given:
            self.write(given)

    @property
    def first(self) -> Index:
        return self._first

    @property
    def last(self) -> Index:
        return self._first + len(self._entries) - 1

    def term(self, index: Index) -> Term | None:
        if index == self._first - 1:
            return self._before
        position = index - self._first
        return self._entries[position].term if 0 <= position < len(self._entries) else None

    def entries(self, low: Index, high: Index, bytes_max: int) -> list[Entry]:
        if not self._first <= low < high <= self.last + 1:
            raise IndexError(f"found {low}..{high}; expected a part of {self._first}..{self.last + 1}")
        found = self._entries[low - self._first : high - self._first]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if size > bytes_max and count:
                return found[:count]
        return found

    def snapshot(self) -> Snapshot | None:
        return self._snapshot

    def memberships(self) -> list[tuple[Index, Membership]]:
        return list(self._memberships)

    def write(self, entries: tuple[Entry, ...]) -> None:
        """What a `Write` asks for: replace all from the first entry's index on."""
        if not entries:
            return
        position = entries[0].index - self._first
        if not 0 <= position <= len(self._entries):
            raise IndexError(f"found entry {entries[0].index}; expected {self._first}..{self.last + 1}")
        if position < len(self._entries):
            del self._entries[position:]
            while self._memberships and self._memberships[-1][0] >= entries[0].index:
                self._memberships.pop()
        self._entries += entries
        for entry in entries:
            if entry.kind is Kind.MEMBERSHIP:
                self._memberships.append((entry.index, unpack(entry.data)))

    def compact(self, snapshot: Snapshot, keep: int = 0) -> None:
        """A snapshot was made here: lose what is below it, but for the newest `keep` entries of that."""
        self._snapshot = snapshot
        cut = min(max(snapshot.index - keep, self._first - 1), self.last)
        if cut >= self._first:
            self._before = self._entries[cut - self._first].term
            del self._entries[: cut + 1 - self._first]
            self._first = cut + 1
        self._memberships = [(at, m) for at, m in self._memberships if at >= self._first]

    def install(self, snapshot: Snapshot) -> None:
        """Another's snapshot is the state now: keep what stands behind it if the logs agree, else nothing."""
        agrees = self.term(snapshot.index) == snapshot.term
        if agrees:
            self.compact(snapshot)
            return
        self._snapshot = snapshot
        self._entries.clear()
        self._memberships.clear()
        self._first = snapshot.index + 1
        self._before = snapshot.term
