"""The log as the machine sees it: what is durable stands behind a view, what is not yet is kept here.

A ledger in the cellar and the slips still lying on the desk. Whoever asks for a page is given the slip if
there is one, for it is newer; a slip is thrown away once the ledger has it.

Source: Ongaro, Consensus (2014), 3.5 and 10.2.1 (writing to the leader's disk in parallel).
Departure: the slips of several writes may be under way; a later one that replaces an earlier one takes away
the earlier one's right to call itself durable.
"""

from __future__ import annotations

from collections import deque

from atoll.algorithms.raft.events import LogView
from atoll.algorithms.raft.messages import Entry, Index, Term

ENTRY_BYTES = 64
"""What an entry is taken to weigh beside its data."""
ENTRIES_MAX = 4096
"""How many are looked at together, however small they are."""


class Log:
    """Entries by index; `durable` is how far they are on the disk as they are here."""

    __slots__ = ("_marks", "_offset", "_tail", "durable", "last", "view")

    def __init__(self, view: LogView) -> None:
        self.view = view
        self.reopened()

    def reopened(self) -> None:
        """The view alone counts: at the start, and when a snapshot was installed."""
        self.last: Index = self.view.last
        self.durable: Index = self.last
        self._offset: Index = self.last + 1
        self._tail: list[Entry] = []
        self._marks: deque[tuple[int, Index]] = deque()

    @property
    def first(self) -> Index:
        """The oldest entry that is still here."""
        return self.view.first

    def term(self, index: Index) -> Term | None:
        """None where it is not known any more, or not yet."""
        if index < self._offset:
            return self.view.term(index) if index <= self.last else None
        return self._tail[index - self._offset].term if index <= self.last else None

    @property
    def last_term(self) -> Term:
        return self.term(self.last) or 0

    def entries(self, low: Index, high: Index, bytes_max: int) -> list[Entry]:
        """`low` <= index < `high`; at least one, then not beyond `bytes_max` of data, perhaps fewer."""
        high = min(high, low + ENTRIES_MAX)
        if low < self._offset:
            return self.view.entries(low, min(high, self._offset), bytes_max)
        found = self._tail[low - self._offset : high - self._offset]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if size > bytes_max and count:
                return found[:count]
        return found

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """`entries` replace all from their first index on."""
        first = entries[0].index
        if first <= self.last:
            self._truncate(first)
        self._tail += entries
        self.last = entries[-1].index

    def _truncate(self, first: Index) -> None:
        if first <= self._offset:
            self._tail.clear()
            self._offset = first
        else:
            del self._tail[first - self._offset :]
        self.durable = min(self.durable, first - 1)
        self._marks = deque((seq, min(last, first - 1)) for seq, last in self._marks)

    def writing(self, seq: int) -> None:
        """All that is here is durable when `seq` is written."""
        self._marks.append((seq, self.last))

    def written(self, seq: int) -> None:
        """The disk has all writes up to `seq`."""
        while self._marks and self._marks[0][0] <= seq:
            self.durable = max(self.durable, self._marks.popleft()[1])
        if self.durable >= self._offset:
            del self._tail[: self.durable + 1 - self._offset]
            self._offset = self.durable + 1

    def newest_not_after(self, term: Term, low: Index, high: Index) -> Index:
        """The largest index from `low` to `high` whose term is at most `term`; `low` if there is none.

        What is below the log is not looked at; where all of it is, the answer is `high`.
        Terms never fall along a log, so a hint is found in a few steps in however long a log.
        """
        low = min(max(low, self.first - 1), high)
        while low < high:
            middle = (low + high + 1) // 2
            here = self.term(middle)
            if here is not None and here <= term:
                low = middle
            else:
                high = middle - 1
        return low
