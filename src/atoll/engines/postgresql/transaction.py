"""Transaction: where one comes from in the user's database: psycopg's pools, asyncpg's, a URL's own.

Three kinds of tap over one well. Each is turned the same way: take a connection, begin, hand it out, commit
or roll back, give it back; and each leak has a sentence of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from atoll import clock
from atoll.engines.postgresql import joined
from atoll.engines.postgresql.joined import kinds
from atoll.engines.postgresql.joined_sql import Script
from atoll.engines.postgresql.sqlstate import lost, uncommitted, unconnected
from atoll.errors import ConfigurationError, Conflict, NotSent, OutcomeUnknown, Overloaded

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
        import psycopg

        with reaching(self._where):
            connection = await self._pool.getconn(timeout=wait_s)
        try:
            transaction = connection.transaction(force_rollback=reading)
            try:
                await transaction.__aenter__()
                if reading:
                    await connection.execute(READING)
            except psycopg.Error as error:
                raise unconnected(error, self._where) from error
            async with ending(transaction, self._where, lambda: _intact(connection, self._where)):
                yield connection
        finally:
            await self._pool.putconn(connection)

    async def play(self, tx: Any, script: Script[T]) -> T:
        return await joined.on_psycopg_async(tx, script, self._where)


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
        import psycopg

        with reaching(self._where):
            connection = await asyncio.to_thread(self._pool.getconn, timeout=wait_s)
        try:
            transaction = _InThread(connection.transaction(force_rollback=reading))
            try:
                await transaction.__aenter__()
                if reading:
                    connection.execute(READING)
            except psycopg.Error as error:
                raise unconnected(error, self._where) from error
            async with ending(transaction, self._where, lambda: _intact(connection, self._where)):
                yield connection
        finally:
            self._pool.putconn(connection)

    async def play(self, tx: Any, script: Script[T]) -> T:
        return await joined.on_psycopg(tx, script, self._where)


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
            with reaching(self._where):
                await transaction.__aenter__()

            async def intact() -> None:
                if not reading:
                    await connection.execute("SELECT 1")  # a failed transaction answers COMMIT by ROLLBACK

            async with ending(transaction, self._where, intact):
                yield connection
        finally:
            await self._pool.release(connection)

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


async def _intact(connection: Any, where: str) -> None:
    """Refuse to commit what has failed: the server would answer COMMIT by a silent ROLLBACK."""
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise failed(where)


def failed(where: str) -> Conflict:
    """The sentence for a body that swallowed an error of a statement."""
    return Conflict(
        f"{where}: a statement of this transaction failed and the body went on, so PostgreSQL has given the "
        "transaction up. Nothing of it was written. Let the error out of the body, or use a savepoint."
    )


@asynccontextmanager
async def ending(transaction: Any, where: str, intact: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """COMMIT after the body, ROLLBACK after an error in it; either goes to its end, also when cancelled."""
    try:
        yield
        try:
            await intact()
        except Exception as error:
            if lost(error):
                raise
            raise (error if isinstance(error, Conflict) else failed(where)) from error
    except BaseException:
        with contextlib.suppress(Exception):  # the connection is gone: so is the transaction
            await _to_its_end(transaction.__aexit__(*sys.exc_info()), where)
        raise
    try:
        await _to_its_end(transaction.__aexit__(None, None, None), where)
    except OutcomeUnknown:
        raise
    except Exception as error:
        if (told := uncommitted(error, where)) is None:
            raise
        raise told from error


async def _to_its_end(work: Awaitable[Any], where: str) -> None:
    """Await the end of a transaction also when cancelled meanwhile, at most the ceiling."""
    task = asyncio.ensure_future(work)
    until = clock.loop_now() + joined.CEILING_S
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and clock.loop_now() < until:
        try:
            await asyncio.wait([task], timeout=until - clock.loop_now())
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.done():
        task.cancel()
        raise OutcomeUnknown(
            f"{where} has not answered COMMIT for {joined.CEILING_S:g} s: the transaction may have been "
            "committed. Read what it should have written before you do it again."
        )
    if cancelled is not None:
        task.exception()
        raise cancelled
    task.result()


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
