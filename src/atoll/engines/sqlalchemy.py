"""SqlAlchemyDatabase: the engine the team already has, as Atoll's database.

A guest who brings slippers: sessions, pools and transactions stay the user's own, and Atoll only says its
four
sentences inside them. In this release for SQLite, through sqlite3 or aiosqlite.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeGuard, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from atoll import clock
from atoll.engines.sqlite import joined_sql, libraries
from atoll.engines.sqlite.joined import SqliteJoined, explained_sqlite3, outside
from atoll.engines.sqlite.joined_sql import Execute, Rows
from atoll.errors import AtollError, ConfigurationError, OutcomeUnknown
from atoll.ports.joined import Joined, Staged, register

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

T = TypeVar("T")
CEILING_S = 30.0
INBOX_RETENTION_S = 7 * 86400.0
PRUNE_EVERY = 256

_claims: weakref.WeakKeyDictionary[Engine, Callable[[], object]] = weakref.WeakKeyDictionary()


class SqlAlchemyDatabase:
    """`atoll.database(engine)` for an Engine or AsyncEngine on SQLite. It never disposes of the engine.

    `open()` adds Atoll's tables (named atoll_...), once. Two-phase transactions need `sqlite:///` by URL.
    """

    def __init__(self, engine: Engine | AsyncEngine, *, name: str | None = None) -> None:
        self._asyncio = engine if _is_async_engine(engine) else None
        plain = engine.sync_engine if _is_async_engine(engine) else engine
        if not isinstance(plain, Engine):
            kind = f"{type(engine).__module__}.{type(engine).__qualname__}"
            raise ConfigurationError(
                f"found {kind}; expected the Engine or AsyncEngine that your sessions are made from. Hand "
                "over what create_engine() or create_async_engine() answered."
            )
        self._plain = plain
        _expect_sqlite(self._plain)
        self.engine = engine
        self._name = name or (Path(path).stem if (path := _path(self._plain)) else "memory")
        self._ready = False

    def __repr__(self) -> str:
        return f"<Database {self.engine.url!r}>"

    @property
    def name(self) -> str:
        return self._name

    @property
    def joined(self) -> Joined:
        return JOINED

    @property
    def relaying(self) -> Self:
        return self

    @property
    def participant(self) -> None:
        return None

    async def open(self) -> None:
        """Make or check Atoll's tables, on a connection of the engine."""
        if self._ready:
            return
        claim(self._plain)

        def prepare(execute: Execute) -> None:
            joined_sql.ensure(execute, str(self.engine.url))
            joined_sql.prune(execute, INBOX_RETENTION_S)

        await self._write(prepare)
        claim(self._plain)  # again: before, there may have been no file to claim
        self._ready = True

    async def close(self) -> None:
        """Forget the claim on the file; the engine stays the user's, to dispose of before."""
        self._ready = False
        if (release := _claims.pop(self._plain, None)) is not None:
            release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        """A session in a begun transaction, AsyncSession or Session as the engine is. Commits at its end."""
        await self.open()
        if self._asyncio is not None:
            from sqlalchemy.ext.asyncio import async_sessionmaker

            async with async_sessionmaker(self._asyncio, expire_on_commit=False)() as session:
                yield session
                with explaining("COMMIT"):
                    await session.commit()
        else:
            with sessionmaker(self._plain, expire_on_commit=False)() as plain:
                yield plain
                with explaining("COMMIT"):
                    plain.commit()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        """A session on one snapshot; what is written in it is rolled back at its end."""
        await self.open()
        if self._asyncio is not None:
            from sqlalchemy.ext.asyncio import async_sessionmaker

            async with async_sessionmaker(self._asyncio, expire_on_commit=False)() as session:
                await (await session.connection()).run_sync(_begin_reading)
                yield session
                await session.rollback()
        else:
            with sessionmaker(self._plain, expire_on_commit=False)() as plain:
                _begin_reading(plain.connection())
                yield plain
                plain.rollback()

    # --- Relaying ---

    async def staged(self, limit: int, *, claim_s: float, queues: Sequence[str]) -> Sequence[Staged]:
        """The oldest outbox messages of these queues that nobody claimed, claimed for `claim_s`."""
        await self.open()
        names = tuple(queues)
        if not await self._write(lambda execute: joined_sql.any_staged(execute, names)):
            return []
        return await self._write(lambda execute: joined_sql.staged(execute, limit, claim_s, names))

    async def forget(self, positions: Sequence[int]) -> None:
        """Remove outbox messages that have been sent."""
        await self.open()
        await self._write(lambda execute: joined_sql.forget(execute, positions))

    async def waiting(self) -> tuple[int, float]:
        """How many messages the outbox holds, and the age of the oldest in seconds."""
        await self.open()
        return await self._write(joined_sql.waiting)

    async def queues(self) -> Sequence[str]:
        """The names of the queues that the outbox holds messages for."""
        await self.open()
        return await self._write(joined_sql.queues)

    async def _write(self, work: Callable[[Execute], T]) -> T:
        """`work` in a transaction of its own. Out of time: OutcomeUnknown."""
        left = clock.remaining_s(CEILING_S)
        try:
            async with asyncio.timeout(max(0.0, left)):
                with explaining(f"database {self._name}"):
                    if self._asyncio is not None:
                        async with self._asyncio.begin() as connection:
                            return await connection.run_sync(lambda plain: work(speaking(plain)))
                    return await asyncio.to_thread(_write, self._plain, work)
        except TimeoutError as error:
            raise OutcomeUnknown(
                f"the database {self._name} gave no answer within {left:.3g} s; what was asked may have "
                "been done. Ask again: what is Atoll's can be asked twice."
            ) from error


