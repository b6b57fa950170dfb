"""State: what the log's commands have made of the store, in a SQLite file that may lag and never lies.

A clerk who keeps the fair copy of a ledger. The minutes of the meeting (the log) are what counts; each
evening he notes in the copy up to which minute it goes. If a fire takes the last evenings, he copies them out
again.

Why no write here is forced: a batch of entries and the index of the last one are one SQLite transaction, and
in WAL mode a power cut leaves all transactions up to some moment and none after it. The entries behind that
moment are durable in the log before they are applied here, and stay there until a forced snapshot has them;
they are applied again, with the same results. So the state is never ahead of the log, and never between two
entries.

Source: Ongaro (2014), sections 5.3 (disk-based state machines) and 6.3 (exactly once).
Departure: no clock and no dice. The hour comes with each command, from the leader, and never goes back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import apsw

from atoll.algorithms.raft import membership
from atoll.algorithms.raft.messages import Entry as LogEntry
from atoll.algorithms.raft.messages import Index, Kind, Membership, Term
from atoll.engines.parts.notices import Notice
from atoll.engines.parts.pages import Page
from atoll.engines.raft import command, state_schema
from atoll.engines.raft.checkpoints import Checkpoints
from atoll.engines.raft.state_writing import Book, Judge
from atoll.engines.sqlite import history, ledger
from atoll.engines.sqlite.translation import DISK, translate
from atoll.errors import FormatRefused, NotSent
from atoll.ports.register import Got
from atoll.ports.store import Ranged

log = logging.getLogger("atoll.raft")
T = TypeVar("T")
Result = bytes
"""Packed receipts of one entry; empty for an entry that is no command."""
DAMAGED = (apsw.NotADBError, apsw.CorruptError)
FATAL = (*DISK, OSError, MemoryError, apsw.NoMemError)
"""What no command can be blamed for: it would not happen on every member."""


class State:
    """The state of one member. `apply` belongs to one thread; everything else may be asked from any.

    `failed`: why the file is closed for good, None while it works. Then `apply` raises, and the member stops.
    """

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        self.path = path
        self.failed: str | None = None
        self.on_commit: list[Callable[[Notice], None]] = []
        """Called on the thread of `apply`, after a batch that changed the store was committed."""
        self.on_leases: list[Callable[[dict[str, float | None]], None]] = []
        """The same, after a batch that granted or ended leases: the time granted, None for one that ended."""
        self._vfs = vfs
        self._free: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._connection = self._connect()
        with self._translated():
            with self._connection:
                state_schema.ensure(self._connection)
            self._book = Book(self._connection)
        self._pages = 0
        self._checkpoints = Checkpoints(self._connect, self._checkpoint_failed)
        self._connection.set_wal_hook(self._note_pages)

    # -- writing ---------------------------------------------------------------------------------------

    def apply(self, entries: Sequence[LogEntry]) -> list[Result]:
        """Apply committed entries as one SQLite transaction; one packed result each, in order.

        Entries that were applied before are passed over, with an empty result. A command that raises has an
        `Error` as its result and changes nothing. Raises, and is dead from then on, when the disk fails.
        """
        if self.failed is not None:
            raise NotSent(self.failed)
        before = self._book.revision
        with self._translated():
            try:
                results = self._apply(entries, guarded=False)
            except FATAL:
                raise
            except Exception as error:
                log.warning(
                    "a command raised in the state at %s: %r; its error is its result", self.path, error
                )
                results = self._apply(entries, guarded=True)
        if self.on_commit and self._book.revision != before:
            told = Notice(before, self._book.revision, self._book.lines())
            for callback in self.on_commit:
                callback(told)
        if self._book.lease_news:
            for changed in self.on_leases:
                changed(self._book.lease_news)
        return results

    def _apply(self, entries: Sequence[LogEntry], *, guarded: bool) -> list[Result]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._book.begin()
            results = [self._one(entry, guarded) for entry in entries]
            self._book.finish()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._book.reload()
            raise
        self._book.settle()
        self._checkpoints.committed(self._pages)
        return results

    def _one(self, entry: LogEntry, guarded: bool) -> Result:
        book = self._book
        if entry.index <= book.applied:
            return b""
        assert entry.index == book.applied + 1, (entry.index, book.applied)
        book.applied, book.term = entry.index, entry.term
        if entry.kind == Kind.COMMAND:
            return self._guarded(entry) if guarded else book.command(entry)
        if entry.kind == Kind.MEMBERSHIP:
            book.member(membership.unpack(entry.data))
        return b""

    def _guarded(self, entry: LogEntry) -> Result:
        """One command within a savepoint; what it raises becomes its result."""
        self._book.flush()
        kept = self._book.kept()
        self._connection.execute("SAVEPOINT command")
        try:
            result = self._book.command(entry)
            self._book.flush()
        except FATAL:
            raise
        except Exception as error:
            self._connection.execute("ROLLBACK TO command")
            self._book.restore(kept)
            sentence = f"it raised {type(error).__name__} in the state machine: {error}"
            result = self._book.answer(entry, command.pack_results([command.Error(sentence)]))
        self._connection.execute("RELEASE command")
        return result

    # -- what was applied ------------------------------------------------------------------------------

    @property
    def applied(self) -> Index:
        """The newest entry that was applied and committed."""
        return self._book.settled[0]

    @property
    def applied_term(self) -> Term:
        return self._book.settled[1]

    @property
    def membership(self) -> Membership | None:
        """Who were members as of `applied`; None where no such entry was applied."""
        return self._book.membership

    # -- reading ---------------------------------------------------------------------------------------

    def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run `work` on one snapshot of what is committed, on the caller's thread.

        Apply goes on meanwhile. A single key takes some 20 microseconds, so it may be read in an event loop.
        """
        if self.failed is not None:
            raise NotSent(self.failed)
        with self._lock:
            connection, path = self._free.pop() if self._free else None, self.path
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only=1")
        try:
            connection.execute("BEGIN")
            found = work(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()
            if isinstance(error, FATAL):
                raise translate(error, str(self.path)) from error
            raise
        with self._lock:
            if path is self.path:
                self._free.append(connection)
                return found
        connection.close()  # the state was replaced meanwhile
        return found

    def get(self, key: str) -> Got:
        return self.read(lambda connection: ledger.got(connection, key))

    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        """See Store.range; `limit` -1: all."""
        return self.read(lambda connection: ledger.ranged(connection, prefix, start, end, limit))

    def look(self, prefix: str, after: int | None, *, all: bool = False) -> Page:
        """A page of history; see engines/sqlite/history.py. It knows no lease's end."""
        return self.read(lambda connection: history.look(connection, prefix, after, all=all))

    def judge(self, asked: command.Transact) -> command.Result:
        """A transaction without operations, judged on what is committed."""
        assert not asked.then, "judge writes nothing"
        return self.read(lambda connection: Judge(connection).judged(asked))

    def leases(self) -> dict[str, float]:
        """Every lease that stands, and the seconds it is granted for."""
        return self.read(lambda c: dict(c.execute("SELECT id, ttl_s FROM atoll_lease ORDER BY id")))

    def epoch(self) -> int:
        return self.read(ledger.epoch)

    def revision(self) -> int:
        return self.read(ledger.revision)

    def frozen(self) -> str | None:
        return self.read(ledger.frozen)

    def hash(self) -> tuple[Index, str]:
        """The newest entry applied, and a digest of everything: the same on every member at that entry."""
        return self.read(state_schema.digest)

    def close(self) -> None:
        """Close every connection."""
        self.failed = self.failed or f"{self.path} was closed. Nothing was sent: open it again."
        self._checkpoints.stop()
        with self._lock:
            free, self._free = self._free, []
        for connection in (*free, self._connection):
            with suppress(*FATAL):  # what is not copied back now is in the -wal, or in the log
                connection.close()

    # -- inside ----------------------------------------------------------------------------------------

    def copy_to(self, path: Path) -> None:
        """Write all that is committed now to a new SQLite file, unforced. Apply goes on meanwhile."""
        connection = self._connect()
        try:
            connection.execute("VACUUM INTO ?", (str(path),))
        except FATAL as error:
            raise translate(error, str(path)) from error
        finally:
            connection.close()

    def replace(self, path: Path) -> None:
        """Go on with another file: what a snapshot held. On the thread of `apply`; who watches looks anew."""
        self._checkpoints.stop()
        with self._lock:
            free, self._free = self._free, []
            old, self.path = self._connection, path
        for connection in (*free, old):
            connection.close()
        self._open()
        for callback in self.on_commit:
            callback(Notice(-1, self._book.revision, None))

    def _connect(self) -> apsw.Connection:
        with self._translated():
            connection = apsw.Connection(str(self.path), vfs=self._vfs)
            try:
                connection.set_busy_timeout(5000)
                state_schema.set_up(connection, str(self.path))
            except BaseException:
                connection.close()
                raise
            return connection

    def _note_pages(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def _checkpoint_failed(self, error: Exception) -> None:
        self.failed = (
            f"the state in {self.path} was closed after an error of the disk: what was written could not be "
            f"copied into the file ({error}). The log has it: look at the disk, then start this member again."
        )
        log.error("%s", self.failed)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FATAL as error:
            found: Exception = error
            if isinstance(error, DAMAGED):
                found = FormatRefused(
                    f"found that {self.path} is damaged ({error}). Stop this member, take the "
                    f"folder {self.path.parent} away and start it again: the state is made anew from "
                    "snapshot and log."
                )
            elif not isinstance(error, MemoryError):
                found = translate(error, str(self.path), committing=True)
            self.failed = f"the state in {self.path} was closed after an error of the disk: {found}"
            raise found from error
