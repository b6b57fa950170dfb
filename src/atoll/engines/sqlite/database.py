"""A SQLite file as the user's database: transactions, outbox, inbox, fence.

The user's own tables with a few of ours beside them. Each transaction has a connection and a thread of its
own, because it lasts as long as the user's code; who wants to write passes one turnstile, in order of coming.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import apsw

from atoll.engines.sqlite import joined_sql, place
from atoll.engines.sqlite.file import SqliteFile, SqliteOptions
from atoll.engines.sqlite.format import ensure, read
from atoll.engines.sqlite.joined import JOINED, speaking
from atoll.engines.sqlite.limits import check_numbers
from atoll.engines.sqlite.session import Session, SessionPool
from atoll.engines.sqlite.transaction import SqliteTransaction
from atoll.errors import AtollError, ConfigurationError, Conflict, NotSent, OutcomeUnknown
from atoll.ports.address import Address
from atoll.ports.joined import Joined, Staged

if TYPE_CHECKING:
    from atoll.ports.participant import Participant


PRUNE_EVERY = 256
"""Commits between two looks at the inbox for ids past their retention; each look forgets at most 1,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Options of a `sqlite:///` database. Times in seconds."""

    max_sessions: int = 8
    """Connections, each with a thread: how many transactions may be open at once, readers included."""
    wait_s: float = 10.0
    """How long `begin` waits for the writer before it, before Conflict."""
    ceiling_s: float = 60.0
    """How long one statement may run."""
    inbox_retention_s: float = 7 * 86400.0
    """How long `once` remembers an id."""
    shared_kernel: bool = False
    """The folder looks like a network's, but only this kernel ever opens the file."""
    vfs: str | None = None
    """A VFS registered with apsw; None: the system's."""
    create: bool = True
    """False: only a file and tables that are there already; nothing is made by asking."""

    def __post_init__(self) -> None:
        check_numbers(self, or_zero=("wait_s", "inbox_retention_s"))


