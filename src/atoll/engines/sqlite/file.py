"""SqliteFile: one SQLite file, opened once per process, shared by every handle on it.

A shop with one till, however many doors it has. Stores, brokers, tiers and databases on the same file
use the same writer, so their small writes leave in the same forced write, and the same bell tells all
of them that something was committed, here or in another process.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from atoll import clock
from atoll.engines.sqlite import libraries, place
from atoll.engines.sqlite.bell import Bell
from atoll.engines.sqlite.lane import T, Work
from atoll.engines.sqlite.reader import Reader
from atoll.engines.sqlite.translation import translate
from atoll.engines.sqlite.turnstile import Turnstile
from atoll.engines.sqlite.writer import Writer
from atoll.errors import ConfigurationError, NotSent

if TYPE_CHECKING:
    from atoll.engines.sqlite.watchman import Watchman


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """What a `sqlite:///` URL may say of the file itself."""

    shared_kernel: bool = False
    """The folder looks like a network's, but only this kernel ever opens the file."""
    vfs: str | None = None
    """A VFS registered with apsw; None: the system's."""
    queue_max: int = 10_000
    """Calls that may wait for the file in this process; more are answered Overloaded."""
    ceiling_s: float = 10.0
    """The longest a call may take where no nearer `atoll.deadline` is set."""
    create: bool = True
    """False: only a file and tables that are there already; nothing is made by asking."""


