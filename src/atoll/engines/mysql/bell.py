"""Bell: tells the watchers of one event loop that something was committed, by looking.

A spyhole, for there is no doorbell: neither MariaDB nor MySQL can call a client. Somebody looks every
`poll_s`, once for all who wait, and only while they do. What this process writes itself rings at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from atoll import clock
from atoll.errors import AtollError


class Bell:
    """`look` answers the newest revision."""

    def __init__(self, look: Callable[[], Awaitable[int]], *, poll_s: float) -> None:
        self._look, self._poll_s = look, poll_s
        self._newest = -1
        self._rung = asyncio.Event()
        self._waiting = 0
        self._minding: asyncio.Task[None] | None = None
        self._closed = False

    def ring(self, revision: int) -> None:
        """`revision` was committed."""
        if revision > self._newest:
            self._newest = revision
            self._rung.set()
            self._rung = asyncio.Event()

    def went_back(self, revision: int) -> None:
        """Another server answers now, and it has no more than `revision`."""
        self._newest = revision

    async def wait(self, after: int, wait_s: float) -> None:
        """Until something after `after` was committed, at most `wait_s`."""
        self._waiting += 1
        if self._minding is None or self._minding.done():
            self._minding = asyncio.create_task(self._mind(), context=clock.detached())
        try:
            async with asyncio.timeout(wait_s):
                while self._newest <= after and not self._closed:
                    await self._rung.wait()
        except TimeoutError:
            return
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Stop looking, and wake who waits."""
        self._closed = True
        self._rung.set()
        if self._minding is not None and not self._minding.done():
            self._minding.cancel()
            await asyncio.wait({self._minding}, timeout=1.0)

    async def _mind(self) -> None:
        while self._waiting and not self._closed:
            with suppress(AtollError):
                self.ring(await self._look())
            await asyncio.sleep(self._poll_s)
