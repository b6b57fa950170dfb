"""What the tests of a Raft member's disk share: entries, a log to write, and the log as a plain list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atoll.algorithms.raft.events import Write
from atoll.algorithms.raft.messages import Entry, Kind, Snapshot
from atoll.engines.raft import command
from atoll.engines.raft.log_opening import Owner, open_log
from atoll.engines.raft.wal import Log, LogOptions

ME = Owner("cluster-1", "a")
SMALL = LogOptions(segment_bytes=8192, cache_bytes=256, force=lambda descriptor: None)
"""Segments of a few entries, so that a short test sees many of them; for tests of bytes, not of disks."""


def entry(index: int, term: int = 1, *, size: int = 60) -> Entry:
    """An entry whose data name it."""
    return Entry(term, index, Kind.COMMAND, (b"%d/%d " % (term, index)).ljust(size, b"."), 7, index)


def put(index: int, key: str, value: bytes, *, term: int = 1, client: int = 0) -> Entry:
    """An entry that puts one key, at the hour of its index."""
    packed = command.pack([command.Transact(((key, value, None),))])
    return Entry(
        term, index, Kind.COMMAND, command.stamp(packed, 1e9 + index), client, index if client else 0
    )


def opened(folder: Path, options: LogOptions = SMALL, snapshot: Snapshot | None = None) -> Log:
    return open_log(folder, ME, snapshot=snapshot, options=options)


def wrote(log: Log, *entries: Entry, term: int = 0, vote: str = "") -> None:
    """Write and force."""
    newest = max([term, log.term_and_vote[0], *(one.term for one in entries)])
    log.append([Write(1, newest, vote or log.term_and_vote[1], tuple(entries))])
    log.sync()


def all_of(log: Log) -> list[Entry]:
    """Every entry, read in pieces."""
    found: list[Entry] = []
    while log.first + len(found) <= log.last:
        found += log.entries(log.first + len(found), log.last + 1, 400)
    return found


def newest_segment(folder: Path) -> Path:
    return sorted(folder.glob("*.log"))[-1]


def ends(log: Log) -> list[int]:
    """Where each record of the newest segment begins, and where the last one ends."""
    span = log._index.spans[-1]
    return [*span.places, span.end]


def refused(error: Any, *words: str) -> None:
    """A refusal says which file, and what to do."""
    text = str(error)
    assert "found" in text and all(word in text for word in words), text