class SqliteFile:
    """Made by `SqliteFile.shared`; given back by `release`. Its verbs work from any event loop."""

    def __init__(self, path: str, options: SqliteOptions) -> None:
        self.path = path
        self.options = options
        self.pid = os.getpid()
        self.before_fork: list[Callable[[], None]] = []
        """Called before this process forks: close the connections lent by `connect` that are idle."""
        self.bell = Bell(lambda: self._writer.nudge())
        self.watchmen: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watchman]
        """Who reads the store's news for each event loop; see watchman.py."""
        self.watchmen = weakref.WeakKeyDictionary()
        self._users = 0
        self._lent: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._checked = False
        self._identity: tuple[int, int] | None = None
        self._writer = Writer(
            path,
            lambda: self._connect(in_turn=True),
            self._new_pass,
            moved=self._moved,
            committed=self.bell.ring,
            watched=lambda: self.bell.waiting > 0,
            queue_max=options.queue_max,
        )
        self._reader = Reader(path, self._connect_reader, moved=self._moved, queue_max=options.queue_max)

    @classmethod
    def shared(cls, path: str, options: SqliteOptions | None = None) -> SqliteFile:
        """The file at `path` for this process; the same object for every handle until it is released."""
        if not path or path == ":memory:":
            raise ConfigurationError(
                f"found the path {path!r} for sqlite://; expected a file, as in sqlite:///state.db. "
                "For a store without a file write memory://."
            )
        if "\0" in path:
            raise ConfigurationError(
                f"found the path {path!r} for sqlite://; expected one without a zero byte."
            )
        real = os.path.realpath(path)
        libraries.refuse_ours(real)
        with _registry_lock:
            if real in _forked_open:
                raise ConfigurationError(
                    f"this process was forked while a transaction was open on {real}, so SQLite's locks "
                    "cannot be trusted here. Fork when no transaction is open, or start a fresh process."
                )
            file = _registry.get(real)
            if file is None or file.failed is not None:
                file = _registry[real] = cls(real, options or SqliteOptions())
            file._users += 1
            return file

    @property
    def failed(self) -> str | None:
        """Why it was closed by itself, None while it works. `shared` then opens it anew."""
        return self._writer.failed

    async def release(self) -> None:
        """Give the file back; the last user closes it, after what was asked so far."""
        if self.pid != os.getpid():
            return
        with _registry_lock:
            self._users -= 1
            if self._users > 0:
                return
            if _registry.get(self.path) is self:
                del _registry[self.path]
        await asyncio.get_running_loop().run_in_executor(None, self._stop)

    async def write(self, work: Work[T], *, forced: bool = True, ceiling_s: float | None = None) -> T:
        """Run `work(connection)` in a write transaction; answer after it was forced to disk.

        `work` runs on the writer's thread, within a SAVEPOINT of its own: what it raises undoes it alone
        and is raised here. It may run twice, so it touches nothing but the connection, and it neither
        commits nor rolls back. `forced=False`: may be lost by a power cut, never by a kill.
        Raises NotSent (never begun), OutcomeUnknown (begun, no answer in time, or a failed fsync),
        DiskFull, ReadOnly, Overloaded. Cancelled while waiting it is dropped; later it may stand.
        """
        return await self._writer.ask(work, forced=forced, ceiling_s=ceiling_s or self.options.ceiling_s)

    async def read(self, work: Work[T], *, ceiling_s: float | None = None) -> T:
        """Run `work(connection)` on one snapshot, taken after this call began. Never blocks a writer."""
        if self.failed is not None:
            raise NotSent(self.failed)
        return await self._reader.ask(work, ceiling_s=ceiling_s or self.options.ceiling_s)

    @property
    def version(self) -> int:
        """A number that rises when something was committed. Note it before you read; see `changed`."""
        return self.bell.number

    async def changed(self, seen: int, wait_s: float | None = None) -> int:
        """Wait until `version` is no longer `seen`, at most `wait_s`; answers the version then.

        Commits through this file's `write` wake at once; others' within about 5 ms. May wake for nothing.
        """
        return await self.bell.wait(seen, wait_s)

    def fail(self, error: Exception) -> None:
        """Close the file for good here: a connection lent by `connect` had its COMMIT refused by the disk."""
        self._writer.failed = (
            f"{self.path} was closed here after the disk failed to take a write ({error}). "
            "Nothing was sent: look at the disk, then close and open the handle again."
        )

    def notify(self) -> None:
        """Say that a connection lent by `connect` has committed, so that nobody waits for the look."""
        self.bell.ring()

    @asynccontextmanager
    async def turn(self, ceiling_s: float | None = None) -> AsyncIterator[Callable[[], None]]:
        """Hold the turn to write this file, for an interactive transaction; others line up behind.

        Raises NotSent when it did not come in time. Take it before BEGIN IMMEDIATE, never around `write`.
        What it gives ends it early, from any thread: right after COMMIT, so that the next one begins.
        """
        left_s = clock.remaining_s(ceiling_s or self.options.ceiling_s)
        try:
            turnstile = self._new_pass()
        except OSError as error:
            raise translate(error, self.path) from error
        if not turnstile.try_acquire():
            await _line_up(turnstile, self.path, left_s)
        try:
            yield turnstile.release
        finally:
            turnstile.release()
            turnstile.close()

    def connect(self) -> apsw.Connection:
        """A connection of the caller's own, set up like ours. Blocks; call it on a thread.

        A process that forks while it is open cannot use the file in the child; see `before_fork`.
        """
        try:
            connection = self._connect(in_turn=False)
        except (apsw.Error, OSError) as error:
            raise translate(error, self.path) from error
        self._lent.add(connection)
        return connection

    def _check(self) -> None:
        if not self._checked:
            place.check_library()
            place.check_folder(self.path, shared_kernel=self.options.shared_kernel)
            if not self.options.create:
                place.check_there(self.path)
            self._checked = True

    def _moved(self) -> str | None:
        """Whether the path names another file now: what we write would be seen by nobody else."""
        if self._identity is None:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            found = "is not there any more"
        else:
            if (status.st_dev, status.st_ino) == self._identity:
                return None
            found = "was replaced by another file"
        return (
            f"{self.path} {found}, while it was open here. Nothing was sent: it would be written to a file "
            "that nobody finds. Put it back, or close and open the handle to begin with what is there now."
        )

    def _new_pass(self) -> Turnstile:
        self._check()
        return Turnstile(self.path)

    def _connect(self, *, in_turn: bool) -> apsw.Connection:
        self._check()
        connection = apsw.Connection(self.path, vfs=self.options.vfs)
        try:
            if self._identity is None and os.path.exists(self.path):  # a VFS of tests may keep it elsewhere
                status = os.stat(self.path)
                self._identity = (status.st_dev, status.st_ino)
            connection.set_busy_timeout(1000)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if connection.pragma("journal_mode") != "wal":
                if not self.options.create:
                    raise NotSent(place.nothing_of_ours(self.path))
                self._switch_to_wal(connection, in_turn=in_turn)
            connection.execute("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA mmap_size=0")
        except BaseException:
            connection.close()
            raise
        return connection

    def _switch_to_wal(self, connection: apsw.Connection, *, in_turn: bool) -> None:
        turnstile = None if in_turn else Turnstile(self.path)
        if turnstile is not None:
            turnstile.acquire()
        try:
            mode = connection.pragma("journal_mode", "wal")
        finally:
            if turnstile is not None:
                turnstile.release()
                turnstile.close()
        if mode != "wal":
            raise ConfigurationError(
                f"found that {self.path} stays in journal mode {mode}; expected wal. Its file system has no "
                "shared memory for it, or another program holds it: name another folder, or close that one."
            )

    def _connect_reader(self) -> apsw.Connection:
        connection = self._connect(in_turn=False)
        connection.execute("PRAGMA query_only=1")
        return connection

    def _stop(self) -> None:
        self._reader.stop()
        self._writer.stop()
        self.bell.ring()

    def _part(self, wait_s: float) -> bool:
        """Before a fork: close every connection. False when one is in use and stays open."""
        for callback in self.before_fork:
            callback()
        for lane in (self._writer, self._reader):
            if not lane.busy.acquire(timeout=wait_s):
                _held_for_fork[lane] = False
                return False
            _held_for_fork[lane] = True
            lane.disconnect()
        return not any(_is_open(connection) for connection in list(self._lent))


