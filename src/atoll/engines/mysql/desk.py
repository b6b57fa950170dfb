"""Desk: what one event loop has open of a store: its connections, its queue of writers, its bell.

A branch office. Each has its own telephones and its own queue at the door; what head office has learnt about
the server is known in all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from atoll.engines.mysql import ledger, reading, script
from atoll.engines.mysql.bell import Bell
from atoll.engines.mysql.connecting import Met, Way
from atoll.engines.mysql.ledger import Found
from atoll.engines.mysql.options import StoreOptions
from atoll.engines.mysql.pool import Pool
from atoll.engines.mysql.schema import made
from atoll.engines.mysql.script import Asked, Terms
from atoll.engines.mysql.wire import Wire
from atoll.engines.parts import call
from atoll.engines.parts.together import Limits, Together
from atoll.errors import AtollError, NotApplied, NotSent

MARGIN = 0.9
"""The server gives up waiting a little before the caller does, so that there is an answer."""
TRIM_EVERY = 64
CALLS_MAX, COUNT_MAX = 64, 600


@dataclass(slots=True, eq=False)
class Desk:
    """Everything of one event loop."""

    pool: Pool
    together: Together[Asked, Found]
    bell: Bell

    async def close(self) -> None:
        await self.together.close()
        await self.bell.close()
        await self.pool.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How desks are set up."""

    way: Way
    options: StoreOptions
    met: Met
    shown: str

    async def desk(self) -> Desk:
        """Connect, refuse what takes no writes, check the format or make the tables."""
        options = self.options

        async def connect() -> Wire:
            return (await self.way.connect())[0]

        async def first() -> Wire:
            if options.create:
                wire, facts = await self.way.connect(bare=True)
                try:
                    await made(wire, facts, self.shown)
                finally:
                    wire.cut()
            return await connect()

        left = call.left_s("the first question", options.ceiling_s)
        try:
            async with asyncio.timeout(left) as limit:
                wire = await first()
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotSent(
                f"no connection to {self.shown} could be made in {left:.3g} s. Nothing was asked. Is it "
                "running and reachable?"
            ) from None
        pool = Pool(connect, most=options.connections_max, where=self.shown, ceiling_s=options.ceiling_s)
        pool.add(wire)
        assert self.met.facts is not None
        limits = Limits(
            queue_max=options.queue_max,
            ceiling_s=options.ceiling_s,
            calls_max=CALLS_MAX,
            count_max=COUNT_MAX,
            bytes_max=self.met.facts.packet // 4,
        )
        writer = _Writer(pool, options, Terms(options.dedupe_window_s, self.met.facts.mariadb))

        async def look() -> int:
            [rows] = await pool.ask("a look at the revision", (reading.COUNTER,), reads=True)
            if not rows:
                raise NotApplied(f"{self.shown} has no counter now")
            return reading.head(rows[0]).revision

        return Desk(pool, Together(writer.send, self.shown, limits), Bell(look, poll_s=options.poll_s))


class _Writer:
    """Sends what leaves together, with the sweep in it when a lease is over."""

    def __init__(self, pool: Pool, options: StoreOptions, terms: Terms) -> None:
        self._pool, self._options, self._terms = pool, options, terms

    async def send(self, calls: Sequence[Asked], left_s: float) -> Sequence[Found]:
        """What was found for each call."""
        found = await self._sent(calls, left_s, sweeps=False)
        if any(ledger.kind(one) == script.AGAIN for one in found):
            found = await self._sent(calls, left_s, sweeps=True)
        if any(
            ledger.kind(one) == script.APPLIED and (asked.then or asked.ends is not None)
            for asked, one in zip(calls, found, strict=True)
        ):
            await self._trim(found)
        return found

    async def _sent(self, calls: Sequence[Asked], left_s: float, *, sweeps: bool) -> Sequence[Found]:
        mine = script.write(calls, left_s * MARGIN, self._terms, sweeps=sweeps)
        answered = await self._pool.ask("a transaction", mine.statements, commits=mine.commits)
        return script.rows_of(mine, answered)

    async def _trim(self, found: Sequence[Found]) -> None:
        """Whoever passes a round number does it, so that none pays for more than a few rows."""
        first, newest = (int(one[0][1] or 0) for one in (found[0], found[-1]))
        if first // TRIM_EVERY == (newest + 1) // TRIM_EVERY:
            return
        options = self._options
        statements = script.trim(newest, options.history_max, options.history_s_max, options.dedupe_window_s)
        with suppress(AtollError):  # the next one forgets as well
            await self._pool.ask("a trim", statements, commits=len(statements) - 1)
