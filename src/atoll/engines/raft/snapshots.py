"""Snapshots: the state as one file, made while the log goes on, sent in pieces, checked before it counts.

A photograph of the fair copy. It is developed in the dark, and hung up only when it is dry; a print that
comes by post in pieces is held against its seal before the old copy is thrown away.

Source: Ongaro (2014), chapter 5. Departure: the body is a SQLite file, and the client sessions lie in it;
the membership is in the header too. Pieces stay through a restart, so sending goes on where it was.
"""

from __future__ import annotations

import itertools
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from atoll.algorithms.raft.events import StoreChunk
from atoll.algorithms.raft.messages import Index, Membership, Snapshot, Term
from atoll.engines.raft import files
from atoll.engines.raft.state import State
from atoll.errors import DiskFull, FormatRefused, NotReady, OutcomeUnknown

MAGIC = b"ATOLLRAFTSNP"
FORMAT = 1
SUFFIX, PART, FRESH = ".snapshot", ".part", ".fresh"
KEPT = 2
"""The newest, and the one before it, which may be on its way to somebody."""
_FIXED = len(MAGIC) + 12
_HEADER_MAX = 1 << 16


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the body."""

    cluster: str
    index: Index
    term: Term
    membership: Membership
    body_bytes: int
    body_crc: int


class _File(NamedTuple):
    path: Path
    header: Header
    begins: int
    """Where the body begins."""

    @property
    def snapshot(self) -> Snapshot:
        header = self.header
        return Snapshot(header.index, header.term, header.membership, self.begins + header.body_bytes)


class Snapshots:
    """One member's snapshots, in a folder of their own. `newest` and `read` may be asked from any thread."""

    def __init__(self, folder: Path, cluster: str, *, force: Callable[[int], None] = files.force) -> None:
        self.folder = folder
        self._cluster = cluster
        self._force = force
        self._lock = threading.Lock()
        self._making = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._files: list[_File] = []
        for path in sorted(folder.iterdir()):
            if path.suffix == SUFFIX:
                self._files.append(self._opened(path))
            elif path.suffix != PART:
                path.unlink()
        self._files.sort(key=lambda file: file.header.index)
        if self._files:  # whoever gave them their names may have been killed before those were forced
            files.force_folder(folder, force)

    # -- having ----------------------------------------------------------------------------------------

    def newest(self) -> Snapshot | None:
        """The newest one that is whole and durable."""
        return self._files[-1].snapshot if self._files else None

    def read(self, snapshot: Snapshot, offset: int, bytes_max: int) -> tuple[bytes, bool]:
        """A piece from `offset` on, and whether it is the last. LookupError where it is not here any more."""
        file = self._find(snapshot)
        try:
            with open(file.path, "rb") as body:
                body.seek(offset)
                data = body.read(bytes_max)
        except FileNotFoundError:
            raise LookupError(f"the snapshot at {snapshot.index} was replaced by a newer one") from None
        return data, offset + len(data) >= file.snapshot.size

    def _find(self, snapshot: Snapshot) -> _File:
        for file in self._files:
            if file.snapshot == snapshot:
                return file
        raise LookupError(f"there is no snapshot at {snapshot.index} of term {snapshot.term} here")

    # -- making ----------------------------------------------------------------------------------------

    def make(self, state: State, bootstrap: Membership) -> Snapshot:
        """Keep the state as it is now; `apply` goes on meanwhile. Durable when it returns.

        Raises DiskFull or OutcomeUnknown, and NotReady on one that has joined and has not yet read who the
        members are; what was there before is unharmed. One at a time is made.
        """
        with self._making:
            return self._make(state, bootstrap)

    def _make(self, state: State, bootstrap: Membership) -> Snapshot:
        body = self.folder / f"body{FRESH}"
        whole = self.folder / f"whole{FRESH}"
        try:
            body.unlink(missing_ok=True)
            state.copy_to(body)
            index, term, membership = _kept_in(body)
            if (newest := self.newest()) is not None and newest.index >= index:
                return newest
            path = self.folder / f"{index:016x}-{term:x}{SUFFIX}"
            membership = membership or (newest.membership if newest is not None else bootstrap)
            if not membership.voters:
                raise NotReady(
                    f"found nobody named as a member up to entry {index}; expected the list that a snapshot "
                    "carries. This member has just joined: ask again when it has read further."
                )
            self._wrap(body, whole, Header(self._cluster, index, term, membership, 0, 0))
            made = self._hang_up(whole, path)
        except OSError as error:
            raise _failed(error, self.folder, "made") from error
        finally:
            body.unlink(missing_ok=True)
            whole.unlink(missing_ok=True)
        return made

    def _wrap(self, body: Path, whole: Path, header: Header) -> None:
        """Header and body as one file, forced."""
        check, size = _sum(body)
        head = pack_header(msgspec.structs.replace(header, body_bytes=size, body_crc=check))
        files.write_whole(whole, itertools.chain([head], files.read_pieces(body)), self._force)

    def _hang_up(self, whole: Path, path: Path) -> Snapshot:
        """Give a forced file its name, durably; take the older ones away."""
        os.rename(whole, path)
        files.force_folder(self.folder, self._force)
        made = self._opened(path)
        with self._lock:  # one may be made while another is received
            mine = [file for file in self._files if file.path != path] + [made]
            mine.sort(key=lambda file: file.header.index)
            self._files, old = mine[-KEPT:], mine[:-KEPT]
        for file in old:
            file.path.unlink(missing_ok=True)
        return made.snapshot

    # -- receiving -------------------------------------------------------------------------------------

    def store(self, chunk: StoreChunk) -> tuple[int, bool]:
        """Keep a piece; how many bytes are here, and whether the snapshot is whole, true and durable now.

        A piece at 0 begins anew: another leader's body may differ. One that does not join what is here is
        answered with what is here; a whole that is not true to its seal is thrown away, and 0 is here. Raises
        DiskFull or OutcomeUnknown.
        """
        snapshot = chunk.snapshot
        if any(file.snapshot == snapshot for file in self._files):
            return snapshot.size, True
        path = self.folder / f"{snapshot.index:016x}-{snapshot.term:x}-{snapshot.size:x}{PART}"
        try:
            here = path.stat().st_size if path.exists() else 0
            joins = chunk.offset in (0, here) or (chunk.done and chunk.offset < here)
            if not joins or chunk.offset + len(chunk.data) > snapshot.size:
                return min(here, snapshot.size), False
            if here == 0:
                self._sweep_parts()
            self._add(path, chunk)
            here = chunk.offset + len(chunk.data)
            if not chunk.done:
                return here, False
            if not self._true(path, snapshot):
                path.unlink()
                return 0, False
            self._hang_up(path, self.folder / f"{snapshot.index:016x}-{snapshot.term:x}{SUFFIX}")
        except OSError as error:
            raise _failed(error, self.folder, "received") from error
        return here, True

    def _add(self, path: Path, chunk: StoreChunk) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, chunk.offset)
            files.write(descriptor, chunk.data, chunk.offset)
            self._force(descriptor)
        finally:
            os.close(descriptor)

    def _true(self, path: Path, snapshot: Snapshot) -> bool:
        try:
            file = self._opened(path)
        except FormatRefused:
            return False
        return file.snapshot == snapshot and self._sealed(file)

    def _sweep_parts(self) -> None:
        for path in self.folder.glob(f"*{PART}"):
            path.unlink()

    # -- believing -------------------------------------------------------------------------------------

    def unpack(self, snapshot: Snapshot, target: Path) -> None:
        """Write the body to `target`, forced. FormatRefused where it is not true to its seal."""
        file = self._find(snapshot)
        if not self._sealed(file):
            raise FormatRefused(
                f"found that {file.path} is not as it was written. Remove this member from the cluster, "
                "empty its folder, and add it again under a new name."
            )
        try:
            files.write_whole(target, files.read_pieces(file.path, file.begins), self._force)
        except OSError as error:
            raise _failed(error, self.folder, "unpacked") from error

    def _sealed(self, file: _File) -> bool:
        return _sum(file.path, file.begins) == (file.header.body_crc, file.header.body_bytes)

    def _opened(self, path: Path) -> _File:
        with open(path, "rb") as source:
            head = source.read(_FIXED + _HEADER_MAX)
        header, begins = read_header(head, path)
        if header.cluster != self._cluster:
            raise FormatRefused(
                f"found that {path} is a snapshot of cluster {header.cluster}; expected {self._cluster}. "
                "Each member has a data folder of its own: name the right one."
            )
        return _File(path, header, begins)


