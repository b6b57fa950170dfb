"""Line: those who wait in one event loop for something to be ready in one queue.

At a baker's the first in line watches the oven for all. When six rolls come out, six are called; the next in
line watches on. So an idle queue costs one watcher, and a put does not wake a thousand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from atoll import clock

Look = Callable[[int], Awaitable[tuple[int, float]]]
"""`look(most)` answers how many are ready, and in how many seconds one comes due by itself (inf: never)."""
Watch = Callable[[float], Awaitable[None]]
"""`watch(wait_s)` returns when something has changed since the last look, or after `wait_s`."""


PROMOTED_S = 0.05
"""How long a new first in line leaves the ready ones to those who were called for them."""


class Line:
    """First come, first called. Used from one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @property
    def empty(self) -> bool:
        return not self._waiting

    async def wait(self, until: float, look: Look, watch: Watch) -> bool:
        """True when something is worth asking for, False at `until` (by the loop clock)."""
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            if self._waiting[0] is not place and not await self._called(place, until):
                return False
            if place.done():
                if place.result():
                    return True
                # What was ready is being taken by those called before; their commit, or their silence, wakes
                # us.
                await watch(max(0.0, min(until - clock.loop_now(), PROMOTED_S)))
            while (left := until - clock.loop_now()) > 0:
                ready, due_s = await look(len(self._waiting))
                if ready:
                    self._call(place, ready - 1)
                    return True
                await watch(max(0.0, min(left, due_s)))
            return False
        finally:
            self._leave(place)

    async def _called(self, place: asyncio.Future[bool], until: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, until - clock.loop_now())):
                await place
        except TimeoutError:
            return False
        return True

    def _call(self, me: asyncio.Future[bool], count: int) -> None:
        for place in [place for place in self._waiting if place is not me][:count]:
            if not place.done():
                place.set_result(True)
            self._waiting.remove(place)

    def _leave(self, place: asyncio.Future[bool]) -> None:
        """The next in line becomes the watcher."""
        if place in self._waiting:
            self._waiting.remove(place)
        if self._waiting and not self._waiting[0].done():
            self._waiting[0].set_result(False)