def open_paths() -> list[str]:
    """The files this process has open through this layer."""
    with _registry_lock:
        return list(_registry)


def _is_open(connection: apsw.Connection) -> bool:
    try:
        connection.in_transaction  # noqa: B018
    except apsw.ConnectionClosedError:
        return False
    return True


async def _line_up(turnstile: Turnstile, path: str, left_s: float) -> None:
    """Wait for the turn on a thread; a caller who leaves early leaves the thread to give it back."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    lock, left, given = threading.Lock(), threading.Event(), threading.Event()

    def stand() -> None:
        try:
            turnstile.acquire()
        except OSError:
            return  # closed in our back by a fork
        with lock:
            if not left.is_set():
                try:
                    loop.call_soon_threadsafe(_arrive, arrived)
                    given.set()
                    return
                except RuntimeError:
                    pass
        turnstile.release()
        turnstile.close()

    threading.Thread(target=stand, name=f"atoll turn {path}", daemon=True).start()
    try:
        async with asyncio.timeout(max(0.0, left_s)):
            await asyncio.shield(arrived)
    except BaseException as error:
        with lock:
            left.set()
        if given.is_set():  # it came in the very moment in which we left
            turnstile.release()
            turnstile.close()
        if isinstance(error, TimeoutError):
            raise NotSent(
                f"the turn to write {path} did not come within {left_s:.3g} s; nothing was begun. "
                "Another transaction on it is long: make it shorter, or wait longer."
            ) from None
        raise


def _arrive(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_registry: dict[str, SqliteFile] = {}
_registry_lock = threading.RLock()
_forked_open: set[str] = set()
_held_for_fork: dict[Writer | Reader, bool] = {}
_unsafe_for_fork: set[str] = set()
_FORK_WAIT_S = 2.0


def _before_fork() -> None:
    _registry_lock.acquire()
    for file in _registry.values():
        if not file._part(_FORK_WAIT_S):
            _unsafe_for_fork.add(file.path)


def _after_in_parent() -> None:
    for lane, held in _held_for_fork.items():
        if held:
            lane.busy.release()
    _held_for_fork.clear()
    _unsafe_for_fork.clear()
    _registry_lock.release()


def _after_in_child() -> None:
    # A connection cannot cross a fork: the child would believe in locks that only its parent holds.
    global _registry_lock
    _inherited.extend(_registry.values())
    _registry.clear()
    _held_for_fork.clear()
    _forked_open.update(_unsafe_for_fork)
    _unsafe_for_fork.clear()
    _registry_lock = threading.RLock()


_inherited: list[SqliteFile] = []
"""Kept for ever, so that nothing of the parent's is closed, and its locks dropped, by our collector."""


def _at_exit() -> None:
    for file in list(_registry.values()):
        file._reader.stop(1.0)
        file._writer.stop(1.0)


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
atexit.register(_at_exit)
