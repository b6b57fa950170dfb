"""Advisory locks of PostgreSQL, beside Atoll on the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from benchmarks.rivals.lock_sides import ATOLL, Side


@asynccontextmanager
async def advisory(url: str) -> AsyncIterator[Callable[[str], AbstractAsyncContextManager[object]]]:
    """pg_advisory_lock in a session of its own; no lease, so a holder that is cut off keeps it for long."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(url.partition("?")[0], autocommit=True) as connection:

        @asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            await connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
            try:
                yield
            finally:
                await connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))

        yield lock


SIDES = (
    ATOLL,
    Side("pg_advisory_lock", opened=advisory, weaker="no token, no lease, nothing written, a session each"),
)
