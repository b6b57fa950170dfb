"""Ways to a PostgreSQL server: a porter who counts, the pools that a team has, databases of a test's own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from atoll.engines.postgresql import PostgresStore
from atoll.engines.postgresql.options import StoreOptions
from atoll.verify.servers import postgresql

_names = itertools.count()
KINDS = ("psycopg_pool", "asyncpg", "sqlalchemy+asyncpg", "sqlalchemy+psycopg")


async def database(port: int, *, tables: bool = True) -> str:
    """A new database at `port`; its URL."""
    name = f"own{next(_names)}"
    await postgresql.ask(port, f"CREATE DATABASE {name}")
    url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
    if tables:
        import atoll.urls

        async with atoll.urls.store(f"{url}?create=true"):
            pass
    return url


@asynccontextmanager
async def handed(kind: str, url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    """A store on a pool or engine that the team made by itself."""
    async with _pool(kind, url) as pool:
        store = PostgresStore(pool=pool, options=StoreOptions(**options))
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def _pool(kind: str, url: str) -> AsyncIterator[Any]:
    if kind == "psycopg_pool":
        import psycopg_pool

        async with psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=3, open=False) as pool:
            yield pool
    elif kind == "asyncpg":
        import asyncpg

        async with asyncpg.create_pool(url, min_size=1, max_size=3) as pool:
            yield pool
    else:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(url.replace("postgresql", f"postgresql+{kind.partition('+')[2]}"))
        yield engine
        await engine.dispose()


class Porter:
    """Carries bytes between a client and the server, and counts how often the client asks after an answer.

    `hold` keeps what the server answers; `cut` breaks all lines.
    """

    def __init__(self, port: int) -> None:
        self._port, self._lines = port, set[asyncio.StreamWriter]()
        self.turns = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def __aenter__(self) -> Porter:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for line in self._lines:
            line.transport.abort()
        self._lines.clear()

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        self._lines |= {to_client, to_server}
        answered = True

        async def out() -> None:
            nonlocal answered
            while data := await client.read(1 << 16):
                self.turns += answered
                answered = False
                to_server.write(data)

        async def back() -> None:
            nonlocal answered
            while data := await server.read(1 << 16):
                answered = True
                await self.hold.wait()
                to_client.write(data)

        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            carrying = [asyncio.create_task(out()), asyncio.create_task(back())]
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)
        for line in (to_client, to_server):
            line.transport.abort()
            self._lines.discard(line)
