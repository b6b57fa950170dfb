"""Url pool: connections made from a URL through psycopg, a few for each event loop.

A taxi rank of our own where the user has none. Who comes takes the last one back, or sends for a new one and
is told at once why none comes: a pool that goes on trying by itself could only say that it waited.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from atoll import clock
from atoll.engines.parts.opening import Opening
from atoll.engines.postgresql import joined
from atoll.engines.postgresql.joined_sql import Script
from atoll.engines.postgresql.transaction import on_connection, reaching
from atoll.errors import ConfigurationError, MissingExtra, NotSent
from atoll.ports.address import Address

if TYPE_CHECKING:
    from psycopg import AsyncConnection

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


@dataclass(slots=True)
class _Rank:
    """The connections of one event loop: those that stand idle, and how many more may be out."""

    free: asyncio.Semaphore
    idle: list[AsyncConnection[Any]] = field(default_factory=list)
    closed: bool = False


class UrlPool:
    """Transactions are `psycopg.AsyncConnection`s, at most `size` at once in each event loop."""

    def __init__(self, conninfo: str, where: str, *, size: int) -> None:
        self._conninfo, self._where, self._size = conninfo, where, size
        self._ranks: Opening[_Rank] = Opening(self._make, _shut)

    async def _make(self) -> _Rank:
        return _Rank(asyncio.Semaphore(self._size))

    async def open(self, wait_s: float) -> None:
        """Nothing: the first transaction connects."""

    async def close(self) -> None:
        """Close this event loop's idle connections; one that is out is closed when it comes back."""
        await self._ranks.close()

    @asynccontextmanager
    async def begin(self, wait_s: float, *, reading: bool = False) -> AsyncIterator[Any]:
        until = clock.loop_now() + wait_s
        rank = await self._ranks.get()
        try:
            async with asyncio.timeout(wait_s):
                await rank.free.acquire()
        except TimeoutError as error:
            raise NotSent(
                f"{self._where}: no connection was free within {wait_s:.3g} s; all {self._size} are in use "
                "(connections_max). Nothing was asked. Keep transactions short, or allow more."
            ) from error
        connection: AsyncConnection[Any] | None = None
        try:
            connection = await self._take(rank, until - clock.loop_now())
            left = max(0.0, until - clock.loop_now())
            async with on_connection(connection, self._where, left, reading=reading):
                yield connection
        finally:
            rank.free.release()
            if connection is not None:
                await _give_back(rank, connection)

    async def _take(self, rank: _Rank, left_s: float) -> AsyncConnection[Any]:
        """One that stands idle and is not broken, the last one back first; else a new one."""
        while rank.idle:
            if _quiet(connection := rank.idle.pop()):
                return connection
            await connection.close()
        try:
            from psycopg import AsyncConnection
        except ModuleNotFoundError as error:
            raise MissingExtra(MISSING) from error
        with reaching(self._where):
            async with asyncio.timeout(max(0.0, left_s)):
                # Never prepared by name: behind PgBouncer another client's connection may have that name.
                return await AsyncConnection.connect(self._conninfo, prepare_threshold=None)

    async def play(self, tx: Any, script: Script[T]) -> T:
        return await joined.on_psycopg_async(tx, script, self._where)


def _quiet(connection: AsyncConnection[Any]) -> bool:
    """Whether it is alive as far as one can see: a server that went away has said so on the line."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)


async def _give_back(rank: _Rank, connection: AsyncConnection[Any]) -> None:
    from psycopg.pq import TransactionStatus

    if rank.closed or connection.info.transaction_status != TransactionStatus.IDLE:
        await connection.close()
    else:
        rank.idle.append(connection)


async def _shut(rank: _Rank) -> None:
    rank.closed = True
    while rank.idle:
        await rank.idle.pop().close()


def expect_database(address: Address) -> None:
    """A URL that names a server and a database."""
    if not address.path:
        raise ConfigurationError(
            f"found {address}, which names no database; expected postgresql://user@host:5432/shop."
        )
