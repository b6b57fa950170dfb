"""A member's disk: the log in segments and one snapshot, as real bytes on a virtual disk.

A diary in ink that dries only when blotted. Each page is numbered and carries a check sum; a page that
was never blotted may be smeared, and is torn out at the end of the diary only. A smeared page with dried
pages behind it means that somebody has spilt something: such a diary is not believed at all.

A batch of writes is written record by record and forced once, from the next sector on. Records name their
batch, so that recovery can tell a torn tail (nothing behind it was forced later) from damage in the middle.
What it cannot tell: damage in the very last forced batch looks like a torn tail. The world therefore never
flips a bit there, but for the negative control that shows what it costs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

from atoll.algorithms.raft.memory_log import MemoryLog
from atoll.algorithms.raft.messages import Entry, Member, Snapshot, Term
from atoll.verify.virtual_disk import SECTOR, VirtualDisk, VirtualFile

SEGMENT_BYTES = 12 << 10
SNAPSHOT, DRAFT = "snapshot", "draft"

_HEADER = struct.Struct(">IIIHH")  # length, check sum, batch, place in the batch, records of the batch
_encode = msgspec.msgpack.Encoder().encode


class _Record(msgspec.Struct, frozen=True, array_like=True):
    term: Term
    vote: Member
    entries: tuple[Entry, ...]


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot's file. Segments before `segment` are void; `term` and `vote`: as durable at that time."""

    snapshot: Snapshot
    segment: int
    term: Term
    vote: Member
    body: bytes


_record = msgspec.msgpack.Decoder(_Record).decode
_saved = msgspec.msgpack.Decoder(_Saved).decode


class Damaged(Exception):
    """What is found was once forced and is not readable: this member is not believed any more."""


class PowerCut(Exception):
    """The power goes, here and now. Raised out of the disk by whoever watches its changes."""


