"""Transaction: where one comes from in the user's database: psycopg's pools, asyncpg's, a URL's own.

Three kinds of tap over one well. Each is turned the same way: take a connection, begin, hand it out, commit
or roll back, give it back; and each leak has a sentence of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from atoll import clock
from atoll.engines.postgresql import joined
from atoll.engines.postgresql.cut import cut_after
from atoll.engines.postgresql.ending import ROLLBACK_S, ending, failed
from atoll.engines.postgresql.joined import kinds
from atoll.engines.postgresql.joined_sql import Script
from atoll.engines.postgresql.sqlstate import lost, unconnected
from atoll.errors import ConfigurationError, NotSent, Overloaded

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
READING = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class Source(Protocol):
    """A source of transactions. `begin` hands out the library's own connection."""

    async def open(self, wait_s: float) -> None: ...
    async def close(self) -> None: ...
    def begin(self, wait_s: float, *, reading: bool = False) -> AbstractAsyncContextManager[Any]: ...
    async def play(self, tx: Any, script: Script[T]) -> T: ...


def source_of(pool: object, where: str) -> Source:
    """The tap that fits the user's pool object."""
    if isinstance(pool, kinds("psycopg_pool", "AsyncConnectionPool", "AsyncNullConnectionPool")):
        return PsycopgAsyncSource(pool, where)
    if isinstance(pool, kinds("psycopg_pool", "ConnectionPool", "NullConnectionPool")):
        return PsycopgSource(pool, where)
    if isinstance(pool, kinds("asyncpg.pool", "Pool")):
        return AsyncpgSource(pool, where)
    raise ConfigurationError(
        f"found {type(pool).__module__}.{type(pool).__qualname__}; expected a pool of psycopg_pool or of "
        "asyncpg, a SQLAlchemy engine, or a URL. Hand over the pool that your connections come from."
    )


class PsycopgAsyncSource:
    """`psycopg_pool.AsyncConnectionPool`: transactions are `psycopg.AsyncConnection`s."""

    def __init__(self, pool: Any, where: str) -> None:
        self._pool, self._where = pool, where

    async def open(self, wait_s: float) -> None:
        """Open it where the user has not; an open one stays as it is."""
        if self._pool.closed:
            await self._pool.open()

    async def close(self) -> None:
        """It is the user's: nothing."""

    @asynccontextmanager
    async def begin(self, wait_s: float, *, reading: bool = False) -> AsyncIterator[Any]:
        with reaching(self._where):
            async with asyncio.timeout(wait_s + joined.GRACE_S):  # it may ask the server
                connection = await self._pool.getconn(timeout=wait_s)
        try:
            async with on_connection(connection, self._where, wait_s, reading=reading):
                yield connection
        finally:
            await self._pool.putconn(connection)

    async def play(self, tx: Any, script: Script[T]) -> T:
        return await joined.on_psycopg_async(tx, script, self._where)


@asynccontextmanager
async def on_connection(
    connection: psycopg.AsyncConnection[Any], where: str, wait_s: float, *, reading: bool
) -> AsyncIterator[None]:
    """A transaction of psycopg on this connection, BEGIN answered within `wait_s`."""
    transaction = connection.transaction(force_rollback=reading)

    async def intact() -> None:
        if not reading:
            expect_intact(connection, where)

    with reaching(where), cut_after(connection, wait_s, where):
        await transaction.__aenter__()
        if reading:
            await connection.execute(READING)
    async with ending(transaction, connection, where, intact):
        yield


