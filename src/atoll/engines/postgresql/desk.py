"""Desk: what one event loop has open of a store: its connections, its writer, its bell.

A branch office. Each has its own telephones and its own queue at the door; what head office has learnt about
the server is known in all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.engines.parts.together import Limits, Together
from atoll.engines.postgresql import ddl, ledger, reading
from atoll.engines.postgresql.bell import Bell
from atoll.engines.postgresql.connecting import Met, Way, greet, is_direct
from atoll.engines.postgresql.ledger import Asked, Terms
from atoll.engines.postgresql.options import StoreOptions
from atoll.engines.postgresql.pool import OwnConnections, Pool
from atoll.engines.postgresql.wires import PsycopgWire, Row, Take, Wire
from atoll.errors import ConfigurationError, NotApplied, ReadOnly
from atoll.ports.address import Address

_FORMAT = "SELECT to_regclass('atoll.format') IS NOT NULL AND to_regclass('atoll.counter') IS NOT NULL"
_NUMBER = f"SELECT f.number FROM atoll.format f WHERE f.part = '{ddl.PART}'"


MARGIN = 0.9
"""The server gives up waiting a little before the caller does, so that there is an answer."""


@dataclass(slots=True, eq=False)
class Desk:
    """Everything of one event loop."""

    pool: Pool
    together: Together[Asked, list[Row]]
    bell: Bell
    own: OwnConnections | None

    async def close(self) -> None:
        await self.together.close()
        await self.bell.close()
        if self.own is not None:
            await self.own.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How desks are set up: by a URL's address, or with `take` from a pool that somebody handed over."""

    address: Address | None
    take: Take | None
    options: StoreOptions
    met: Met
    shown: str

    async def desk(self) -> Desk:
        """Connect, refuse what is no primary, check the format or make the tables."""
        own, where = None, self.shown
        if self.take is None:
            assert self.address is not None
            own = OwnConnections(Way(self.address, self.options, self.met), self.options.connections_max)
        take = self.take or (own.take if own is not None else None)
        assert take is not None
        pool = Pool(take, where=where, shown=self.shown, ceiling_s=self.options.ceiling_s)
        try:
            await pool.run("the first question", self._expected)
        except BaseException:
            if own is not None:
                await own.close()
            raise
        return Desk(pool, self._together(pool), self._bell(pool), own)

    async def _expected(self, wire: Wire) -> None:
        if self.take is not None:
            facts = await greet(wire)
            if facts.standby:
                raise ReadOnly(
                    f"{self.shown} leads to a standby: it may be behind and takes no writes. Hand over a "
                    "pool of connections to the primary."
                )
            self.met.note(facts, direct=False)
        assert self.met.facts is not None
        where = f"the database {self.met.facts.database!r}"
        found = await self._number(wire)
        if self.options.create:
            if found:  # a newer Atoll's functions are not written over
                ddl.check_format(found[0][0], where, self.shown)
            await wire.script(";\n".join(ddl.statements()))
            found = await self._number(wire)
        ddl.check_format(found[0][0] if found else None, where, self.shown)

    async def _number(self, wire: Wire) -> Sequence[Row]:
        """The format's row, where the tables are there."""
        [(there,)] = await wire.rows(_FORMAT, ())
        return await wire.rows(_NUMBER, ()) if there else []

    def terms(self) -> Terms:
        """What every call is made with, as the server was when it was last met."""
        assert self.met.facts is not None, "a desk was opened without meeting its server"
        return Terms(self.met.facts.synchronous_commit, self.options, self.shown)

    def _together(self, pool: Pool) -> Together[Asked, list[Row]]:
        async def send(calls: Sequence[Asked], left_s: float) -> Sequence[list[Row]]:
            words = ledger.values(calls, left_s * MARGIN, self.terms())
            return ledger.split(await pool.write("a transaction", ledger.TRANSACT, words), len(calls))

        limits = Limits(queue_max=self.options.queue_max, ceiling_s=self.options.ceiling_s)
        return Together(send, pool.where, limits)

    def _bell(self, pool: Pool) -> Bell:
        async def look() -> int:
            rows = await pool.ask("a look at the revision", reading.COUNTER, repeats=True)
            if not rows:
                raise NotApplied(f"{self.shown} is a standby now")
            return int(rows[0][1])

        return Bell(look, self._listening(), poll_s=self.options.poll_s)

    def _listening(self) -> Callable[[], Awaitable[tuple[PsycopgWire, str]]] | None:
        """How a line to listen on is opened; None where there is no way past a pooler."""
        notify = self.options.notify
        past = notify if "://" in notify else ""
        if notify == "off" or (notify == "auto" and not self.met.direct):
            return None
        if self.address is None and not past:
            return None
        met = Met() if past else self.met
        way = Way(self.address or Address(scheme="postgresql"), self.options, met, past=past)

        async def listen() -> tuple[PsycopgWire, str]:
            wire, facts = await way.connect()
            if not is_direct(wire, facts):  # whoever gets that session next would hear our bell
                await wire.connection.close()
                raise ConfigurationError(
                    f"found a pooler on the way that notify={self.options.notify.partition(':')[0]} names; "
                    "expected a straight line to the server."
                )
            return wire, facts.incarnation

        return listen


def shown_pool(pool: Any) -> str:
    """How a store on a pool is shown; there is no URL and nothing secret in it."""
    kind = f"{type(pool).__module__.partition('.')[0]}.{type(pool).__name__}"
    return f"postgresql://({kind})"
