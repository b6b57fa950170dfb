"""Bell: tells the watchers of one event loop that something was committed, by ear or by looking.

A doorbell and a spyhole. Where a line straight to the server is there, it rings (NOTIFY); where a pooler
stands between, somebody looks through the spyhole every `poll_s`, once for all who wait, and only while they
do. Even by ear one looks once a second, because a bell whose wire is cut is silent too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from atoll import clock
from atoll.engines.postgresql.wires import PsycopgWire
from atoll.errors import AtollError

log = logging.getLogger("atoll.postgresql")

LOOK_S = 1.0
"""How often to look although the bell is there."""
LINGER_S = 5.0
"""How long to listen on when nobody waits any more."""
QUIET_S = 5.0
ANSWER_S = 2.0

_REVISION = "SELECT c.revision FROM atoll.counter c WHERE c.one AND NOT pg_is_in_recovery()"


class Bell:
    """`look` answers the newest revision. `listen` opens a line straight to the server, if there is one."""

    def __init__(
        self,
        look: Callable[[], Awaitable[int]],
        listen: Callable[[], Awaitable[PsycopgWire]] | None,
        *,
        poll_s: float,
    ) -> None:
        self._look, self._listen, self._poll_s = look, listen, poll_s
        self._newest = -1
        self._rung = asyncio.Event()
        self._waiting = 0
        self._minding: asyncio.Task[None] | None = None
        self._idle_since = 0.0
        self._line: PsycopgWire | None = None
        self._closed = False
        self.heard_s: float | None = None
        """When the line last answered, by the loop clock; None while there is none."""

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
        if self._newest > after:
            return
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
            self._idle_since = clock.loop_now()

    async def close(self) -> None:
        """Stop listening, and wake who waits."""
        self._closed = True
        self._rung.set()
        if self._minding is None or self._minding.done():
            return
        if self._line is not None:
            self._line.cut()  # sooner than a cancellation, which would ask the server to cancel too
            await asyncio.wait({self._minding}, timeout=1.0)
        self._minding.cancel()
        await asyncio.wait({self._minding}, timeout=1.0)

    async def _mind(self) -> None:
        while self._wanted():
            if self._listen is not None:
                try:
                    await self._by_ear(self._listen)
                except Exception as error:
                    log.debug("no line to listen on, so looking instead: %r", error)
                self.heard_s = None
            await self._by_looking(QUIET_S if self._listen is not None else None)

    def _wanted(self) -> bool:
        if self._closed:
            return False
        return self._waiting > 0 or clock.loop_now() - self._idle_since < LINGER_S

    async def _by_looking(self, for_s: float | None) -> None:
        until = None if for_s is None else clock.loop_now() + for_s
        while self._wanted() and (until is None or clock.loop_now() < until):
            if self._waiting:
                with suppress(AtollError):
                    self.ring(await self._look())
            await asyncio.sleep(self._poll_s)

    async def _by_ear(self, listen: Callable[[], Awaitable[PsycopgWire]]) -> None:
        async with asyncio.timeout(QUIET_S):
            wire = self._line = await listen()
        try:
            async with asyncio.timeout(ANSWER_S):
                await wire.script("LISTEN atoll")
            while self._wanted():
                async with asyncio.timeout(ANSWER_S):
                    rows = await wire.rows(_REVISION, ())
                if not rows:
                    return  # it is a standby now
                self.ring(int(rows[0][0]))
                self.heard_s = clock.loop_now()
                async for notice in wire.connection.notifies(timeout=LOOK_S):
                    self.ring(int(notice.payload))
        finally:
            self._line = None
            wire.cut()
            await wire.connection.close()
