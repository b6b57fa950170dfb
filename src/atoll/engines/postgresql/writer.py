"""Writer: the writes that wait in one event loop leave together, as one statement and one commit.

A lift with one door. While it is on its way those who come wait on the floor; when it is back they all step
in, and the journey costs one of them as much as forty. Who waits too long turns round and has done nothing;
who is inside when it stops between the floors does not know where they are.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from dataclasses import dataclass
from typing import Any

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.postgresql import ledger
from atoll.engines.postgresql.ledger import Asked, Terms
from atoll.engines.postgresql.pool import Pool
from atoll.engines.postgresql.wires import Row
from atoll.errors import NotApplied, NotSent, OutcomeUnknown, Overloaded

CALLS_MAX, COUNT_MAX, BYTES_MAX = 256, 2000, 4 << 20
MARGIN = 0.9
"""The server gives up waiting a little before the caller does, so that there is an answer."""


@dataclass(slots=True, eq=False)
class _Waiting:
    asked: Asked
    until: float
    rows: asyncio.Future[list[Row]]
    sent: bool = False


class Writer:
    """One loop's writes, in the order in which they came; one statement of them is on its way at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Waiting] = deque()
        self._going: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked, terms: Terms) -> list[Row]:
        """The rows that answer `asked`. NotSent or Overloaded: it never left."""
        what, options = "a transaction", terms.options
        left = call.left_s(what, options.ceiling_s)
        if len(self._waiting) >= options.queue_max:
            raise Overloaded(
                f"found {len(self._waiting)} writes waiting for {self._pool.where} in this process; expected "
                f"fewer than {options.queue_max} (queue_max). Come back later."
            )
        mine = _Waiting(asked, clock.loop_now() + left, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go(terms), context=clock.detached())
        try:
            async with asyncio.timeout_at(mine.until) as limit:
                return await mine.rows
        except TimeoutError:
            if not limit.expired():
                raise
            if mine.sent:
                raise call.unknown(what, self._pool.where, left, asked.request_id) from None
            raise NotSent(
                f"the deadline passed while {what} waited for its turn to {self._pool.where}: "
                f"the writes before it took {left:.3g} s. Nothing of it was sent."
            ) from None
        except OutcomeUnknown as error:
            error.id = error.id or asked.request_id
            raise
        finally:
            if not mine.sent and mine in self._waiting:
                self._waiting.remove(mine)

    async def close(self) -> None:
        """Wait for nobody: what has not left is NotSent."""
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.rows.done():
                mine.rows.set_exception(NotSent(f"{self._pool.where} was closed. Nothing of it was sent."))

    async def _go(self, terms: Terms) -> None:
        while self._waiting:
            together = self._together()
            if await self._answered(together, terms):
                continue
            for one in together:  # one of them is refused for a reason of its own
                await self._answered([one], terms)

    async def _answered(self, together: list[_Waiting], terms: Terms) -> bool:
        """Send them and hand out the answers. False: the server refused them for what one of them says."""
        try:
            rows = await self._send([one.asked for one in together], together, terms)
        except Exception as error:
            if type(error) is NotApplied and len(together) > 1:
                return False
            for one in together:
                if not one.rows.done():
                    one.rows.set_exception(copy.copy(error))
            return True
        for one, mine in zip(together, rows, strict=True):
            if not one.rows.done():
                one.rows.set_result(mine)
        return True

    async def _send(self, calls: list[Asked], together: list[_Waiting], terms: Terms) -> list[list[Row]]:
        left = max(one.until for one in together) - clock.loop_now()
        if left <= 0:
            raise NotSent(f"the turn to {self._pool.where} came after the deadline. Nothing was sent.")
        with clock.deadline(left):
            words: list[Any] = ledger.values(calls, left * MARGIN, terms)
            rows = await self._pool.write("a transaction", ledger.TRANSACT, words)
        return ledger.split(rows, len(calls))

    def _together(self) -> list[_Waiting]:
        """The next to leave, marked as sent."""
        found: list[_Waiting] = []
        count = weight = 0
        while self._waiting and len(found) < CALLS_MAX:
            asked = self._waiting[0].asked
            count, weight = count + asked.size, weight + asked.weight
            if found and (count > COUNT_MAX or weight > BYTES_MAX):
                break
            one = self._waiting.popleft()
            one.sent = True
            found.append(one)
        return found
