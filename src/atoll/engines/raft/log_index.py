"""Log index: where each entry stands in which segment, in a few bytes an entry.

The card catalogue of a library: the books stay on the shelves. An entry costs four bytes here, a term or a
change of members a card of its own.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from atoll.algorithms.raft.messages import Entry, Index, Membership, Term
from atoll.engines.raft.segment import Cover

ENTRY_BYTES = 120
"""What an entry takes in memory beside its data."""


@dataclass(slots=True)
class Span:
    """One segment, and the entries of it that count: `first` and those after it, one place each."""

    path: Path
    cover: Cover
    seed: int
    descriptor: int
    first: Index
    size: int
    """Bytes that the file has room for."""
    end: int
    """Where the next record goes."""
    places: array[int] = field(default_factory=lambda: array("I"))

    @property
    def last(self) -> Index:
        return self.first + len(self.places) - 1


class LogIndex:
    """`first` and `last` of the log, its terms, and who were members; entries are named by span and place."""

    def __init__(self, before: Index, before_term: Term | None) -> None:
        self.spans: list[Span] = []
        self.first = before + 1
        self.last = before
        self.memberships: list[tuple[Index, Membership]] = []
        self._before_term = before_term
        self._runs: list[Index] = []
        self._terms: list[Term] = []

    def begin(self, span: Span) -> None:
        """The next segment."""
        self.spans.append(span)

    def put(self, index: Index, term: Term, place: int) -> None:
        """An entry at `place` of the newest segment; all from `index` on that was here before goes."""
        if index <= self.last:
            self.cut(index)
        if not self._terms or self._terms[-1] != term:
            self._runs.append(index)
            self._terms.append(term)
        self.spans[-1].places.append(place)
        self.last = index

    def cut(self, index: Index) -> None:
        """Forget `index` and all after it."""
        for span in reversed(self.spans):
            if span.first < index:
                del span.places[index - span.first :]
                break
            del span.places[:]
            span.first = index
        keep = bisect_left(self._runs, index)
        del self._runs[keep:], self._terms[keep:]
        while self.memberships and self.memberships[-1][0] >= index:
            self.memberships.pop()
        self.last = index - 1
        if index < self.first:
            self.first, self._before_term = index, None

    def drop(self) -> Span:
        """Forget the oldest segment, which is not the newest."""
        span = self.spans.pop(0)
        if span.places:
            self._before_term = self.term(span.last)
        self.first = self.spans[0].first
        keep = max(bisect_right(self._runs, self.first) - 1, 0)
        if self._runs and self._runs[keep] < self.first:
            self._runs[keep] = self.first
        del self._runs[:keep], self._terms[:keep]
        self.memberships = [pair for pair in self.memberships if pair[0] >= self.first]
        return span

    def term(self, index: Index) -> Term | None:
        """The term of an entry here, or of the one before the first where it is known."""
        if self.first <= index <= self.last:
            return self._terms[bisect_right(self._runs, index) - 1]
        return self._before_term if index == self.first - 1 else None

    def locate(self, index: Index) -> Span:
        """The segment that `index` stands in; it must be here."""
        place = bisect_right(self.spans, index, key=lambda span: span.first) - 1
        while not self.spans[place].places:
            place -= 1
        return self.spans[place]


class Newest:
    """The newest entries themselves, up to the log's last, for followers that keep up."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: list[Entry] = []
        self._bytes = 0

    def put(self, entry: Entry, last: Index) -> None:
        """Add `entry`; the log ends at `last` before it, or goes on there in another way."""
        if entry.index <= last:
            del self._entries[max(len(self._entries) - (last + 1 - entry.index), 0) :]
        self._entries.append(entry)
        self._bytes += len(entry.data) + ENTRY_BYTES
        if self._bytes > 2 * self._bytes_max:
            self._shrink()

    def between(self, low: Index, high: Index, last: Index) -> list[Entry] | None:
        """Those of `low` <= index < `high`; None where not all are here."""
        oldest = last + 1 - len(self._entries)
        return self._entries[low - oldest : high - oldest] if low >= oldest else None

    def clear(self) -> None:
        """Forget all."""
        self._entries, self._bytes = [], 0

    def _shrink(self) -> None:
        kept = size = 0
        for entry in reversed(self._entries):
            size += len(entry.data) + ENTRY_BYTES
            if size > self._bytes_max:
                break
            kept += 1
        del self._entries[: len(self._entries) - kept]
        self._bytes = size
