"""Data folder: everything that one member keeps on its disk, opened together so that its parts agree.

A locked filing cabinet with one key: whose it is, the ledger, the fair copy, the photographs. Whoever opens
it checks that the copy does not know of a line that the ledger lost.
"""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from atoll.algorithms.raft.events import StoreChunk
from atoll.algorithms.raft.messages import Entry, Index, Member, Membership, Snapshot
from atoll.engines.raft import files
from atoll.engines.raft.log_opening import Owner, open_log
from atoll.engines.raft.segment import REMEDY
from atoll.engines.raft.snapshots import Snapshots
from atoll.engines.raft.state import DAMAGED, State
from atoll.engines.raft.wal import Log, LogOptions
from atoll.errors import ConfigurationError, DiskFull, FormatRefused

log = logging.getLogger("atoll.raft")
MAGIC = b"ATOLLRAFTWHO"
FORMAT = 1
_DATABASE = ".db"


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Who this folder is: the cluster, the member, and who was a member when it was made."""

    cluster: str
    member: Member
    bootstrap: Membership = Membership(())
    """Empty for one that joined a cluster that was there."""
    incarnation: str = ""
    """A new one each time a folder is made: tells a wiped member from itself before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    """How the parts are opened. `force` is how a descriptor is forced; a test puts a failing disk there."""

    log: LogOptions = field(default_factory=LogOptions)
    vfs: str | None = None

    @property
    def force(self) -> Callable[[int], None]:
        return self.log.force


