"""Url pool: connections made from a URL, a small pool for each event loop, through psycopg.

A tap of our own where the user has none. The first turn tries the pipe by hand, because a pool that cannot
connect only says that it waited; what is wrong with the URL is then said at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from atoll.engines.parts.opening import Opening
from atoll.engines.postgresql import joined
from atoll.engines.postgresql.joined_sql import Script
from atoll.engines.postgresql.sqlstate import unconnected
from atoll.engines.postgresql.transaction import PsycopgAsyncSource
from atoll.errors import ConfigurationError, MissingExtra
from atoll.ports.address import Address

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

T = TypeVar("T")
MISSING = (
    'postgresql:// needs psycopg and its pool, which are not installed. Type: pip install "atoll[postgresql]"'
)


def conninfo(address: Address, socket: str, **words: object) -> str:
    """The address in libpq's words; what is empty is left to libpq and its PG... variables."""
    try:
        from psycopg.conninfo import make_conninfo
    except ModuleNotFoundError as error:
        raise MissingExtra(MISSING) from error
    hosts, ports = zip((address.host, address.port), *address.others, strict=True)
    named: dict[str, Any] = {
        "host": ",".join(hosts) or socket,
        "port": ",".join(str(port or "") for port in ports).strip(","),
        "user": address.user,
        "password": address.password,
        "dbname": address.path,
        **words,
    }
    return make_conninfo(**{word: value for word, value in named.items() if value not in (None, "")})


class UrlPool:
    """Transactions are `psycopg.AsyncConnection`s, at most `size` at once in each event loop."""

    def __init__(self, conninfo: str, where: str, *, size: int) -> None:
        self._conninfo, self._where, self._size = conninfo, where, size
        self._opening: Opening[AsyncConnectionPool] = Opening(self._make, _shut)

    async def _make(self) -> AsyncConnectionPool:
        try:
            from psycopg import AsyncConnection, Error
            from psycopg_pool import AsyncConnectionPool
        except ModuleNotFoundError as error:
            raise MissingExtra(MISSING) from error
        # Never prepared by name: behind PgBouncer another client's connection may have that name.
        words: dict[str, Any] = {"prepare_threshold": None}
        try:
            async with await AsyncConnection.connect(self._conninfo, **words):
                pass
        except Error as error:
            raise unconnected(error, self._where) from error
        pool = AsyncConnectionPool(
            self._conninfo,
            kwargs=words,
            min_size=0,
            max_size=self._size,
            open=False,
            check=AsyncConnectionPool.check_connection,
            name=f"atoll {self._where}",
        )
        await pool.open()
        return pool

    async def open(self, wait_s: float) -> None:
        """Connect once, to see that it can be done."""
        await self._opening.get()

    async def close(self) -> None:
        """Close this event loop's connections."""
        await self._opening.close()

    @asynccontextmanager
    async def begin(self, wait_s: float, *, reading: bool = False) -> AsyncIterator[Any]:
        pool = PsycopgAsyncSource(await self._opening.get(), self._where)
        async with pool.begin(wait_s, reading=reading) as connection:
            yield connection

    async def play(self, tx: Any, script: Script[T]) -> T:
        return await joined.on_psycopg_async(tx, script, self._where)


async def _shut(pool: AsyncConnectionPool) -> None:
    await pool.close()


def expect_database(address: Address) -> None:
    """A URL that names a server and a database."""
    if not address.path:
        raise ConfigurationError(
            f"found {address}, which names no database; expected postgresql://user@host:5432/shop."
        )
