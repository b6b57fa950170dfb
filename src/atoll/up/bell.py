"""A bell that wakes everybody who waits for something to become true.

The bell over a shop's door: it says that something has changed, not what; each waiter looks up, and
goes on waiting unless it is what he waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Rung at each change of state; all in one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        rung, self._event = self._event, asyncio.Event()
        rung.set()

    async def until(self, true: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `true()`, at most `timeout_s`; answers whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                while not true():
                    await self._event.wait()
        except TimeoutError:
            return true()
        return True
