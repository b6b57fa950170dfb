"""SqlAlchemyDatabase: the engine the team already has, as Atoll's database.

A guest who brings slippers: sessions, pools and transactions stay the user's own, and Atoll only says its
four sentences inside them. On SQLite through sqlite3 or aiosqlite, on PostgreSQL through asyncpg or psycopg.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from atoll.engines.parts.call import left_s
from atoll.engines.sqlalchemy import dialect
from atoll.engines.sqlalchemy.asyncio_half import is_async_engine
from atoll.engines.sqlalchemy.joined import CEILING_S, SqlAlchemyJoined, explaining
from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown
from atoll.ports.joined import Joined, Staged

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class SqlAlchemyDatabase:
    """`atoll.database(engine)` for an Engine or AsyncEngine. It never disposes of the engine.

    On SQLite `open()` adds Atoll's tables (named atoll_...), once; on PostgreSQL it checks those that
    `atoll schema` made in the schema atoll. Two-phase transactions need `sqlite:///` by URL.
    """

    def __init__(self, engine: Engine | AsyncEngine, *, name: str | None = None) -> None:
        self._asyncio = engine if is_async_engine(engine) else None
        plain = engine.sync_engine if is_async_engine(engine) else engine
        if not isinstance(plain, Engine):
            kind = f"{type(engine).__module__}.{type(engine).__qualname__}"
            raise ConfigurationError(
                f"found {kind}; expected the Engine or AsyncEngine that your sessions are made from. Hand "
                "over what create_engine() or create_async_engine() answered."
            )
        self._plain = plain
        self._dialect = dialect.of(plain)
        self._joined: Joined = SqlAlchemyJoined(self._dialect)
        self.engine = engine
        self._name = name or self._dialect.name_of(plain)
        self._where = engine.url.render_as_string()
        self._ready = False

    def __repr__(self) -> str:
        return f"<Database {self.engine.url!r}>"

    @property
    def name(self) -> str:
        return self._name

    @property
    def joined(self) -> Joined:
        return self._joined

    @property
    def relaying(self) -> Self:
        return self

    @property
    def participant(self) -> None:
        """None: two-phase transactions on a SQLAlchemy engine are not in this release."""
        return None

    @property
    def schema(self) -> Self:
        """The tables: `text()` and `make()`, what `atoll schema` prints and makes."""
        return self

    def text(self) -> str:
        """The tables as SQL; running it again changes nothing."""
        return self._dialect.schema()

    async def make(self) -> Sequence[str]:
        """Make the tables that are missing; answers their names."""
        self._dialect.open(self._plain)
        return await self._write(lambda connection: self._dialect.make(connection, self._where))

    async def open(self) -> None:
        """Make or check Atoll's tables, on a connection of the engine."""
        if self._ready:
            return
        self._dialect.open(self._plain)
        await self._write(lambda connection: self._dialect.prepare(connection, self._where))
        self._dialect.open(self._plain)  # again: before, there may have been no file to claim
        self._ready = True

    async def close(self) -> None:
        """Forget the claim on a SQLite file; the engine stays the user's, to dispose of before."""
        self._ready = False
        self._dialect.close(self._plain)

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
                with explaining(self._dialect, self._where, commit=True):
                    await session.run_sync(self._expect_intact)
                    await session.commit()
        else:
            with sessionmaker(self._plain, expire_on_commit=False)() as plain:
                yield plain
                with explaining(self._dialect, self._where, commit=True):
                    self._expect_intact(plain)
                    plain.commit()

    def _expect_intact(self, session: Session) -> None:
        if session.in_transaction():
            session.flush()
            self._dialect.expect_intact(session.connection())

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        """A session on one snapshot; what is written in it is rolled back at its end, or refused."""
        await self.open()
        if self._asyncio is not None:
            from sqlalchemy.ext.asyncio import async_sessionmaker

            async with async_sessionmaker(self._asyncio, expire_on_commit=False)() as session:
                await (await session.connection()).run_sync(self._dialect.begin_reading)
                yield session
                await session.rollback()
        else:
            with sessionmaker(self._plain, expire_on_commit=False)() as plain:
                self._dialect.begin_reading(plain.connection())
                yield plain
                plain.rollback()

    # --- Relaying ---

    async def staged(self, limit: int, *, claim_s: float, queues: Sequence[str]) -> Sequence[Staged]:
        """The oldest outbox messages of these queues that nobody claimed, claimed for `claim_s`."""
        await self.open()
        names = tuple(queues)
        if not await self._do("any_staged", names):
            return []
        found: Sequence[Staged] = await self._do("staged", limit, claim_s, names)
        return found

    async def forget(self, positions: Sequence[int]) -> None:
        """Remove outbox messages that have been sent."""
        await self.open()
        await self._do("forget", positions)

    async def waiting(self) -> tuple[int, float]:
        """How many messages the outbox holds, and the age of the oldest in seconds."""
        await self.open()
        count, age = await self._do("waiting")
        return count, age

    async def queues(self) -> Sequence[str]:
        """The names of the queues that the outbox holds messages for."""
        await self.open()
        found: Sequence[str] = await self._do("queues")
        return found

    async def _do(self, verb: dialect.Verb, *arguments: Any) -> Any:
        return await self._write(lambda connection: self._dialect.do(connection, verb, *arguments))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction of its own. Out of time: OutcomeUnknown."""
        left = left_s("a transaction of Atoll's own", CEILING_S)
        try:
            async with asyncio.timeout(left) as limit:
                if self._asyncio is None:
                    return await asyncio.to_thread(self._write_here, work)
                with reaching(self._dialect, self._where):
                    connection = await self._asyncio.connect()
                with explaining(self._dialect, f"database {self._name}"):
                    async with aclosing(connection), connection.begin():
                        return await connection.run_sync(work)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise OutcomeUnknown(
                f"the database {self._name} gave no answer within {left:.3g} s; what was asked may have "
                "been done. Ask again: what is Atoll's can be asked twice."
            ) from error

    def _write_here(self, work: Callable[[Connection], T]) -> T:
        with reaching(self._dialect, self._where):
            connection = self._plain.connect()
        with explaining(self._dialect, f"database {self._name}"), connection, connection.begin():
            return work(connection)


class reaching:
    """Around taking a connection: none is NotSent, or a word of the engine's URL that is wrong."""

    def __init__(self, dialect: dialect.Dialect, where: str) -> None:
        self._dialect, self._where = dialect, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PoolTimeout):
            raise NotSent(
                f"{self._where}: {error}. Nothing was asked. Keep transactions short, or give the engine a "
                "larger pool."
            ) from error
        if isinstance(error, Exception) and (told := self._dialect.unconnected(error, self._where)):
            raise told from error
