"""Segment: one file of the write-ahead log, and what its first block says.

A bound volume. On its cover stand whose ledger it is, which volume, and where the one before it ended, so a
missing volume or a short one is noticed. A volume gets its name only when its cover is finished.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from atoll import clock
from atoll.engines.raft import files
from atoll.errors import FormatRefused

MAGIC = b"ATOLLRAFTLOG"
FORMAT = 1
BLOCK = 4096
"""The cover takes one block; records begin behind it."""
SUFFIX = ".log"
REMEDY = (
    "Do not mend it by hand: this member may have lost what it had promised. Remove it from the cluster "
    "(atoll cluster remove), empty its folder, and add it again under a new name."
)


class Cover(msgspec.Struct, frozen=True, array_like=True):
    """The first block of a segment."""

    cluster: str
    member: str
    number: int
    salt: int
    before_index: int
    """The entry before the first that may stand here, and its term."""
    before_term: int
    term: int
    vote: str
    """The hard state when the segment began."""
    before_end: int
    """Where the segment before ended; 0: there was none, or it does not count."""
    anew: bool = False
    """The log begins anew here, behind a snapshot; what stands in older segments is void."""


def path_of(folder: Path, number: int) -> Path:
    """Where segment `number` is."""
    return folder / f"{number:016x}{SUFFIX}"


def salt() -> int:
    """Makes two segments of one number differ."""
    return clock.chance().getrandbits(32)


def pack_cover(cover: Cover) -> bytes:
    """The cover as a block: name, format, length, check, and the rest."""
    body = msgspec.msgpack.encode(cover)
    head = MAGIC + FORMAT.to_bytes(4, "little") + len(body).to_bytes(4, "little")
    block = head + zlib.crc32(head + body).to_bytes(4, "little") + body
    if len(block) > BLOCK:
        raise FormatRefused(f"found names of {len(body)} bytes for a member's log; expected at most {BLOCK}.")
    return block.ljust(BLOCK, b"\0")


def read_cover(block: bytes, path: Path) -> Cover:
    """The cover in `block`; FormatRefused where it is of the future, of something else, or damaged."""
    if block[: len(MAGIC)] != MAGIC:
        raise FormatRefused(f"found that {path} is no segment of a Raft log, or is damaged. {REMEDY}")
    place = len(MAGIC)
    number, length, check = (
        int.from_bytes(block[n : n + 4], "little") for n in (place, place + 4, place + 8)
    )
    if number > FORMAT:
        raise FormatRefused(
            f"found format {number} of the log in {path}; this Atoll reads up to {FORMAT}. It was written by "
            "a newer one: upgrade here too."
        )
    body = block[place + 12 : place + 12 + length]
    if number < 1 or len(body) < length or zlib.crc32(block[: place + 8] + body) != check:
        raise FormatRefused(f"found the first block of {path} damaged. {REMEDY}")
    return msgspec.msgpack.decode(body, type=Cover)


def create(folder: Path, cover: Cover, size: int, force: Callable[[int], None]) -> int:
    """Make a segment of `size` bytes, forced with its name; answers its descriptor."""
    path = path_of(folder, cover.number)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        files.reserve(descriptor, size)
        files.write(descriptor, pack_cover(cover), 0)
        force(descriptor)
        os.rename(fresh, path)
        files.force_folder(folder, force)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def numbers(folder: Path) -> list[int]:
    """The segments in `folder`, oldest first; unfinished ones are swept away."""
    found = []
    for path in folder.iterdir():
        if path.suffix == ".new":
            path.unlink()
        elif path.suffix == SUFFIX:
            with contextlib.suppress(ValueError):
                found.append(int(path.stem, 16))
    return sorted(found)
