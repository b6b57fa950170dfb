"""Pool: a few connections of one event loop, and the one verb all else is made of: ask a list of statements.

A taxi rank. The last one back goes out first, one that has lost its engine is noticed before you get in, and
nobody waits longer than they said they would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from atoll import clock
from atoll.engines.mysql import answers
from atoll.engines.mysql.wire import Row, Stopped, Wire
from atoll.engines.parts import call
from atoll.errors import NotSent, OutcomeUnknown

T = TypeVar("T")
RETRY_S = 0.005


class Pool:
    """Asks lists of statements, each in one round trip; says what is known where that fails."""

    def __init__(
        self, connect: Callable[[], Awaitable[Wire]], *, most: int, where: str, ceiling_s: float
    ) -> None:
        self._connect = connect
        self._idle: list[Wire] = []
        self._room = asyncio.Semaphore(most)
        self._closed = False
        self.where, self.ceiling_s = where, ceiling_s

    async def ask(
        self, what: str, statements: Sequence[str], *, reads: bool = False, commits: int | None = None
    ) -> list[Sequence[Row]]:
        """The rows of each statement. `reads`: nothing is written, so a lost connection is tried once more.

        `commits`: from which statement on an error is OutcomeUnknown, for it may stand already. None: none.
        """
        try:
            return await self._asked(what, statements, commits)
        except OutcomeUnknown:
            if not reads or clock.remaining_s(self.ceiling_s) <= 0:
                raise
            return await self._asked(what, statements, commits)

    async def _asked(self, what: str, statements: Sequence[str], commits: int | None) -> list[Sequence[Row]]:
        async def work(wire: Wire) -> list[Sequence[Row]]:
            while True:
                try:
                    return await wire.ask(statements)
                except Stopped as stopped:
                    late = commits is not None and commits <= stopped.at
                    if not answers.is_answer(stopped.error) or (late and not answers.undone(stopped.error)):
                        raise answers.unanswered(stopped.error, self.where) from stopped.error
                    if answers.number(stopped.error) not in answers.RETRY:
                        raise answers.refused(stopped.error, self.where, self.where) from stopped.error
                    await asyncio.sleep(RETRY_S * (1 + clock.chance().random()))

        return await self.run(what, work)

    async def run(self, what: str, work: Callable[[Wire], Awaitable[T]]) -> T:
        """What `work` answers on one connection, by the deadline; the line is cut when it does not."""
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
            return task.result()

    def add(self, wire: Wire) -> None:
        """One more, ready to be used."""
        self._idle.append(wire)

    async def renew(self) -> None:
        """Close what is idle, so that the next question greets the server anew."""
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        """Close what is idle; what is out is closed when it comes back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    @asynccontextmanager
    async def _taken(self, what: str, until: float) -> AsyncIterator[Wire]:
        try:
            async with asyncio.timeout_at(until) as limit:
                await self._room.acquire()
                try:
                    wire = await self._next()
                except BaseException:
                    self._room.release()
                    raise
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotSent(
                f"no connection to {self.where} was free or could be made in time for {what}. Nothing was "
                "sent. Is it running and reachable? Are all its connections in use?"
            ) from None
        try:
            yield wire
        finally:
            self._room.release()
            if wire.quiet and not self._closed:
                self._idle.append(wire)
            else:
                await wire.close()

    async def _next(self) -> Wire:
        while self._idle:
            wire = self._idle.pop()
            if wire.quiet:
                return wire
            wire.cut()
        return await self._connect()


async def _give_up(task: asyncio.Future[T], wire: Wire) -> None:
    """Cut the line; then its waiter ends by itself, with an error that nobody needs."""
    wire.cut()
    done, _ = await asyncio.wait({task}, timeout=1.0)
    if not done:
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=1.0)
    if done and not task.cancelled():
        task.exception()
