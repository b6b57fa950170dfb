"""Examining: what a file, its folder and its SQLite mean for what is kept in it.

The surveyor walks round the house: what ground it stands on, who has keys, how full the cellar is. He
touches nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from atoll.engines.sqlite import ledger, place
from atoll.ports.examining import Finding, Weight, heaviest_first

if TYPE_CHECKING:
    from atoll.engines.sqlite.store import SqliteStore

FREE_MIN = 256 << 20
WAL_LONG = 64 << 20
# WAL-reset bug: present from the first WAL to 3.51.2, mended in 3.51.3 and in these two older branches.
_MENDED = {(3, 44, 6), (3, 50, 7)}


class Seen(NamedTuple):
    """What the open connection says."""

    journal_mode: str
    synchronous: int
    entries: int
    leases: int
    pages: int
    page_size: int


class SqliteExamining:
    """Looks at the file of a store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def examine(self) -> Sequence[Finding]:
        await self._store.open()
        seen = await self._store.read(_see)
        path = self._store.path
        found = [
            of_file_system(path, shared_kernel=self._store.options.shared_kernel),
            of_journal(seen.journal_mode, seen.synchronous),
            of_version("SQLite inside Atoll (apsw)", apsw.sqlite_lib_version()),
            of_version("SQLite of Python (sqlite3)", sqlite3.sqlite_version),
            of_space(path),
            of_owner(path),
            of_log(path),
            of_size(seen),
            _WHO_ELSE,
            _EPOCH,
        ]
        return heaviest_first(found)

    async def damage(self) -> Sequence[str]:
        """SQLite's own check of the whole file, and the store's two books against each other."""
        await self._store.open()
        return await self._store.read(_damage)


def _damage(connection: apsw.Connection) -> list[str]:
    lines = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
    found = [f"SQLite's integrity_check says: {line}." for line in lines if line != "ok"]
    newest = ledger.revision(connection)
    for key, revision in connection.execute(
        "SELECT key, revision FROM atoll_entry WHERE revision > ? LIMIT 20", (newest,)
    ):
        found.append(f"{key!r} has revision {revision}, and the newest transaction is {newest}.")
    for key, lease in connection.execute(
        "SELECT key, lease FROM atoll_entry WHERE lease IS NOT NULL AND lease NOT IN "
        "(SELECT id FROM atoll_lease) LIMIT 20"
    ):
        found.append(f"{key!r} stands under lease {lease}, which is not in the book of leases.")
    return found


def _see(connection: apsw.Connection) -> Seen:
    def one(sql: str) -> Any:
        return connection.execute(sql).get

    return Seen(
        journal_mode=str(connection.pragma("journal_mode")),
        synchronous=int(connection.pragma("synchronous")),
        entries=int(one("SELECT count(*) FROM atoll_entry")),
        leases=int(one("SELECT count(*) FROM atoll_lease")),
        pages=int(connection.pragma("page_count")),
        page_size=int(connection.pragma("page_size")),
    )


def of_file_system(path: str, *, shared_kernel: bool) -> Finding:
    """Whether other machines may see the file, but not its locks."""
    kind = place.file_system(os.path.dirname(path))
    if place.networked(kind):
        return Finding(
            setting="file system",
            value=f"{kind}, opened with shared_kernel={shared_kernel}",
            weight=Weight.COSTS,
            cost="Other machines can see this file but not its locks: two of them writing damage it.",
            fix="Put the file on a local disk. shared_kernel=true is right only if one kernel opens it.",
        )
    volatile = kind in ("tmpfs", "ramfs")
    return Finding(
        setting="file system",
        value=kind or "unknown",
        weight=Weight.COSTS if volatile else Weight.FINE,
        cost="It is memory: nothing in it survives a restart of the machine."
        if volatile
        else "A local disk: every process of this machine sees the same locks.",
        fix="Put the file on a disk." if volatile else "",
    )


