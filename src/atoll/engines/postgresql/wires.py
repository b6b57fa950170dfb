"""Wires: one connection to PostgreSQL, whichever client library made it. One statement is one transaction.

A telephone with a knife beside it. You ask one question and hear one answer; if the answer does not come in
time you cut the line, because a polite "never mind" could be heard as "you need not copy it to the standby".
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import psycopg

Row = tuple[Any, ...]
NOT_COPIED = "01000"
"""The warning beside a commit whose wait for the standby was cut short: it stands here, perhaps only here."""


class Wire(Protocol):
    """One connection. `doubt`: what the server warned of beside its last answer, None mostly."""

    doubt: str | None

    async def rows(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """The answer to one statement with $1, $2 ... as its values."""
        ...

    async def script(self, sql: str) -> None:
        """Several statements without values, in one transaction."""
        ...

    def cut(self) -> None:
        """Break it off: whoever waits for its answer gets an error at once."""
        ...


class PsycopgWire:
    """A psycopg AsyncConnection in autocommit. Names no prepared statement unless `prepares`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, prepares: bool = False) -> None:
        from psycopg import AsyncRawCursor

        self.connection = connection
        self.doubt: str | None = None
        self._cursor = AsyncRawCursor(connection)
        self._prepares = None if prepares else False
        connection.add_notice_handler(self._noticed)

    async def rows(self, sql: str, values: Sequence[Any]) -> list[Row]:
        self.doubt = None
        cursor = self._cursor
        await cursor.execute(sql.encode(), values, prepare=self._prepares, binary=True)
        found = cursor.pgresult  # its description would be an object for each column, made anew
        return await cursor.fetchall() if found is not None and found.nfields else []

    async def script(self, sql: str) -> None:
        await self.connection.execute(sql.encode(), prepare=False)

    def cut(self) -> None:
        with suppress(Exception):
            _shut(self.connection.fileno())

    def leave(self) -> None:
        """Another takes the connection on."""
        self.connection.remove_notice_handler(self._noticed)

    @property
    def idle(self) -> bool:
        """See is_quiet."""
        return is_quiet(self.connection)

    def _noticed(self, notice: Any) -> None:
        if notice.sqlstate == NOT_COPIED:
            self.doubt = notice.message_primary


class AsyncpgWire:
    """An asyncpg Connection, or a pool's stand-in for one."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.doubt: str | None = None

    async def rows(self, sql: str, values: Sequence[Any]) -> list[Row]:
        self.doubt = None
        self.connection.add_log_listener(self._noticed)
        try:
            return [tuple(record) for record in await self.connection.fetch(sql, *values)]
        finally:
            with suppress(Exception):
                self.connection.remove_log_listener(self._noticed)

    async def script(self, sql: str) -> None:
        await self.connection.execute(sql)

    def cut(self) -> None:
        with suppress(Exception):
            self.connection.terminate()

    def _noticed(self, _: object, notice: Any) -> None:
        if notice.sqlstate == NOT_COPIED:
            self.doubt = notice.message


Take = Callable[[], AbstractAsyncContextManager[Wire]]


def given(pool: Any) -> Take | None:
    """How a connection is taken from the pool or engine that somebody handed over; None: it is neither."""
    package = type(pool).__module__.partition(".")[0]
    if package == "psycopg_pool" and asyncio.iscoroutinefunction(getattr(pool, "getconn", None)):
        return lambda: _from_psycopg(pool)
    if package == "asyncpg" and hasattr(pool, "acquire"):
        return lambda: _from_asyncpg(pool.acquire())
    if package == "sqlalchemy" and hasattr(pool, "sync_engine"):
        return lambda: _from_sqlalchemy(pool)
    return None


@asynccontextmanager
async def _from_psycopg(pool: Any) -> AsyncIterator[Wire]:
    while True:
        async with pool.connection() as connection:
            if is_quiet(connection):
                async with _autocommit(connection) as wire:
                    yield wire
                    return
            await connection.close()  # its server has hung up: the pool drops it and gives another


@asynccontextmanager
async def _from_asyncpg(taking: AbstractAsyncContextManager[Any]) -> AsyncIterator[Wire]:
    async with taking as connection:
        yield AsyncpgWire(connection)


@asynccontextmanager
async def _from_sqlalchemy(engine: Any) -> AsyncIterator[Wire]:
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        asyncpgs = type(driver).__module__.startswith("asyncpg")
        if driver.is_closed() if asyncpgs else not is_quiet(driver):
            await connection.invalidate()
            driver = (await connection.get_raw_connection()).driver_connection
        try:
            if asyncpgs:
                yield AsyncpgWire(driver)
            else:
                async with _autocommit(driver) as wire:
                    yield wire
        except BaseException:
            if driver.is_closed() if asyncpgs else driver.closed:
                await connection.invalidate()
            raise


@asynccontextmanager
async def _autocommit(connection: Any) -> AsyncIterator[Wire]:
    before = connection.autocommit
    if not before:
        await connection.set_autocommit(True)
    wire = PsycopgWire(connection)
    try:
        yield wire
    finally:
        wire.leave()
        if not before and not connection.closed:
            await connection.set_autocommit(False)


def is_quiet(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether nothing has come on it unasked: a server that hung up has said so already."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)


def _shut(descriptor: int) -> None:
    """Shut the socket down for both sides; it stays open as a number, which nobody else can be given."""
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        twin.shutdown(socket.SHUT_RDWR)