class MemberDisk:
    """What one member has written. `term`, `vote`, `log`, `snapshot`, `body` show what is forced."""

    def __init__(self, disk: VirtualDisk) -> None:
        self.disk = disk
        self.term: Term = 0
        self.vote: Member = ""
        self.log = MemoryLog()
        self.body = b""
        self.lies = False
        """A lying disk: says that it forced, and did not. For negative controls only."""
        self.doing = ""
        """What the next change of the disk is, for whoever watches it."""
        self.rewritten = False
        """Recovery had to cut a torn tail."""
        self._batch = 0
        self._number = 0
        self._file: VirtualFile | None = None
        self._unforced: list[_Record] = []
        self._tops: dict[int, int] = {}  # segment -> its greatest index

    # -- writing -------------------------------------------------------------------------------------

    def append(self, writes: Sequence[tuple[Term, Member, tuple[Entry, ...]]]) -> None:
        """Write a batch; seen at once, forced by `force`. `entries` replace all from the first one on."""
        file = self._open()
        self._batch += 1
        self.doing = "record written"
        at = -(-file.size // SECTOR) * SECTOR
        for place, (term, vote, entries) in enumerate(writes):
            record = _Record(term, vote, entries)
            self._unforced.append(record)
            packed = _packed(_encode(record), self._batch, place, len(writes))
            done = 0
            while done < len(packed):  # sector by sector, so that any of them may be lost
                size = SECTOR - (at + done) % SECTOR
                file.write(at + done, packed[done : done + size])
                done += size
            at += len(packed)
            if entries:
                self._tops[self._number] = max(self._tops[self._number], entries[-1].index)

    def force(self) -> None:
        """Force what was appended; OSError where the disk fails."""
        assert self._file is not None
        self.doing = "batch forced"
        if not self.lies:
            self._file.sync()
        for record in self._unforced:
            self.term, self.vote = record.term, record.vote
            if record.entries:
                self.log.write(record.entries)
        self._unforced = []

    def _open(self) -> VirtualFile:
        """The segment to write to; a new one where the last is full."""
        if self._file is None or self._file.size >= SEGMENT_BYTES:
            self._number += 1
            self._tops[self._number] = 0
            self.doing = "segment named"
            self._file = self.disk.open(_segment(self._number))
            self.disk.sync_folder()
        return self._file

    # -- snapshots -----------------------------------------------------------------------------------

    def save(self, snapshot: Snapshot, body: bytes, *, keep: int = 0) -> None:
        """Make a snapshot of one's own state durable, then cut the log `keep` entries below it."""
        first = min(self._tops, default=self._number + 1)
        self._save(_Saved(snapshot, first, self.term, self.vote, body))
        self.log.compact(snapshot, keep=keep)
        self._drop(snapshot.index)

    def install(self, snapshot: Snapshot, body: bytes) -> None:
        """Make another's snapshot durable. A log that does not agree with it is void from then on."""
        agrees = self.log.term(snapshot.index) == snapshot.term
        first = min(self._tops, default=self._number + 1) if agrees else self._number + 1
        self._save(_Saved(snapshot, first, self.term, self.vote, body))
        self.log.install(snapshot)
        if not agrees:
            self._file = None
        self._drop(snapshot.index, void=not agrees)

    def _save(self, saved: _Saved) -> None:
        data = _encode(saved)
        self.doing = "snapshot written"
        draft = self.disk.open(DRAFT)
        draft.truncate(0)
        draft.append(zlib.crc32(data).to_bytes(4, "big") + data)
        self.doing = "snapshot forced"
        draft.sync()
        self.doing = "snapshot named"
        self.disk.rename(DRAFT, SNAPSHOT)
        self.disk.sync_folder()
        self.body = saved.body

    def _drop(self, index: int, *, void: bool = False) -> None:
        """Remove the oldest segments that the snapshot makes needless; never the one in use."""
        self.doing = "log cut"
        for number in sorted(self._tops):
            if not void and (number == self._number or self._tops[number] > index):
                break
            self.disk.unlink(_segment(number))
            del self._tops[number]
        self.disk.sync_folder()

    # -- recovery ------------------------------------------------------------------------------------

    @classmethod
    def recovered(cls, disk: VirtualDisk) -> MemberDisk:
        """What is found on `disk`, with a torn tail cut. Raises `Damaged`."""
        found = cls(disk)
        if disk.exists(DRAFT):
            disk.unlink(DRAFT)
        first = found._load() if disk.exists(SNAPSHOT) else 1
        numbers = sorted(int(name.partition("-")[2]) for name in disk.listdir() if name.startswith("log-"))
        for number in [n for n in numbers if n < first]:
            disk.unlink(_segment(number))
        numbers = [n for n in numbers if n >= first]
        found._number = max([first - 1, *numbers])
        good: list[tuple[int, bytes, int, int]] = []
        due: tuple[int, int] | None = None  # the batch, and the place in it, that comes next
        for number in numbers:
            found._tops[number] = 0
            good = []
            for at, payload, own, (place, of) in _records(disk.open(_segment(number)).read()):
                if payload is None or (due is not None and due != (own, place)):
                    found._judge(number, at, due[0] + 1 if due else 0)
                    break
                good.append((own, payload, place, of))
                due = (own, place + 1) if place + 1 < of else (own + 1, 0)
                found._batch = own
                found._replay(number, _record(payload))
            if found.rewritten:
                found._forget(numbers, number)
                break
        if numbers:
            found._rewrite(max(found._tops), good)
        disk.sync_folder()
        return found

    def _forget(self, numbers: Sequence[int], torn: int) -> None:
        """What stands behind a torn segment was never forced, nor answered."""
        for number in numbers:
            if number > torn:
                self.disk.unlink(_segment(number))
        self._number = torn

    def _load(self) -> int:
        data = self.disk.open(SNAPSHOT).read()
        if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big"):
            raise Damaged("the snapshot does not match its check sum")
        saved = _saved(data[4:])
        self.term, self.vote, self.body = saved.term, saved.vote, saved.body
        self.log = MemoryLog(snapshot=saved.snapshot)
        return saved.segment

    def _judge(self, number: int, at: int, later: int) -> None:
        """A bad record: the tail, or the middle, where a batch that began after it was forced is found."""
        self.rewritten = True
        data = self.disk.open(_segment(number)).read()
        places = [(data, place) for place in range(-(-at // SECTOR) * SECTOR, len(data), SECTOR)]
        if self.disk.exists(_segment(number + 1)):
            places.append((self.disk.open(_segment(number + 1)).read(), 0))
        for found, place in places:
            record = _one(found, place)
            if record is not None and record[1] >= later and record[2][0] == 0:
                raise Damaged(f"a record of segment {number} is bad at {at}, and later ones are good")

    def _replay(self, number: int, record: _Record) -> None:
        self.term, self.vote = record.term, record.vote
        if record.entries:
            self._tops[number] = max(self._tops[number], record.entries[-1].index)
            first = self.log.first
            kept = tuple(entry for entry in record.entries if entry.index >= first)
            if kept and kept[0].index > self.log.last + 1:
                raise Damaged(f"entries before {kept[0].index} are not there")
            if kept:
                self.log.write(kept)
            else:
                self.log = MemoryLog(snapshot=self.log.snapshot())

    def _rewrite(self, number: int, good: Sequence[tuple[int, bytes, int, int]]) -> None:
        """Write the newest segment anew: what a failed or a missing fsync left there is not yet safe."""
        self.doing = "tail rewritten"
        draft = self.disk.open(DRAFT)
        draft.truncate(0)
        whole = good[-1][2] + 1 if good else 0  # of a torn batch the rest will never come
        for batch, payload, place, of in good:
            if batch == good[-1][0]:
                of = whole
            if place == 0:
                draft.truncate(-(-draft.size // SECTOR) * SECTOR)
            draft.append(_packed(payload, batch, place, of))
        draft.sync()
        self.disk.rename(DRAFT, _segment(number))
        self._file = self.disk.open(_segment(number))

    # -- damage --------------------------------------------------------------------------------------

    def flip(self, dice: float, *, last: bool = False) -> bool:
        """Flip one bit of the snapshot, or of a record that is not of the last batch (`last`: only there)."""
        spots: list[tuple[str, int, int]] = []
        if self.disk.exists(SNAPSHOT) and not last:
            spots.append((SNAPSHOT, 4, self.disk.open(SNAPSHOT).size - 4))
        for number in sorted(self._tops):
            for at, payload, batch, _ in _records(self.disk.open(_segment(number)).read()):
                if payload is not None and (batch == self._batch) is last:
                    spots.append((_segment(number), at + _HEADER.size, len(payload)))
        if not spots:
            return False
        path, start, size = spots[int(dice * len(spots))]
        file = self.disk.open(path)
        place = start + int(dice * 7919) % size
        file.write(place, bytes([file.read(place, 1)[0] ^ (1 << int(dice * 104729) % 8)]))
        file.sync()
        return True


def _segment(number: int) -> str:
    return f"log-{number}"


def _packed(payload: bytes, batch: int, place: int, of: int) -> bytes:
    tail = _HEADER.pack(len(payload), 0, batch, place, of)[8:]
    return _HEADER.pack(len(payload), zlib.crc32(tail + payload), batch, place, of) + payload


def _one(data: bytes, at: int) -> tuple[bytes, int, tuple[int, int]] | None:
    """The record at a place: its payload, batch, and (place, of); None if it is none."""
    if at + _HEADER.size > len(data):
        return None
    length, check, batch, place, of = _HEADER.unpack_from(data, at)
    payload = data[at + _HEADER.size : at + _HEADER.size + length]
    tail = data[at + 8 : at + _HEADER.size]
    if not of or len(payload) != length or zlib.crc32(tail + payload) != check:
        return None
    return payload, batch, (place, of)


def _records(data: bytes) -> list[tuple[int, bytes | None, int, tuple[int, int]]]:
    """(place, payload, batch, (place in it, of)) to the end or the first bad one, whose payload is None."""
    found: list[tuple[int, bytes | None, int, tuple[int, int]]] = []
    at = 0
    while at < len(data):
        record = _one(data, at)
        if record is None and data[at : -(-at // SECTOR) * SECTOR].strip(b"\0") == b"":
            at = -(-at // SECTOR) * SECTOR if at % SECTOR else at
            if at >= len(data) or not data[at:].strip(b"\0"):
                break
            record = _one(data, at)
        if record is None:
            found.append((at, None, 0, (0, 0)))
            break
        payload, batch, last = record
        found.append((at, payload, batch, last))
        at += _HEADER.size + len(payload)
    return found
