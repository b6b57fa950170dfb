"""PostgreSQL as the user's database: transactions, outbox, inbox, fence; by URL or by the pool they have.

The user's own tables with a few of ours in a schema beside them. A transaction is the client library's own
connection with a transaction begun on it: psycopg's by URL, otherwise whatever the pool hands out.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

from atoll import clock
from atoll.engines.parts.call import left_s
from atoll.engines.postgresql import joined, joined_sql
from atoll.engines.postgresql.joined_sql import Script
from atoll.engines.postgresql.schema import PostgresSchema
from atoll.engines.postgresql.transaction import AsyncpgSource, PsycopgSource, Source, source_of
from atoll.engines.postgresql.url_pool import UrlPool, conninfo, expect_database
from atoll.errors import AtollError, ConfigurationError
from atoll.ports.address import Address
from atoll.ports.joined import Joined, Staged

T = TypeVar("T")

PRUNE_EVERY = 256
"""Commits between two looks at the inbox for ids past their retention; each look forgets at most 1,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Options of a `postgresql://` database. Times in seconds; "": as libpq has it (PGSSLMODE ...)."""

    create: bool = False
    """Make the tables if they are missing; for tests. Elsewhere: `atoll schema URL`."""
    connections_max: int = 8
    """Connections in each event loop: how many transactions may be open at once, readers included."""
    wait_s: float = 10.0
    """How long `begin` waits for a connection, before NotSent."""
    connect_s: float = 10.0
    """How long one try to connect may take."""
    ceiling_s: float = 30.0
    """How long a call of the outbox's relay may take, before OutcomeUnknown."""
    inbox_retention_s: float = 7 * 86400.0
    """How long `once` remembers an id."""
    host: str = ""
    """The folder of a Unix socket, as in postgresql:///shop?host=/var/run/postgresql."""
    application_name: str = "atoll"
    sslmode: str = ""
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""
    target_session_attrs: str = ""
    """`read-write` skips standbys among several hosts."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, bool | str) and not 0 < value < math.inf:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")


_LIBPQ = (
    "application_name",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
)


class PostgresDatabase:
    """A database on PostgreSQL. Inert until first use; `postgresql://user@host/shop`, or your pool.

    Its tables stand in the schema `atoll`, made by `atoll schema` and never by surprise. A pool stays yours:
    it is opened if it is not, and never closed. Two-phase transactions are not in this release.
    """

    def __init__(
        self, pool: object, *, name: str | None = None, options: DatabaseOptions | None = None
    ) -> None:
        self.options = options or DatabaseOptions()
        self._name = name or "postgresql"
        self._where = f"the database {self._name}"
        self._pool: Source = pool if isinstance(pool, UrlPool) else source_of(pool, self._where)
        self._joined = _joined_of(self._pool)
        self._ready_in = 0
        self._commits = 0

    @classmethod
    def from_address(cls, address: Address, *, name: str | None = None) -> Self:
        """What `atoll.database("postgresql://...")` makes."""
        options = address.parse_options(DatabaseOptions)
        expect_database(address)
        words = {word: getattr(options, word) for word in _LIBPQ}
        info = conninfo(address, options.host, connect_timeout=max(1, round(options.connect_s)), **words)
        made = cls(
            UrlPool(info, str(address), size=options.connections_max),
            name=name or address.path,
            options=options,
        )
        made._where = str(address)
        return made

    def __repr__(self) -> str:
        return f"<Database {self._where}>"

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
        """None: PREPARE TRANSACTION is not used in this release."""
        return None

    @property
    def schema(self) -> PostgresSchema:
        """The tables: what `atoll schema` prints and makes."""
        return PostgresSchema(self._pool, self._where, self.options.wait_s)

    async def open(self) -> None:
        """Connect, and check that the tables are there. None is made: that is `atoll schema`."""
        if self._ready_in == os.getpid():
            return
        wait_s = left_s("a connection", self.options.wait_s)
        await self._pool.open(wait_s)
        if self.options.create:
            await self.schema.make()
        await self._play(joined_sql.check_format(self._where), "the format of its tables")
        self._ready_in = os.getpid()

    async def close(self) -> None:
        """Close what was opened by URL; a pool of the user's stays open."""
        self._ready_in = 0
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        """A transaction on the library's own connection: `async with db.begin() as tx`.

        An error or a cancellation in the body rolls back; leaving it commits. A connection that is lost
        during COMMIT is OutcomeUnknown.
        """
        await self.open()
        async with self._pool.begin(left_s("BEGIN", self.options.wait_s)) as tx:
            yield tx
        self._commits += 1
        if self._commits % PRUNE_EVERY == 0:
            with contextlib.suppress(AtollError):  # left to the next
                await self._play(joined_sql.prune(self.options.inbox_retention_s), "a look at the inbox")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        """A transaction that only reads, all of it one snapshot (REPEATABLE READ, READ ONLY)."""
        await self.open()
        async with self._pool.begin(left_s("BEGIN", self.options.wait_s), reading=True) as tx:
            yield tx

    # --- Relaying ---

    async def staged(self, limit: int, *, claim_s: float, queues: Sequence[str]) -> Sequence[Staged]:
        """The oldest outbox messages of these queues that nobody claimed, claimed for `claim_s`."""
        await self.open()
        if not await self._play(joined_sql.any_staged(queues), "a look at the outbox"):
            return []
        return await self._play(joined_sql.staged(limit, claim_s, queues), "a claim on the outbox")

    async def forget(self, positions: Sequence[int]) -> None:
        """Remove outbox messages that have been sent."""
        await self.open()
        await self._play(joined_sql.forget(positions), "the removal of sent messages")

    async def waiting(self) -> tuple[int, float]:
        """How many messages the outbox holds, and the age of the oldest in seconds."""
        await self.open()
        return await self._play(joined_sql.waiting(), "a look at the outbox")

    async def queues(self) -> Sequence[str]:
        """The names of the queues that the outbox holds messages for."""
        await self.open()
        return await self._play(joined_sql.queues(), "a look at the outbox")

    async def _play(self, script: Script[T], what: str) -> T:
        """A script in a transaction of its own, by the deadline in force."""

        left = left_s(what, self.options.ceiling_s)
        with clock.deadline(left):
            async with self._pool.begin(min(left, self.options.wait_s)) as tx:
                return await self._pool.play(tx, script)


def _joined_of(pool: Source) -> Joined:
    if isinstance(pool, AsyncpgSource):
        return joined.ON_ASYNCPG
    return joined.ON_PSYCOPG if isinstance(pool, PsycopgSource) else joined.JOINED
