"""MysqlStore: the Store port on the MariaDB, or MySQL, that the team already has.

No server of its own: six tables beside yours, one round trip for each call, one commit for all who wait.
What the server's settings promise of a commit is what the store promises, and it is read from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from typing import Self

from atoll.engines.mysql import answers, history, ledger, reading
from atoll.engines.mysql.connecting import Facts, Met, Way
from atoll.engines.mysql.desk import Desk, Plan
from atoll.engines.mysql.examining import MysqlExamining
from atoll.engines.mysql.history import MysqlHistory
from atoll.engines.mysql.leases import MysqlLeasing
from atoll.engines.mysql.moving import MysqlMoving
from atoll.engines.mysql.options import StoreOptions
from atoll.engines.mysql.reading import Head
from atoll.engines.mysql.schema import MysqlSchema
from atoll.engines.mysql.script import Asked
from atoll.engines.mysql.wire import Row
from atoll.engines.parts import pages
from atoll.engines.parts.opening import Opening
from atoll.errors import LimitReached, MissingExtra
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
PACKET_ROOM = 16_384
"""What a transaction says beside its values."""


class MysqlStore:
    """A store in a MariaDB or MySQL database. Inert until first use; reopens in a forked child."""

    def __init__(self, address: Address, *, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        if find_spec("asyncmy") is None:
            raise MissingExtra(
                'mysql:// needs asyncmy, which is not installed. Type: pip install "atoll[mysql]"'
            )
        self._url = str(address)
        self.met = Met()
        plan = Plan(Way(address, self.options, self.met, self._url), self.options, self.met, self._url)
        self._desks: Opening[Desk] = Opening(plan.desk, Desk.close)
        self._schema = MysqlSchema(
            lambda: Way(address, self.options, Met(), self._url), self._url, self.options.ceiling_s
        )
        self._leasing = MysqlLeasing(self)
        self._history = MysqlHistory(self)
        self._moving = MysqlMoving(self)
        self._examining = MysqlExamining(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `mysql://user:password@host:3306/database?option=value` names."""
        return cls(address, options=address.parse_options(StoreOptions))

    def __repr__(self) -> str:
        return f"<Store {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def schema(self) -> MysqlSchema:
        """What `atoll schema URL` prints and makes."""
        return self._schema

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
        """Connect, check the tables, read the claims from the server. Cheap when open."""
        await self.desk()
        facts = self.facts()
        return StoreClaims(
            durable=_durable(facts),
            reach=Reach.NETWORK,
            expiry_late_max_s=EXPIRY_LATE_MAX_S,
            never_early=False,
            key_bytes_max=self.options.key_bytes_max,
            value_bytes_max=self.value_bytes_max,
            operations_max=self.options.operations_max,
            dedupe_window_s=self.options.dedupe_window_s,
            epoch_source="a row of atoll_counter, raised by moving.bump(); the server's id and when its "
            "tables were made there are noted beside it",
            liveness_s=history.LIVENESS_S,
            incarnation=facts.here,
        )

    async def close(self) -> None:
        """End this handle's watches with WatchLost and close its connections."""
        await self._desks.close()
        self.met.identity, self.met.epoch = "", 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def key_bytes_max(self) -> int:
        return self.options.key_bytes_max

    @property
    def operations_max(self) -> int:
        return self.options.operations_max

    @property
    def value_bytes_max(self) -> int:
        """What is asked for, or what the server's packet leaves room for: a value travels as hexadecimals."""
        if self.met.facts is None:
            return self.options.value_bytes_max
        return min(self.options.value_bytes_max, (self.met.facts.packet - PACKET_ROOM) // 2)

    async def epoch(self) -> int:
        """See the port. The server is asked each time, so a failover is noticed whoever reconnected."""
        for _ in range(2):
            answered = await (await self.desk()).pool.ask("a look at the epoch", (reading.EPOCH,), reads=True)
            head = self._head(answered[0])
            made = answered[0][0][-1].decode()
            if head.here.rpartition("/")[2] == made and head.noted == head.here:
                return head.epoch
            await self.fresh()
        raise answers.uncertain(head.noted, head.here, self._url)

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self)
        head, rows = await self.read("a get", reading.get(key))
        return Got(ledger.entry_of(rows[0]) if rows else None, head.revision)

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision."""
        refusal.check_limit(limit)
        low, high = refusal.bounds(prefix, start, end)
        head, rows = await self.read("a range", reading.range_(low, high, limit + 1))
        found = tuple(map(ledger.entry_of, rows))
        return Ranged(found[:limit], head.revision, len(found) > limit)

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
        refusal.check_transaction(then, compare, guard, self)
        if guard is not None:
            guard.check()
        asked = ledger.checked(Asked(then, compare, guard, request_id))
        if self.met.facts is None:
            await self.desk()
            refusal.check_transaction(then, compare, guard, self)
        if asked.weight > self.facts().packet - PACKET_ROOM:
            raise LimitReached(
                f"found a transaction of about {asked.weight} bytes on the wire; {self._url} takes "
                f"{self.facts().packet} (max_allowed_packet). Split it, or raise that on the server."
            )
        return await self.write(asked)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. One observation for each transaction; a reset when it fell behind the history."""
        await self.open()
        async for observation in pages.observe(history.Pages(self), prefix):
            yield observation

    async def desk(self) -> Desk:
        """What this event loop has open, opened now if it is not."""
        return self._desks.inside or await self._desks.get()

    async def fresh(self) -> None:
        """Greet the server anew before the next question: what it says of itself may have changed."""
        await (await self.desk()).pool.renew()

    async def write(self, asked: Asked) -> Applied | Unmet:
        """One transaction, beside whatever else waits in this loop."""
        desk = await self.desk()
        found = await desk.together.ask(asked)
        self.met.epoch = max(self.met.epoch, int(found[0][2] or 0))
        answer = ledger.answer(asked, found, self._url)
        desk.bell.ring(answer.revision)
        return answer

    async def read(self, what: str, *questions: str) -> tuple[Head, Sequence[Row]]:
        """A look in which no lease is over."""
        while True:
            head, rows = await self.look(what, *questions)
            if head.due_s > 0:
                return head, rows
            await self.write(Asked())

    async def look(self, what: str, *questions: str) -> tuple[Head, Sequence[Row]]:
        """A snapshot; it only reads, so a lost connection is tried once more."""
        statements = reading.snapshot(*questions) if questions else (reading.COUNTER,)
        answered = await (await self.desk()).pool.ask(what, statements, reads=True)
        head = self._head(answered[reading.SEEN - 1 if questions else 0])
        return head, answered[reading.SEEN] if questions else ()

    def _head(self, counter: Sequence[Row]) -> Head:
        if not counter:
            raise answers.no_counter(self._url)
        head = reading.head(counter[0])
        if head.takes_none:
            raise answers.replica(self._url)
        self.met.epoch = max(self.met.epoch, head.epoch)
        return head

    async def ask(self, what: str, statements: Sequence[str], *, commits: int) -> Sequence[Sequence[Row]]:
        """Statements that write, and are not asked twice; see Pool.ask."""
        return await (await self.desk()).pool.ask(what, statements, commits=commits)

    def facts(self) -> Facts:
        """What the server said of itself when this handle last connected."""
        assert self.met.facts is not None, "a desk was opened without meeting its server"
        return self.met.facts


def _durable(facts: Facts) -> Durable:
    """What an acknowledged commit survives, by the server's own settings."""
    said = facts.variables
    flushed = said.get("innodb_flush_log_at_trx_commit") == "1"
    whole = said.get("innodb_doublewrite", "ON") not in ("OFF", "0")
    return Durable.NODE if flushed and whole else Durable.NONE