def pack_header(header: Header) -> bytes:
    """Name, format, length, check, and the rest."""
    body = msgspec.msgpack.encode(header)
    head = MAGIC + FORMAT.to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return head + zlib.crc32(head + body).to_bytes(4, "little") + body


def read_header(head: bytes, path: Path) -> tuple[Header, int]:
    """The header, and where the body begins; FormatRefused where it is of the future or no snapshot."""
    if head[: len(MAGIC)] != MAGIC:
        raise FormatRefused(f"found that {path} is no snapshot of a Raft state. Take it away.")
    place = len(MAGIC)
    number, length, check = (int.from_bytes(head[n : n + 4], "little") for n in range(place, place + 12, 4))
    if number > FORMAT:
        raise FormatRefused(
            f"found format {number} of the snapshot {path}; this Atoll reads up to {FORMAT}. It was written "
            "by a newer one: upgrade here too."
        )
    body = head[_FIXED : _FIXED + length]
    if number < 1 or len(body) < length or zlib.crc32(head[: place + 8] + body) != check:
        raise FormatRefused(f"found the header of the snapshot {path} damaged. Take the file away.")
    return msgspec.msgpack.decode(body, type=Header), _FIXED + length


def _sum(path: Path, begins: int = 0) -> tuple[int, int]:
    """Check and length of what stands in a file from `begins` on."""
    check = size = 0
    for piece in files.read_pieces(path, begins):
        check, size = zlib.crc32(piece, check), size + len(piece)
    return check, size


def _kept_in(body: Path) -> tuple[Index, Term, Membership | None]:
    connection = apsw.Connection(str(body), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        index, term, packed = connection.execute("SELECT applied, term, membership FROM atoll_raft").get
    finally:
        connection.close()
    return index, term, None if packed is None else msgspec.msgpack.decode(packed, type=Membership)


def _failed(error: OSError, folder: Path, what: str) -> DiskFull | OutcomeUnknown:
    if error.errno in files.NO_ROOM:
        return DiskFull(f"no room for a snapshot in {folder} ({error.strerror}); nothing else was harmed.")
    return OutcomeUnknown(f"a snapshot in {folder} could not be {what} ({error}). Look at the disk.")
