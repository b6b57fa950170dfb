"""PostgresStore: the Store port on the PostgreSQL that the team already has.

No server of its own and nothing to learn: a schema beside yours, one round trip for each call, one commit for
all who wait. What the server promises of a commit is what the store promises, and it is read from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from typing import Any, Self

from atoll.engines.parts import pages
from atoll.engines.parts.opening import Opening
from atoll.engines.postgresql import answers, history, ledger, reading, wires
from atoll.engines.postgresql.connecting import Facts, Met
from atoll.engines.postgresql.desk import Desk, Plan, shown_pool
from atoll.engines.postgresql.examining import PostgresExamining
from atoll.engines.postgresql.history import PostgresHistory
from atoll.engines.postgresql.leases import PostgresLeasing
from atoll.engines.postgresql.ledger import Asked
from atoll.engines.postgresql.moving import PostgresMoving
from atoll.engines.postgresql.options import StoreOptions
from atoll.engines.postgresql.wires import Row
from atoll.errors import ConfigurationError, MissingExtra
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Durable,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Ranged,
    Reach,
    StoreClaims,
    delete,
    put,
    unchanged,
)

EXPIRY_LATE_MAX_S = 1.0
"""Whoever reads, writes or watches ends what is over first; this is for a server that is busy."""


class PostgresStore:
    """A store in a PostgreSQL database. Inert until first use; reopens in a forked child.

    By an address (what a URL is parsed to), or by `pool`: a psycopg_pool.AsyncConnectionPool, an asyncpg
    Pool, or SQLAlchemy's AsyncEngine on either driver. A pool belongs to the event loop it was opened in.
    """

    def __init__(
        self, address: Address | None = None, *, pool: Any = None, options: StoreOptions | None = None
    ) -> None:
        self.options = options or StoreOptions()
        take = wires.given(pool) if pool is not None else None
        if (address is None) == (take is None):
            raise ConfigurationError(
                f"found {'an address and a pool' if take else f'{pool!r:.80}'}; expected one of: an address, "
                "or pool= a psycopg_pool.AsyncConnectionPool, an asyncpg Pool, or SQLAlchemy's AsyncEngine "
                "on one of the two."
            )
        if address is not None and find_spec("psycopg") is None:
            raise MissingExtra(
                'postgresql:// needs psycopg, which is not installed. Type: pip install "atoll[postgresql]"'
            )
        self._url = str(address) if address is not None else shown_pool(pool)
        self.met = Met()
        self._plan = Plan(address, take, self.options, self.met, self._url)
        self._desks: Opening[Desk] = Opening(self._plan.desk, Desk.close)
        self._leasing = PostgresLeasing(self)
        self._history = PostgresHistory(self)
        self._moving = PostgresMoving(self)
        self._examining = PostgresExamining(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `postgresql://user:password@host:5432/database?option=value` names."""
        return cls(address, options=address.parse_options(StoreOptions))

    def __repr__(self) -> str:
        return f"<Store {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leasing(self) -> Leasing | None:
        return self._leasing

    @property
    def history(self) -> History | None:
        return self._history

    @property
    def moving(self) -> Moving | None:
        return self._moving

    @property
    def examining(self) -> Examining | None:
        return self._examining

    @property
    def shadow(self) -> None:
        return None

    @property
    def life(self) -> int:
        """Rises when the handle is closed; a watch begun before it ends."""
        return self._desks.life

    async def open(self) -> StoreClaims:
        """Connect to the primary, check the tables, read the claims from the server. Cheap when open."""
        await self.desk()
        facts = self._facts()
        return StoreClaims(
            durable=_durable(facts),
            reach=Reach.NETWORK,
            expiry_late_max_s=EXPIRY_LATE_MAX_S,
            never_early=False,
            key_bytes_max=self.options.key_bytes_max,
            value_bytes_max=self.options.value_bytes_max,
            operations_max=self.options.operations_max,
            dedupe_window_s=self.options.dedupe_window_s,
            epoch_source="a row in the schema atoll, raised by moving.bump(); the system identifier and the "
            "timeline of the server are noted beside it",
            liveness_s=history.LIVENESS_S,
            incarnation=facts.incarnation,
        )

    async def close(self) -> None:
        """End this handle's watches with WatchLost and close its connections; a pool stays its owner's."""
        await self._desks.close()
        self.met.first = ""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        """See the port. The server is asked each time, so a failover is noticed whoever reconnected."""
        [(epoch, noted, here, _)] = await self.look("a look at the epoch", reading.EPOCH)
        if noted != here:
            raise answers.uncertain(noted, here, self._url)
        if (system := here.partition("/")[0]) != self.met.first:
            raise answers.another(self._url, self.met.first, system)
        return int(epoch)

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self.options)
        [row] = await self.read("a get", reading.GET, key.encode())
        return Got(reading.entry(key, row[reading.HEAD :]), row[1])

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision."""
        refusal.check_limit(limit)
        low, high = refusal.bounds(prefix, start, end)
        last = None if high is None else high.encode()
        rows = await self.read("a range", reading.range_(last), limit + 1, low.encode(), last)
        found = reading.entries(rows)
        return Ranged(found[:limit], rows[0][1], len(found) > limit)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        return await self.transact(put(key, value), compare=[unchanged(key, revision)])

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        return await self.transact(delete(key), compare=[unchanged(key, revision)])

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        refusal.check_transaction(then, compare, guard, self.options)
        if guard is not None:
            guard.check()
        return await self.write(ledger.checked(Asked(then, compare, guard, request_id)))

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. One observation for each transaction; a reset when it fell behind the history."""
        await self.open()
        async for observation in pages.observe(history.Pages(self), prefix):
            yield observation

    async def desk(self) -> Desk:
        """What this event loop has open, opened now if it is not."""
        return self._desks.inside or await self._desks.get()

    async def write(self, asked: Asked) -> Applied | Unmet:
        """One transaction, beside whatever else waits in this loop."""
        desk = await self.desk()
        rows = await desk.together.ask(asked)
        desk.bell.ring(rows[0][3])
        return ledger.answer(asked, rows, self._plan.terms())

    async def read(self, what: str, sql: str, *values: Any) -> list[Row]:
        """A look at the primary in which no lease is over; each row begins with reading's head."""
        while True:
            rows = await self.look(what, sql, *values)
            due = rows[0][reading.HEAD - 1]
            if due is None or due > 0:
                return rows
            await self.write(Asked())

    async def look(self, what: str, sql: str, *values: Any) -> list[Row]:
        """A look at the primary; it only reads, so a lost connection is tried once more."""
        rows = await (await self.desk()).pool.ask(what, sql, *values, repeats=True)
        if not rows:
            raise answers.standby(self._url)
        return rows

    async def ask(self, what: str, sql: str, *values: Any) -> list[Row]:
        """One statement that writes, and is not asked twice."""
        return await (await self.desk()).pool.ask(what, sql, *values)

    async def synchronous(self) -> str:
        """How this server commits, as claimed: each of our transactions says so itself."""
        await self.desk()
        return self._facts().synchronous_commit

    def _facts(self) -> Facts:
        assert self.met.facts is not None, "a desk was opened without meeting its server"
        return self.met.facts


def _durable(facts: Facts) -> Durable:
    """What an acknowledged commit survives, by the server's own settings."""
    if facts.fsync != "on" or facts.synchronous_commit == "off":
        return Durable.NONE
    if facts.standby_names and facts.synchronous_commit in ("on", "remote_apply"):
        return Durable.QUORUM
    return Durable.NODE
