"""Pool: a few connections of one event loop, and the one verb all else is made of: ask one statement.

A taxi rank. The last one back goes out first, one that has lost its engine is noticed before you get in, and
nobody waits longer than they said they would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.postgresql import answers
from atoll.engines.postgresql.connecting import Way
from atoll.engines.postgresql.sqlstate import unconnected
from atoll.engines.postgresql.wires import PsycopgWire, Row, Take, Wire
from atoll.errors import AtollError, NotSent, OutcomeUnknown

T = TypeVar("T")
RETRY_S = 0.005


class OwnConnections:
    """Connections made from a URL, at most `most`, by one event loop."""

    def __init__(self, way: Way, most: int) -> None:
        self._way = way
        self._idle: list[PsycopgWire] = []
        self._room = asyncio.Semaphore(most)
        self._closed = False

    def take(self) -> AbstractAsyncContextManager[Wire]:
        """A connection for one question."""
        return self._taken()

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Wire]:
        async with self._room:
            wire = await self._next()
            try:
                yield wire
            except BaseException:
                if self._closed or not _quiet(wire):
                    await wire.connection.close()
                    raise
                self._idle.append(wire)
                raise
            self._idle.append(wire)
            if self._closed:
                await self.close()

    async def _next(self) -> PsycopgWire:
        while self._idle:
            wire = self._idle.pop()
            if wire.idle:
                return wire
            await wire.connection.close()
        return (await self._way.connect())[0]

    async def close(self) -> None:
        """Close what is idle; what is out is closed when it comes back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().connection.close()


class Pool:
    """Asks one statement, in one transaction, in one round trip; says what is known where that fails."""

    def __init__(self, take: Take, *, where: str, shown: str, ceiling_s: float) -> None:
        self._take = take
        self.where, self.shown, self.ceiling_s = where, shown, ceiling_s

    async def ask(self, what: str, sql: str, *values: Any, repeats: bool = False) -> list[Row]:
        """The rows. `repeats`: it only reads, so a lost connection is tried once more.

        NotSent: nothing was asked. OutcomeUnknown: sent, and no answer. Else what the server answered.
        """
        try:
            return await self._rows(what, sql, values)
        except OutcomeUnknown:
            if not repeats or clock.remaining_s(self.ceiling_s) <= 0:
                raise
            return await self._rows(what, sql, values)

    async def write(self, what: str, sql: str, values: Sequence[Any]) -> list[Row]:
        """The same for a task that nobody cancels: its statement needs no task of its own."""
        left = call.left_s(what, self.ceiling_s)
        until = clock.loop_now() + left
        async with self._taken(what, until) as wire:
            late = False

            def cut() -> None:
                nonlocal late
                late = True
                wire.cut()

            alarm = asyncio.get_running_loop().call_at(until, cut)
            try:
                rows = await _asked(wire, sql, values)
            except Exception as error:
                if late:
                    raise call.unknown(what, self.where, left) from None
                raise self._said(error) from error
            finally:
                alarm.cancel()
            return self._copied(wire, rows)

    async def run(self, what: str, work: Callable[[Wire], Awaitable[T]]) -> T:
        """What `work` answers on one connection, by the deadline."""
        left = call.left_s(what, self.ceiling_s)
        until = clock.loop_now() + left
        async with self._taken(what, until) as wire:
            task = asyncio.ensure_future(work(wire))
            try:
                await asyncio.wait({task}, timeout=max(0.0, until - clock.loop_now()))
            except asyncio.CancelledError:
                await _give_up(task, wire)
                raise
            if not task.done():
                await _give_up(task, wire)
                raise call.unknown(what, self.where, left)
            try:
                answer = task.result()
            except AtollError:
                raise
            except Exception as error:
                raise self._said(error) from error
            return self._copied(wire, answer)

    def _said(self, error: Exception) -> AtollError:
        if answers.is_answer(error):
            return answers.refused(error, self.where, self.shown)
        return answers.unanswered(error, self.where)

    def _copied(self, wire: Wire, answer: T) -> T:
        if wire.doubt is not None:
            raise answers.not_copied(wire.doubt, self.where)
        return answer

    async def _rows(self, what: str, sql: str, values: Sequence[Any]) -> list[Row]:
        return await self.run(what, lambda wire: _asked(wire, sql, values))

    @asynccontextmanager
    async def _taken(self, what: str, until: float) -> AsyncIterator[Wire]:
        taking = self._take()
        try:
            async with asyncio.timeout_at(until) as limit:
                wire = await taking.__aenter__()
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotSent(
                f"no connection to {self.where} was free or could be made in time for {what}. Nothing was "
                "sent. Is it running and reachable? Are all its connections in use?"
            ) from None
        except AtollError:
            raise
        except Exception as error:
            raise unconnected(error, self.where) from error
        try:
            yield wire
        except BaseException as error:
            with suppress(Exception):  # whatever its pool says of it, the error stays the error
                await taking.__aexit__(type(error), error, error.__traceback__)
            raise
        else:
            await taking.__aexit__(None, None, None)


async def _asked(wire: Wire, sql: str, values: Sequence[Any]) -> list[Row]:
    while True:
        try:
            return await wire.rows(sql, values)
        except Exception as error:
            if not answers.retried(error):
                raise
            await asyncio.sleep(RETRY_S * (1 + clock.chance().random()))


async def _give_up(task: asyncio.Future[Any], wire: Wire) -> None:
    """Cut the line; then its waiter ends by itself, with an error that nobody needs."""
    wire.cut()
    done, _ = await asyncio.wait({task}, timeout=1.0)
    if not done:
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=1.0)
    if done and not task.cancelled():
        task.exception()


def _quiet(wire: PsycopgWire) -> bool:
    """Whether the connection is in step after an error: the server answered and nothing is open."""
    from psycopg.pq import TransactionStatus

    connection = wire.connection
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