def _write(engine: Engine, work: Callable[[Execute], T]) -> T:
    with engine.begin() as connection:
        return work(speaking(connection))


class explaining:
    """Around SQL of ours: what SQLite says of locks and of the disk, in Atoll's words."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DBAPIError) and (told := explained(error, self._what)) is not None:
            raise told from error


def explained(error: DBAPIError, what: str) -> AtollError | None:
    """The error of ours for SQLAlchemy's, None for what is the user's own (a constraint, a wrong word)."""
    cause: BaseException | None = error.orig
    while cause is not None and not hasattr(cause, "sqlite_errorcode"):
        cause = cause.__cause__
    told = explained_sqlite3(cause) if isinstance(cause, Exception) else None
    return told if isinstance(told, AtollError) else None


def speaking(connection: Connection) -> Execute:
    """`execute` on a SQLAlchemy connection, past its SQL compiler."""

    def execute(sql: str, parameters: Sequence[Any]) -> Rows:
        result = connection.exec_driver_sql(sql, tuple(parameters))
        return [tuple(row) for row in result] if result.returns_rows else []

    return execute


async def enter(tx: Any, work: Callable[[Execute], T]) -> T:
    """Run `work` inside the transaction of a session or connection; it begins one if none is begun."""
    with explaining("SQLite"):
        if _is_async_session(tx):
            return await tx.run_sync(lambda session: _inside(session.connection(), work))
        if _is_async_connection(tx):
            return await tx.run_sync(lambda connection: _inside(connection, work))
        return _inside(tx.connection() if isinstance(tx, Session) else tx, work)


def _inside(connection: Connection, work: Callable[[Execute], T]) -> T:
    claim(connection.engine)
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.driver_connection
    if driver.isolation_level is None and not driver.in_transaction:
        raise outside("SQLAlchemy connection in AUTOCOMMIT")
    return work(speaking(connection))


def claim(engine: Engine) -> None:
    """Note that the standard library's SQLite has this engine's file; refused when our own engine has it."""
    path = _path(engine)
    if path is None:
        return
    if engine in _claims:
        libraries.refuse_standard(path)
    elif (key := libraries.claim_standard(path)) is not None:
        _claims[engine] = weakref.finalize(engine, libraries.release_standard, key)


def _of_asyncio(thing: object, name: str) -> bool:
    """Whether `thing` is of SQLAlchemy's asyncio half, which is not imported, for it needs greenlet."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(thing, getattr(module, name))


def _is_async_engine(thing: object) -> TypeGuard[AsyncEngine]:
    return _of_asyncio(thing, "AsyncEngine")


def _is_async_session(thing: object) -> TypeGuard[AsyncSession]:
    return _of_asyncio(thing, "AsyncSession")


def _is_async_connection(thing: object) -> TypeGuard[AsyncConnection]:
    return _of_asyncio(thing, "AsyncConnection")


def _path(engine: Engine) -> str | None:
    """The engine's file, None for a database in memory."""
    path = engine.url.database
    if not path or path == ":memory:" or "mode=memory" in path:
        return None
    return path.removeprefix("file:").partition("?")[0]


def _expect_sqlite(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        raise ConfigurationError(
            f"found a SQLAlchemy engine on {engine.dialect.name}; this release works on SQLite, and "
            f"{engine.dialect.name} is planned for 0.2. Use "
            "create_async_engine('sqlite+aiosqlite:///shop.db')."
        )


class SqlAlchemyJoined(SqliteJoined):
    """The four verbs; `once` also forgets ids past their retention, now and then, in the same transaction."""

    async def once(self, tx: Any, scope: str, id: str) -> bool:
        """True the first time `id` is seen in `scope`."""
        new = await super().once(tx, scope, id)
        if clock.chance().random() < 1 / PRUNE_EVERY:
            await self._enter(tx, lambda execute: joined_sql.prune(execute, INBOX_RETENTION_S))
        return new


JOINED: Joined = SqlAlchemyJoined(enter)


def adapt(tx: object) -> Joined | None:
    """Recognise SQLAlchemy's sessions and connections; those of another dialect are refused by name."""
    bind: Engine | Connection
    if isinstance(tx, scoped_session) or _of_asyncio(tx, "async_scoped_session"):
        return SqlAlchemyJoined(lambda registry, work: enter(registry(), work))
    if _is_async_session(tx):
        bind = tx.sync_session.get_bind()
    elif _is_async_connection(tx):
        bind = tx.engine.sync_engine
    elif isinstance(tx, Session):
        bind = tx.get_bind()
    elif isinstance(tx, Connection):
        bind = tx
    else:
        return None
    _expect_sqlite(bind.engine)
    return JOINED


register(adapt)


def _begin_reading(connection: Connection) -> None:
    """BEGIN, unless the driver has: sqlite3 sends none before a SELECT, and each would see another state."""
    if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN")
    connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").all()