class DataFolder:
    """One member's folder, held by one process. Everything here blocks; nothing here knows an event loop.

    `identity` is None in a new folder, and in one that was wiped: whether that is allowed, the caller decides
    by what the cluster knows. After `load`: `log` (the disk's thread), `state` (that of apply), `snapshots`.
    """

    def __init__(self, path: Path, options: FolderOptions | None = None) -> None:
        self.path = path.absolute()
        self.options = options or FolderOptions()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"found that {self.path} cannot be used as a data folder ({error.strerror}); expected one "
                "that may be written. Correct its permissions, or name another."
            ) from error
        self._take()
        try:
            self.identity = self._who()
        except BaseException:
            os.close(self._lock)
            raise

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 100, 0).decode(errors="replace").strip() or "another process"
            os.close(self._lock)
            raise ConfigurationError(
                f"found that {self.path} is in use by {holder}; expected one process to a data folder. Stop "
                "that one, or give this member a folder of its own."
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"pid {os.getpid()}".encode(), 0)

    # -- who it is -------------------------------------------------------------------------------------

    def establish(self, identity: Identity) -> None:
        """Write once, durably, who this folder is. ConfigurationError where it is somebody already."""
        if self.identity is not None:
            raise ConfigurationError(
                f"found that {self.path} is member {self.identity.member!r} of cluster "
                f"{self.identity.cluster}; expected an empty folder. Name another one."
            )
        body = msgspec.msgpack.encode(identity)
        head = MAGIC + FORMAT.to_bytes(4, "little")
        fresh = self.path / "identity.new"
        whole = head + zlib.crc32(head + body).to_bytes(4, "little") + body
        files.write_whole(fresh, [whole], self.options.force)
        os.rename(fresh, self.path / "identity")
        files.force_folder(self.path, self.options.force)
        files.force_folder(self.path.parent, self.options.force)
        self.identity = identity

    def _who(self) -> Identity | None:
        path = self.path / "identity"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if (found := self._leftovers()) is not None:
                raise FormatRefused(
                    f"found {found} and no file `identity` beside it: the folder was wiped in part. {REMEDY}"
                ) from None
            return None
        place = len(MAGIC) + 4
        number = int.from_bytes(data[len(MAGIC) : place], "little")
        if data[: len(MAGIC)] == MAGIC and number > FORMAT:
            raise FormatRefused(
                f"found format {number} of {path}; this Atoll reads up to {FORMAT}. It was written by a "
                "newer one: upgrade here too."
            )
        check, body = data[place : place + 4], data[place + 4 :]
        if data[: len(MAGIC)] != MAGIC or zlib.crc32(data[:place] + body).to_bytes(4, "little") != check:
            raise FormatRefused(f"found that {path} is damaged or not Atoll's. {REMEDY}")
        return msgspec.msgpack.decode(body, type=Identity)

    def _leftovers(self) -> Path | None:
        for name in ("log", "state", "snapshots"):
            folder = self.path / name
            if folder.is_dir() and (found := next(folder.iterdir(), None)) is not None:
                return found
        return None

    # -- opening ---------------------------------------------------------------------------------------

    def load(self) -> None:
        """Open log, state and snapshots, and make them agree.

        FormatRefused where they cannot be believed, DiskFull or ConfigurationError where the disk says no.
        """
        try:
            self._load()
        except OSError as error:
            if error.errno in files.NO_ROOM:
                raise DiskFull(
                    f"no room in {self.path} to open it ({error.strerror}); what it holds is unharmed. Free "
                    "space there, then start this member again."
                ) from error
            raise ConfigurationError(
                f"found that {self.path} cannot be read and forced to disk ({error}); expected a disk "
                "that does both. Look at the disk and the permissions, then start this member again."
            ) from error

    def _load(self) -> None:
        assert self.identity is not None, "load before establish"
        owner = Owner(self.identity.cluster, self.identity.member)
        self.snapshots = Snapshots(self.path / "snapshots", owner.cluster, force=self.options.force)
        newest = self.snapshots.newest()
        self.log: Log = open_log(self.path / "log", owner, snapshot=newest, options=self.options.log)
        try:
            self.state = self._load_state(newest)
            self._check_agreement()
        except BaseException:
            self.log.close()
            raise
        files.force_folder(self.path, self.options.force)

    def _load_state(self, newest: Snapshot | None) -> State:
        """The state's file, or where it is behind the log's first entry or cannot be read, a new one."""
        folder = self.path / "state"
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*.new*"):
            path.unlink()
        files = sorted(folder.glob(f"*{_DATABASE}"))
        for path in files[:-1]:
            _remove_database(path)
        path = files[-1] if files else folder / f"{0:016x}{_DATABASE}"
        try:
            state = State(path, vfs=self.options.vfs)
        except FormatRefused as error:
            if not isinstance(error.__cause__, DAMAGED):
                raise
            log.warning("the state of %s is made anew from snapshot and log: %s", self.path, error)
            _remove_database(path)
            state = State(folder / f"{0:016x}{_DATABASE}", vfs=self.options.vfs)
        if newest is not None and state.applied < newest.index:
            self._install(state, newest)
        return state

    def _check_agreement(self) -> None:
        applied, last = self.state.applied, self.log.last
        known = self.log.term(applied)
        if applied > last or (known is not None and applied and known != self.state.applied_term):
            self.state.close()
            raise FormatRefused(
                f"found that the state in {self.path} has applied entry {applied} of term "
                f"{self.state.applied_term}, and the log ends at {last}"
                + (f", with term {known} at {applied}" if known is not None else "")
                + f": the log has lost what was promised. {REMEDY}"
            )

    # -- at work ---------------------------------------------------------------------------------------

    @property
    def applied(self) -> Index:
        """The newest entry applied."""
        return self.state.applied

    def apply(self, entries: Sequence[Entry]) -> list[bytes]:
        """See State.apply."""
        return self.state.apply(entries)

    def make_snapshot(self) -> Snapshot:
        """A durable snapshot of the state as it is now, with the membership that belongs to it.

        Apply may go on. Then `log.note`, `log.compact`, `log.show`.
        """
        assert self.identity is not None
        return self.snapshots.make(self.state, self.identity.bootstrap)

    def read_chunk(self, snapshot: Snapshot, offset: int, bytes_max: int) -> tuple[bytes, bool]:
        """See Snapshots.read."""
        return self.snapshots.read(snapshot, offset, bytes_max)

    def store_chunk(self, chunk: StoreChunk) -> tuple[int, bool]:
        """Keep a piece; bytes here, and whether the whole is durable and is the state now.

        On the thread of `apply`. Then, on the disk's, `log.begin_anew`; then `log.show`.
        """
        here, whole = self.snapshots.store(chunk)
        if whole and self.state.applied < chunk.snapshot.index:
            self._install(self.state, chunk.snapshot)
        return here, whole

    def _install(self, state: State, snapshot: Snapshot) -> None:
        """Let `state` go on with a file of its own that holds what `snapshot` holds; the old one goes."""
        old = state.path
        path = old.parent / f"{snapshot.index:016x}{_DATABASE}"
        fresh = path.with_suffix(".new")
        self.snapshots.unpack(snapshot, fresh)
        assert path != old, "the state is behind the snapshot that it came from"
        os.rename(fresh, path)
        files.force_folder(path.parent, self.options.force)
        state.replace(path)
        _remove_database(old)

    def close(self) -> None:
        """Close everything and let the folder go."""
        for part in ("state", "log"):
            if hasattr(self, part):
                getattr(self, part).close()
        os.close(self._lock)


def _remove_database(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