class SqliteDatabase:
    """A database in one SQLite file. Inert until first use; `sqlite:///shop.db`, `sqlite:////srv/shop.db`.

    `open()` adds Atoll's tables (named atoll_...) to the file. Committed is forced to the disk.
    """

    def __init__(self, path: str | Path, *, name: str | None = None, options: DatabaseOptions | None = None):
        if not str(path) or str(path) == ":memory:":
            raise ConfigurationError(
                f"found the path {str(path)!r}; a sqlite:// database is a file. Write sqlite:///shop.db, or "
                "sqlite:////srv/shop.db for an absolute path."
            )
        self.path = str(path)
        self.options = options or DatabaseOptions()
        self._name = name or Path(path).stem
        self._pid = os.getpid()
        self._file: SqliteFile | None = None
        self._pool: SessionPool | None = None
        self._participant: Participant | None = None
        self._ready = False
        self._commits = 0

    @classmethod
    def from_address(cls, address: Address, *, name: str | None = None) -> Self:
        """What `atoll.database("sqlite:///...")` makes."""
        return cls(place.path_of(address), name=name, options=address.parse_options(DatabaseOptions))

    def __repr__(self) -> str:
        return f"<Database {self.url}>"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def name(self) -> str:
        return self._name

    @property
    def joined(self) -> Joined:
        return JOINED

    @property
    def relaying(self) -> SqliteDatabase:
        return self

    @property
    def participant(self) -> Participant:
        """The file as part of a two-phase transaction."""
        if self._participant is None:
            from atoll.engines.sqlite.participant import SqliteParticipant

            self._participant = SqliteParticipant(self)
        return self._participant

    @property
    def schema(self) -> Self:
        """The tables: what `atoll schema` prints and makes. `open()` makes them too."""
        return self

    def text(self) -> str:
        """The tables as SQL; running it again changes nothing."""
        return joined_sql.schema()

    async def make(self) -> Sequence[str]:
        """Make the tables that are missing; answers their names."""
        if self._ready:
            return []
        there = await asyncio.to_thread(os.path.exists, self.path)
        before = await self.file.read(_tables) if there else []
        await self.open()
        return [name for name in await self.file.read(_tables) if name not in before]

    async def open(self) -> None:
        """Open the file, make or check Atoll's tables."""
        if self._pid != os.getpid():
            if self._pool is not None:
                self._pool.abandon()
            self._file, self._pool, self._ready, self._pid = None, None, False, os.getpid()
        if self._ready and self.file.failed is not None:
            raise NotSent(self.file.failed)
        if self._ready:
            return
        file = self.file

        def prepare(connection: apsw.Connection) -> None:
            if not self.options.create and read(connection, joined_sql.PART) is None:
                return  # asked only: the outbox and the inbox are empty, and no branch waits
            ensure(connection, joined_sql.PART, joined_sql.FORMAT, joined_sql.TABLES)
            joined_sql.prune(speaking(connection), self.options.inbox_retention_s)

        await file.write(prepare)
        self._ready = True

    @property
    def file(self) -> SqliteFile:
        """The file layer this database stands on; shared with every handle of this process on the file."""
        if self._file is None:
            self._file = SqliteFile.shared(
                self.path,
                SqliteOptions(
                    shared_kernel=self.options.shared_kernel, vfs=self.options.vfs, create=self.options.create
                ),
            )
        return self._file

    async def close(self) -> None:
        """Close what is idle; an open transaction ends by itself."""
        pool, file, self._pool, self._file, self._ready = self._pool, self._file, None, None, False
        if self._pid != os.getpid():
            return
        if pool is not None:
            pool.close()
            if file is not None:
                file.before_fork.remove(pool.part)
        if file is not None:
            await file.release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Exclusive use of one connection and its thread: `await session.run(work)`."""
        await self.open()
        if self._pool is None:
            self._pool = SessionPool(self.path, self.file.connect, self.options.max_sessions)
            self.file.before_fork.append(self._pool.part)
        async with self._pool.session(wait_s=self.options.wait_s) as session:
            yield session

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqliteTransaction]:
        """A transaction that may write: `async with db.begin() as tx: await tx.execute(sql, parameters)`.

        Writers take turns, so begin waits for the one before, at most `wait_s`: then Conflict. An error or a
        cancellation in the body rolls back; leaving it commits, forced to the disk.
        """
        await self.open()
        async with self._turn() as end_turn, self.session() as session:
            await session.run(_begin_immediate, ceiling_s=self.options.wait_s)
            tx = SqliteTransaction(session, self.name, ceiling_s=self.options.ceiling_s)
            try:
                yield tx
            except BaseException:
                tx.over = True
                await _to_its_end(session.run(_roll_back, ceiling_s=self.options.ceiling_s, final=True))
                raise
            tx.over = True
            await _to_its_end(self._commit(session, end_turn))
        self._commits += 1
        if self._commits % PRUNE_EVERY == 0:
            await self._prune()

    async def _prune(self) -> None:
        """Forget old ids of the inbox, outside of anybody's transaction; a failure is left to the next."""
        seen_max_s = self.options.inbox_retention_s
        with contextlib.suppress(AtollError, apsw.Error):
            await self.file.write(
                lambda connection: joined_sql.prune(speaking(connection), seen_max_s), forced=False
            )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Callable[[], None]]:
        """The turn to write, among the threads and processes that use this file through Atoll."""
        try:
            turn = self.file.turn(ceiling_s=self.options.wait_s)
            end = await turn.__aenter__()
        except NotSent as error:
            raise Conflict(
                f"{self.path}: other transactions were ahead for {self.options.wait_s:g} s. Nothing was "
                "begun. Keep transactions short, await nothing slow inside them, and retry."
            ) from error
        try:
            yield end
        finally:
            await turn.__aexit__(None, None, None)

    async def _commit(self, session: Session, end_turn: Callable[[], None]) -> None:
        """COMMIT, forced. Out of time or failed at the disk: OutcomeUnknown; a full disk is a plain no."""

        def commit(connection: apsw.Connection) -> None:
            _commit(connection)
            end_turn()

        try:
            await session.run(commit, ceiling_s=self.options.ceiling_s, final=True)
        except OutcomeUnknown as error:
            # What a failed fsync left behind is not known, so nothing may be written on top of it.
            session.broken = True
            if isinstance(error.__cause__, apsw.IOError):
                self.file.fail(error.__cause__)
            raise
        except BaseException:
            session.tidy()
            raise
        self.file.notify()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqliteTransaction]:
        """A transaction that only reads, all of it one snapshot. It waits for no writer and delays none."""
        async with self.session() as session:
            await session.run(_begin_reading)
            tx = SqliteTransaction(session, self.name, ceiling_s=self.options.ceiling_s)
            try:
                yield tx
            finally:
                tx.over = True
                session.leave(_end_reading)

    # --- Relaying ---

    async def staged(self, limit: int, *, claim_s: float, queues: Sequence[str]) -> Sequence[Staged]:
        """The oldest outbox messages of these queues that nobody claimed, claimed for `claim_s`."""
        await self.open()
        names = tuple(queues)
        if not await self.file.read(lambda connection: joined_sql.any_staged(speaking(connection), names)):
            return []
        # A claim is a courtesy: one that a power cut forgets costs a duplicate, which the broker notices.
        return await self.file.write(
            lambda connection: joined_sql.staged(speaking(connection), limit, claim_s, names), forced=False
        )

    async def forget(self, positions: Sequence[int]) -> None:
        """Remove outbox messages that have been sent."""
        await self.open()
        await self.file.write(lambda connection: joined_sql.forget(speaking(connection), positions))

    async def waiting(self) -> tuple[int, float]:
        """How many messages the outbox holds, and the age of the oldest in seconds."""
        await self.open()
        return await self.file.read(lambda connection: joined_sql.waiting(speaking(connection)))

    async def queues(self) -> Sequence[str]:
        """The names of the queues that the outbox holds messages for."""
        await self.open()
        return await self.file.read(lambda connection: joined_sql.queues(speaking(connection)))


def _tables(connection: apsw.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [name for (name,) in found if name.startswith("atoll_")]


def _begin_immediate(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: apsw.Connection) -> None:
    if not connection.in_transaction:
        raise Conflict(
            "SQLite had rolled the transaction back by itself after an error inside it. Nothing of it was "
            "written; retry the whole transaction."
        )
    connection.execute("COMMIT")


def _roll_back(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _begin_reading(connection: apsw.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("BEGIN")
    connection.execute(
        "SELECT 1 FROM sqlite_schema LIMIT 1"
    ).fetchall()  # the snapshot is taken at the first read


def _end_reading(connection: apsw.Connection) -> None:
    _roll_back(connection)
    connection.execute("PRAGMA query_only = OFF")


async def _to_its_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await the end of a transaction also when cancelled meanwhile: half an end would leave the lock held."""
    task = asyncio.ensure_future(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    task.result()
