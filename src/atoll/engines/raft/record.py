"""Record: one line of the write-ahead log as bytes, and what a bad one means.

A page of a ledger that bears its own page number and a seal. A page whose ink stopped in the middle was being
written when the lamp went out, and nobody was told of it. A page that is whole but whose seal is broken, or
one behind which later pages are in order, was spoilt afterwards.

Source: Mohan et al., ARIES (1992), for the log; Alagappan et al., "Protocol-Aware Recovery for
Consensus-Based Storage", FAST 2018, for why a spoilt record must not be taken for a torn one.
Departure: a record says how far its file was forced when it was written. Good records behind a bad one prove
that it is spoilt only if they were written after it had been forced.
"""

from __future__ import annotations

import struct
import zlib
from enum import Enum, IntEnum
from typing import NamedTuple

SECTOR = 512
"""Of this many bytes a disk writes all or none."""
HEADER = struct.Struct("<IIII")
"""Length and kind, forced, CRC of the payload, CRC of the header and its place."""
_HEAD = struct.Struct("<III")
_PLACE = struct.Struct("<QI")
_LENGTH_BITS = 28
PAYLOAD_MAX = (1 << _LENGTH_BITS) - 1
ALIGNMENT = 8


class RecordKind(IntEnum):
    """What a record holds."""

    ENTRY = 1  # a packed Entry; it replaces all from its index on
    HARD_STATE = 2  # [term, vote]


class Record(NamedTuple):
    """One that was read. `end`: where the next one begins."""

    kind: int
    forced: int
    payload: bytes
    end: int


class Spoilt(Enum):
    """Why no record can be read at a place."""

    END = "nothing was written here"
    TORN = "it was not wholly written"
    DAMAGED = "it was written and has changed since"


def seed_of(number: int, salt: int) -> int:
    """What every check of a segment begins with, so that a record of another segment never passes in it."""
    return zlib.crc32(_PLACE.pack(number, salt))


def size_of(payload: int) -> int:
    """Bytes a record takes on the disk: header, payload, and one to eight bytes that mark its end."""
    return HEADER.size + (payload + ALIGNMENT) // ALIGNMENT * ALIGNMENT


_END = [b"\xff" * (ALIGNMENT - n) for n in range(ALIGNMENT)]


def pack(kind: int, payload: bytes, offset: int, forced: int, seed: int) -> bytes:
    """The record that stands at `offset` of a segment of which `forced` bytes are forced."""
    length = len(payload)
    head = _HEAD.pack(kind << _LENGTH_BITS | length, forced, zlib.crc32(payload))
    check = zlib.crc32(head, seed ^ offset).to_bytes(4, "little")
    return b"".join((head, check, payload, _END[length % ALIGNMENT]))


def read(segment: bytes | memoryview, offset: int, seed: int, start: int = 0) -> Record | Spoilt:
    """The record at `offset` of what was read from `start` of a segment on, or why there is none."""
    head = bytes(segment[offset : offset + HEADER.size])
    if len(head) < HEADER.size:
        return Spoilt.END if not any(head) else Spoilt.TORN
    word, forced, payload_check, check = HEADER.unpack(head)
    place = start + offset
    if zlib.crc32(head[:-4], seed ^ place) != check:
        if not any(head):
            return Spoilt.END
        return Spoilt.TORN if _torn(head, place) else Spoilt.DAMAGED
    length = word & PAYLOAD_MAX
    end = offset + size_of(length)
    if end > len(segment):
        return Spoilt.TORN
    data = offset + HEADER.size
    payload = bytes(segment[data : data + length])
    if zlib.crc32(payload) != payload_check or segment[end - 1] != 0xFF:
        return Spoilt.TORN if _torn(bytes(segment[offset:end]), place) else Spoilt.DAMAGED
    return Record(word >> _LENGTH_BITS, forced, payload, end)


def _torn(piece: bytes, offset: int) -> bool:
    """Whether a part of it never reached the disk: its last byte is missing, or a whole sector of it."""
    if piece[-1] == 0:
        return True
    edges = range(SECTOR - offset % SECTOR, len(piece), SECTOR)
    starts = [0, *edges]
    return any(not any(piece[a:b]) for a, b in zip(starts, [*edges, len(piece)], strict=True))


def proof_of_damage(segment: bytes | memoryview, offset: int, end: int, seed: int) -> int | None:
    """Where, between `offset` and `end`, a record stands that was written after `offset` had been forced."""
    for place in range(offset + ALIGNMENT, end, ALIGNMENT):
        found = read(segment, place, seed)
        if isinstance(found, Record) and found.forced > offset:
            return place
    return None
