"""Write-ahead log: what a member has promised, in segments of bounded size, on a disk that may fail.

A ship's log in numbered volumes. The mate writes a whole watch, lets the ink dry, and only then calls the
watch. If the ink once refuses to dry, nobody writes in that book again: what it holds is no longer known.

Source: Ongaro and Ousterhout (2014), section 5 (what is persistent); Rebello et al., "Can Applications
Recover from fsync Failures?", ATC 2020 (a failed force is never asked for twice).
Departure: entries that replace others are written behind them, and count; nothing is ever overwritten.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from atoll.algorithms.raft import membership
from atoll.algorithms.raft.events import Write
from atoll.algorithms.raft.messages import Entry, Index, Kind, Member, Membership, Snapshot, Term
from atoll.engines.raft import files, record, segment
from atoll.engines.raft.log_index import LogIndex, Newest, Span
from atoll.engines.raft.segment import BLOCK, Cover
from atoll.errors import DiskFull, NotSent, OutcomeUnknown

ENTRY = struct.Struct("<QQQQB")
"""Term, index, client, sequence, kind; the entry's data follow."""
KINDS = tuple(Kind)
_READ_MAX = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Sizes in bytes."""

    segment_bytes: int = 16 << 20
    cache_bytes: int = 8 << 20
    """The newest entries kept in memory, by their data; followers that keep up are served from there."""
    force: Callable[[int], None] = files.force
    """How a descriptor is forced; a test puts a disk that fails here."""


class Log:
    """The log of one member. Made by `log_opening.open_log`.

    `append`, `sync`, `begin_anew`, `note`, `compact` and `close` belong to one thread, the disk's; `show` to
    the machine's. What the LogView asks may be asked from any thread. Of new entries it shows what is forced,
    which may be more than the machine was told by `Written` yet; what goes (below a snapshot, or all for
    one) goes only in `show`, so that nothing vanishes while the machine decides. The first write that fails
    ends the log: `failed` says why, and every later one is refused.
    """

    def __init__(self, folder: Path, options: LogOptions, index: LogIndex, hard: tuple[Term, Member]) -> None:
        self.folder = folder
        self.options = options
        self.failed: str | None = None
        self.forces = 0
        """How often the disk was asked to force entries."""
        self._index = self._shown = index
        self._noted: Snapshot | None = None
        self._compact_to: Index = 0
        self._dead: list[Span] = []
        self._hard = self._hard_written = hard
        self._snapshot: Snapshot | None = None
        self._lock = threading.Lock()
        self._pending: list[tuple[Entry, int]] = []
        self._written = index.last
        self._forced = index.spans[-1].end if index.spans else 0
        self._newest = Newest(options.cache_bytes)

    # -- what the disk's thread does -------------------------------------------------------------------

    def append(self, writes: Sequence[Write]) -> None:
        """Write all of `writes`, in order, unforced. `sync` makes them durable, and visible here.

        Raises NotSent when the log has failed before, DiskFull or OutcomeUnknown when it fails now.
        """
        self._check()
        try:
            for write in writes:
                self._append(write)
        except OSError as error:
            raise self._fail(error, "written") from error

    def sync(self) -> None:
        """Force what was appended: one forced write, however many writes there are. Then they are shown.

        Raises OutcomeUnknown when the disk fails; the log is dead then, because nobody knows what it holds.
        """
        self._check()
        span = self._index.spans[-1]
        if span.end != self._forced:
            try:
                self.options.force(span.descriptor)
            except OSError as error:
                raise self._fail(error, "forced") from error
            self.forces += 1
            self._forced = span.end
        self._publish()
        self._tidy()

    def begin_anew(self, snapshot: Snapshot) -> None:
        """`snapshot` is durable: a log that does not go through it is dropped, and begins anew behind it.

        Nothing may be appended and unforced. Seen after `show`; call it before anything more is appended.
        """
        self._check()
        assert not self._pending, "begin_anew with unforced entries"
        self.note(snapshot)
        known = self._index.term(snapshot.index)
        if known == snapshot.term or (known is None and snapshot.index == self._index.first - 1):
            return
        try:
            fresh = self._new_segment(snapshot.index, snapshot.term, 0, anew=True)
        except OSError as error:
            raise self._fail(error, "forced") from error
        index = LogIndex(snapshot.index, snapshot.term)
        index.begin(fresh)
        self._index, self._written = index, snapshot.index
        self._forced, self._hard = fresh.end, self._hard_written

    def note(self, snapshot: Snapshot) -> None:
        """A durable snapshot was made, so `compact` may drop what is below it. Seen after `show`."""
        if self._noted is None or snapshot.index > self._noted.index:
            self._noted = snapshot

    def compact(self, index: Index) -> None:
        """Drop segments of which all entries are <= `index`, and below the newest durable snapshot too.

        They go from the view in `show`, and from the disk in the `sync` after it.
        """
        self._check()
        self._compact_to = min(index, self._noted.index if self._noted else 0)

    def show(self) -> None:
        """In the machine's thread: let the view show what `begin_anew`, `note` and `compact` have done.

        Right before the machine is told of it by `ChunkStored` or `Compacted`.
        """
        with self._lock:
            self._snapshot = self._noted
            if self._shown is not self._index:
                self._dead += self._shown.spans
                self._shown = self._index
                self._newest.clear()
            spans = self._index.spans
            while len(spans) > 1 and spans[1].first - 1 <= self._compact_to:
                self._dead.append(self._index.drop())

    def close(self) -> None:
        """Close the files. What was not forced may be lost."""
        with self._lock:
            self.failed = (
                self.failed or f"the log in {self.folder} was closed. Nothing was sent: open it again."
            )
            open_ones = {
                span.descriptor: span for span in (*self._index.spans, *self._shown.spans, *self._dead)
            }
            for descriptor in open_ones:
                os.close(descriptor)
            self._index.spans = self._shown.spans = self._dead = []

    # -- what anybody may ask: the LogView -------------------------------------------------------------

    @property
    def term_and_vote(self) -> tuple[Term, Member]:
        """The durable hard state."""
        return self._hard

    @property
    def first(self) -> Index:
        return self._shown.first

    @property
    def last(self) -> Index:
        return self._shown.last

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(span.size for span in self._shown.spans)

    def snapshot(self) -> Snapshot | None:
        return self._snapshot

    def memberships(self) -> list[tuple[Index, Membership]]:
        with self._lock:
            return list(self._shown.memberships)

    def term(self, index: Index) -> Term | None:
        with self._lock:
            found = self._shown.term(index)
            if found is None and self._snapshot is not None and self._snapshot.index == index:
                return self._snapshot.term
            return found

    def entries(self, low: Index, high: Index, bytes_max: int) -> list[Entry]:
        """`low` <= index < `high`, at least one, then no more than `bytes_max` of data.

        Raises OutcomeUnknown where the disk does not give back what was written; the log has failed then.
        """
        with self._lock:
            assert self._shown.first <= low < high <= self._shown.last + 1, (low, high)
            if (recent := self._newest.between(low, high, self._shown.last)) is not None:
                return _bounded(recent, bytes_max)
            try:
                return self._read(low, high, bytes_max)
            except OSError as error:
                raise self._fail(error, "read") from error

    # -- inside ----------------------------------------------------------------------------------------

    def _append(self, write: Write) -> None:
        hard = (write.term, write.vote)
        pieces: list[tuple[int, bytes]] = []
        if hard != self._hard_written:
            pieces.append((record.RecordKind.HARD_STATE, msgspec.msgpack.encode(hard)))
        for entry in write.entries:
            assert entry.index <= self._written + 1, (entry.index, self._written)
            fixed = ENTRY.pack(entry.term, entry.index, entry.client, entry.sequence, entry.kind)
            pieces.append((record.RecordKind.ENTRY, fixed + entry.data))
            self._written = entry.index
        if not pieces:
            return
        span = self._room_for(sum(record.size_of(len(payload)) for _, payload in pieces))
        places, packed, offset = array("I"), [], span.end
        for kind, payload in pieces:
            places.append(offset)
            packed.append(record.pack(kind, payload, offset, self._forced, span.seed))
            offset += len(packed[-1])
        files.write(span.descriptor, b"".join(packed), span.end)
        span.end, span.size, self._hard_written = offset, max(span.size, offset), hard
        self._pending += zip(write.entries, places[len(pieces) - len(write.entries) :], strict=True)

    def _room_for(self, size: int) -> Span:
        """The newest segment, or where `size` bytes do not fit into it, a new one."""
        span = self._index.spans[-1]
        if span.end + size <= span.size or span.end == BLOCK:
            return span
        self.sync()
        before = self._index.term(self._index.last)
        fresh = self._new_segment(self._index.last, before or 0, span.end, room=BLOCK + size)
        with self._lock:
            self._index.begin(fresh)
        self._forced = fresh.end
        return fresh

    def _new_segment(
        self, before: Index, before_term: Term, end: int, *, room: int = 0, anew: bool = False
    ) -> Span:
        old = self._index.spans[-1].cover
        cover = Cover(
            old.cluster,
            old.member,
            old.number + 1,
            segment.salt(),
            before,
            before_term,
            *self._hard_written,
            end,
            anew,
        )
        size = max(self.options.segment_bytes, room)
        return new_span(self.folder, cover, size, self.options.force)

    def _publish(self) -> None:
        with self._lock:
            self._hard = self._hard_written
            for entry, place in self._pending:
                self._newest.put(entry, self._index.last)
                self._index.put(entry.index, entry.term, place)
                if entry.kind == Kind.MEMBERSHIP:
                    self._index.memberships.append((entry.index, unpack_membership(entry.data)))
            self._pending = []

    def _read(self, low: Index, high: Index, bytes_max: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        while low < high:
            span = self._shown.locate(low)
            places, base = span.places, span.first
            stop = min(high, span.last + 1)
            start = places[low - base]
            while stop - low > 1 and places[stop - 1 - base] - start > min(bytes_max, _READ_MAX):
                stop = low + max((stop - low) // 2, 1)
            end = places[stop - base] if stop <= span.last else span.end
            block = os.pread(span.descriptor, end - start, start)
            for place in places[low - base : stop - base]:
                entry = _entry_at(span, block, place, start)
                size += len(entry.data)
                if found and size > bytes_max:
                    return found
                found.append(entry)
            low = stop
        return found

    def _tidy(self) -> None:
        """Take dropped segments away, the oldest first."""
        with self._lock:
            spans, self._dead = self._dead, []
        if not spans:
            return
        try:
            for span in spans:
                os.close(span.descriptor)
                os.unlink(span.path)
            files.force_folder(self.folder, self.options.force)
        except OSError as error:
            raise self._fail(error, "tidied") from error

    def _check(self) -> None:
        if self.failed is not None:
            raise NotSent(self.failed)

    def _fail(self, error: OSError, what: str) -> DiskFull | OutcomeUnknown:
        self.failed = (
            f"the log in {self.folder} could not be {what} ({error.strerror or error}), and closed for good; "
            "nobody knows what of it is on the disk."
        )
        if error.errno in files.NO_ROOM:
            return DiskFull(
                f"no room for the log in {self.folder} ({error.strerror}). This member stops; what it "
                "promised is unharmed. Free space there, then start it again."
            )
        return OutcomeUnknown(
            f"{self.failed} This member stops. Look at the disk; then start it again, or remove it from the "
            "cluster and add another."
        )


def _bounded(entries: list[Entry], bytes_max: int) -> list[Entry]:
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if count and size > bytes_max:
            return entries[:count]
    return entries


def _entry_at(span: Span, block: bytes, place: int, start: int) -> Entry:
    found = record.read(block, place - start, span.seed, start)
    if not isinstance(found, record.Record):
        raise OSError(errno.EIO, f"{span.path} at {place}: {found.value}")
    return unpack_entry(found.payload)


def unpack_entry(payload: bytes) -> Entry:
    """An entry as its record holds it."""
    term, index, client, sequence, kind = ENTRY.unpack_from(payload)
    return Entry(term, index, KINDS[kind], payload[ENTRY.size :], client, sequence)


def unpack_membership(data: bytes) -> Membership:
    """What an entry of Kind.MEMBERSHIP carries."""
    return membership.unpack(data)


def new_span(folder: Path, cover: Cover, size: int, force: Callable[[int], None]) -> Span:
    """A new segment on the disk, durable and empty."""
    descriptor = segment.create(folder, cover, size, force)
    return Span(
        segment.path_of(folder, cover.number),
        cover,
        record.seed_of(cover.number, cover.salt),
        descriptor,
        cover.before_index + 1,
        size,
        BLOCK,
    )