class PsycopgSource:
    """`psycopg_pool.ConnectionPool`: transactions are `psycopg.Connection`s, which block their thread."""

    def __init__(self, pool: Any, where: str) -> None:
        self._pool, self._where = pool, where

    async def open(self, wait_s: float) -> None:
        """Open it where the user has not; an open one stays as it is."""
        if self._pool.closed:
            await asyncio.to_thread(self._pool.open)

    async def close(self) -> None:
        """It is the user's: nothing."""

    @asynccontextmanager
    async def begin(self, wait_s: float, *, reading: bool = False) -> AsyncIterator[Any]:
        with reaching(self._where):
            connection = await asyncio.to_thread(self._pool.getconn, timeout=wait_s)
        try:
            transaction = _InThread(connection.transaction(force_rollback=reading))

            async def intact() -> None:
                if not reading:
                    expect_intact(connection, self._where)

            with reaching(self._where), cut_after(connection, wait_s, self._where):
                await transaction.__aenter__()
                if reading:
                    await asyncio.to_thread(connection.execute, READING)
            async with ending(transaction, connection, self._where, intact):
                yield connection
        finally:
            self._pool.putconn(connection)

    async def play(self, tx: Any, script: Script[T]) -> T:
        left = max(0.0, clock.remaining_s(joined.CEILING_S))
        with cut_after(tx, left + joined.GRACE_S, self._where):
            return await asyncio.to_thread(joined.spoken_by_psycopg, tx, script, self._where)


class AsyncpgSource:
    """`asyncpg.Pool`: transactions are its connections."""

    def __init__(self, pool: Any, where: str) -> None:
        self._pool, self._where = pool, where

    async def open(self, wait_s: float) -> None:
        """Open it where the user has not awaited it yet."""
        with reaching(self._where):
            async with asyncio.timeout(wait_s):
                await self._pool

    async def close(self) -> None:
        """It is the user's: nothing."""

    @asynccontextmanager
    async def begin(self, wait_s: float, *, reading: bool = False) -> AsyncIterator[Any]:
        await self.open(wait_s)
        with reaching(self._where):
            connection = await self._pool.acquire(timeout=wait_s)
        try:
            words = {"isolation": "repeatable_read", "readonly": True} if reading else {}
            transaction = _Asyncpg(connection.transaction(**words), rollback=reading)
            with reaching(self._where), cut_after(connection, wait_s, self._where):
                await transaction.__aenter__()

            async def intact() -> None:
                if not reading:
                    await connection.execute("SELECT 1")  # a failed transaction answers COMMIT by ROLLBACK

            async with ending(transaction, connection, self._where, intact):
                yield connection
        finally:
            await self._pool.release(connection, timeout=ROLLBACK_S)

    async def play(self, tx: Any, script: Script[T]) -> T:
        return await joined.on_asyncpg(tx, script, self._where)


class _InThread:
    """A blocking transaction of psycopg, entered and left in a thread."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aenter__(self) -> None:
        await asyncio.to_thread(self._inner.__enter__)

    async def __aexit__(self, *exc: Any) -> bool:
        return bool(await asyncio.to_thread(self._inner.__exit__, *exc))


class _Asyncpg:
    """A transaction of asyncpg; one for reading is rolled back."""

    def __init__(self, inner: Any, *, rollback: bool) -> None:
        self._inner, self._rollback = inner, rollback

    async def __aenter__(self) -> None:
        await self._inner.start()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if kind is not None or self._rollback:
            await self._inner.rollback()
        else:
            await self._inner.commit()
        return False


def expect_intact(connection: Any, where: str) -> None:
    """Refuse to commit what has failed: the server would answer COMMIT by a silent ROLLBACK."""
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise failed(where)


class reaching:
    """Around taking a connection: no connection is NotSent, or a word of the URL that is wrong."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        name = type(error).__name__
        if name == "TooManyRequests":
            raise Overloaded(f"{self._where}: {error}. Nothing was asked. Come back later.") from error
        if name == "PoolTimeout" or isinstance(error, TimeoutError):
            raise NotSent(
                f"{self._where}: no connection was free or could be made in time ({error or name}). "
                "Nothing was asked. Is the server running, and is the pool large enough?"
            ) from error
        if lost(error) or getattr(error, "sqlstate", None):
            raise unconnected(error, self._where) from error