def of_journal(mode: str, synchronous: int) -> Finding:
    """Whether an acknowledged write is on the disk."""
    good = mode == "wal" and synchronous >= 2
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return Finding(
        setting="journal_mode, synchronous",
        value=f"{mode}, {names.get(synchronous, synchronous)}",
        weight=Weight.FINE if good else Weight.BREAKS,
        cost="Every answered write was forced to the disk first."
        if good
        else "An answered write may be gone after a power cut.",
        fix="" if good else "Remove what sets another mode; Atoll opens its files with wal and FULL.",
    )


def of_version(setting: str, version: str) -> Finding:
    """Whether this SQLite can lose pages when two connections reset the log at once."""
    number = tuple(int(part) for part in version.split(".")[:3])
    safe = number >= place.SQLITE_MIN or number in _MENDED or number < (3, 7, 0)
    return Finding(
        setting=setting,
        value=version,
        weight=Weight.FINE if safe else Weight.NOTE,
        cost="Without the fault that can damage a file when two connections start its log anew."
        if safe
        else "A program that writes this file with it can, very rarely, damage it: two connections that "
        "start the log anew at the same moment (3.7.0 to 3.51.2). Atoll brings a mended one for itself.",
        fix="" if safe else "Let other programs only read this file, or give them SQLite 3.51.3 or newer.",
    )


def of_space(path: str) -> Finding:
    """How much may still be written."""
    free = shutil.disk_usage(os.path.dirname(path)).free
    low = free < FREE_MIN
    return Finding(
        setting="free disk",
        value=_size(free),
        weight=Weight.COSTS if low else Weight.FINE,
        cost="A full disk refuses every write with DiskFull; nothing that stands is harmed.",
        fix=f"Free space on the file system of {os.path.dirname(path)}." if low else "",
    )


def of_owner(path: str) -> Finding:
    """Who may open the file, and whether that is us."""
    status = os.stat(path)
    mode = status.st_mode & 0o777
    mine = not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)
    open_to_all = bool(mode & 0o002)
    return Finding(
        setting="owner and mode",
        value=f"uid {status.st_uid}, {mode:04o}",
        weight=Weight.FINE if mine and not open_to_all else Weight.NOTE,
        cost="Every user of this machine may write it, and so take every lock in it."
        if open_to_all
        else "Processes of other users need the file, its -wal and -shm, and the folder writable.",
        fix=f"chmod 660 {path}" if open_to_all else "",
    )


def of_log(path: str) -> Finding:
    """Whether the log beside the file is copied back."""
    try:
        size = os.stat(f"{path}-wal").st_size
    except OSError:
        size = 0
    long = size > WAL_LONG
    return Finding(
        setting="-wal",
        value=_size(size),
        weight=Weight.COSTS if long else Weight.FINE,
        cost="The log is long: a reader somewhere holds an old snapshot open, so it cannot be copied back."
        if long
        else "The log is copied back into the file as it grows.",
        fix=f"Find the long reader (fuser {path}) and end its transaction." if long else "",
    )


def of_size(seen: Seen) -> Finding:
    """What is in it."""
    return Finding(
        setting="contents",
        value=f"{seen.entries} entries, {seen.leases} leases, {_size(seen.pages * seen.page_size)}",
        weight=Weight.FINE,
        cost=f"Format {ledger.FORMAT} of the store's tables.",
    )


_WHO_ELSE = Finding(
    setting="other libraries",
    value="cannot be seen from here",
    weight=Weight.NOTE,
    cost="Two SQLite libraries in one process drop each other's locks on a file; Atoll refuses what it sees.",
    fix="Open this file through atoll only, or keep your own tables in another file.",
)
_EPOCH = Finding(
    setting="epoch",
    value="a row in the file",
    weight=Weight.NOTE,
    cost="A file that was copied back over itself cannot be told from the one before: its tokens may repeat.",
    fix="After restoring a file: atoll store bump sqlite:///PATH",
)


def _size(count: int) -> str:
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} bytes"
