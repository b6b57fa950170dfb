"""Bell: wakes one waiter, from whichever event loop or thread it is rung.

A doorbell wired to one flat. Whoever presses it need not know on which floor that is.
"""

from __future__ import annotations

import asyncio


class Bell:
    """Bound to the event loop it was made in; stays rung until it is cleared."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self._rung.set()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._rung.set)

    def clear(self) -> None:
        self._rung.clear()

    async def wait(self, seconds: float | None = None) -> None:
        """Until it rings, or for that many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return
