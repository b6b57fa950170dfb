"""A user's own database on the session's PostgreSQL server, and each way a user may have a transaction in it.

Each kind opens one: it answers the library's own object and `run(sql)`, which answers the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import atoll
from atoll.verify.servers.cluster import Cluster

EMPTIED = ("inbox", "fence", "outbox")
Run = Callable[[str], Awaitable[list[tuple[Any, ...]]]]
Opened = tuple[Any, Run]
Kind = Callable[[str], AbstractAsyncContextManager[Opened]]


@dataclass(frozen=True, slots=True)
class Server:
    """Where the databases are, without the name of one."""

    address: str

    def url(self, database: str, address: str = "") -> str:
        return f"postgresql://postgres@{address or self.address}/{database}"


def server_of(cluster: Cluster) -> Server:
    return Server(cluster.addresses[0])


async def ask(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """The answer to the last of them, each committed alone."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            cursor = await connection.execute(statement.encode())
            rows = await cursor.fetchall() if cursor.description else []
        return rows


async def new_shop(server: Server, name: str) -> str:
    """A database of its own with Atoll's tables and one of the user's, `sale (id, what UNIQUE)`."""
    url = await new_bare(server, name)
    database = atoll.database(url)
    await database.schema.make()
    await database.close()
    await ask(url, "CREATE TABLE sale (id serial PRIMARY KEY, what text UNIQUE)")
    return url


async def new_bare(server: Server, name: str) -> str:
    """A database with nothing of Atoll's in it, quick because nobody cuts the power here."""
    await ask(
        server.url("postgres"),
        f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
        f"CREATE DATABASE {name}",
        f"ALTER DATABASE {name} SET synchronous_commit = off",
        f"ALTER DATABASE {name} SET deadlock_timeout = '100ms'",
    )
    return server.url(name)


async def emptied(url: str) -> str:
    """The same with nothing in it."""
    await ask(url, "; ".join(f"DELETE FROM {t}" for t in ("sale", *(f"atoll.{n}" for n in EMPTIED))))
    return url


def at(url: str, driver: str) -> str:
    """The URL as SQLAlchemy writes it."""
    return url.replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def psycopg_async(url: str) -> AsyncIterator[Opened]:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url) as connection:

        async def run(sql: str) -> list[Any]:
            cursor = await connection.execute(sql.encode())
            return await cursor.fetchall() if cursor.description else []

        yield connection, run


@asynccontextmanager
async def psycopg_plain(url: str) -> AsyncIterator[Opened]:
    import psycopg

    with psycopg.connect(url) as connection:

        async def run(sql: str) -> list[Any]:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

        yield connection, run


@asynccontextmanager
async def asyncpg_connection(url: str) -> AsyncIterator[Opened]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():

            async def run(sql: str) -> list[Any]:
                return [tuple(row) for row in await connection.fetch(sql)]

            yield connection, run
    finally:
        await connection.close()


def session_async(driver: str) -> Kind:
    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Opened]:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        engine = create_async_engine(at(url, driver))
        atoll.database(engine)
        async with AsyncSession(engine) as session, session.begin():

            async def run(sql: str) -> list[Any]:
                result: Any = await session.execute(text(sql))
                return [tuple(row) for row in result] if result.returns_rows else []

            yield session, run
        await engine.dispose()

    return opened


@asynccontextmanager
async def connection_async(url: str) -> AsyncIterator[Opened]:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(at(url, "asyncpg"))
    atoll.database(engine)
    async with engine.begin() as connection:

        async def run(sql: str) -> list[Any]:
            result: Any = await connection.execute(text(sql))
            return [tuple(row) for row in result] if result.returns_rows else []

        yield connection, run
    await engine.dispose()


@asynccontextmanager
async def session_plain(url: str) -> AsyncIterator[Opened]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(at(url, "psycopg"))
    atoll.database(engine)
    with Session(engine) as session, session.begin():

        async def run(sql: str) -> list[Any]:
            result: Any = session.execute(text(sql))
            return [tuple(row) for row in result] if result.returns_rows else []

        yield session, run
    engine.dispose()


@asynccontextmanager
async def connection_plain(url: str) -> AsyncIterator[Opened]:
    from sqlalchemy import create_engine, text

    engine = create_engine(at(url, "psycopg"))
    atoll.database(engine)
    with engine.begin() as connection:

        async def run(sql: str) -> list[Any]:
            result: Any = connection.execute(text(sql))
            return [tuple(row) for row in result] if result.returns_rows else []

        yield connection, run
    engine.dispose()


@asynccontextmanager
async def by_url(url: str) -> AsyncIterator[Opened]:
    async with atoll.database(url) as database, database.begin() as connection:

        async def run(sql: str) -> list[Any]:
            cursor = await connection.execute(sql.encode())
            return await cursor.fetchall() if cursor.description else []

        yield connection, run


KINDS: dict[str, Kind] = {
    "a URL of ours": by_url,
    "psycopg AsyncConnection": psycopg_async,
    "psycopg Connection": psycopg_plain,
    "asyncpg Connection": asyncpg_connection,
    "AsyncSession on asyncpg": session_async("asyncpg"),
    "AsyncSession on psycopg": session_async("psycopg"),
    "AsyncConnection on asyncpg": connection_async,
    "Session on psycopg": session_plain,
    "Connection on psycopg": connection_plain,
}
BLOCKING = {"psycopg Connection", "Session on psycopg", "Connection on psycopg"}
"""Whose statements block the thread, so that two of them cannot wait for each other in one."""


async def until_blocked(url: str, count: int = 1) -> None:
    """Until so many sessions of this database wait for a lock."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while (await ask(url, sql))[0][0] < count:
            await asyncio.sleep(0.02)
