"""Bell: rings when something was committed, for whoever waits on any event loop.

A waiter notes the number on the board *before* it looks at the data, and then asks to be woken when
the number differs. So news that arrives between the look and the wait is never slept through.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Bell:
    """A rising number and those who wait for it. `ring` may be called from any thread."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.number = 0
        self.waiting = 0
        self._on_first = on_first
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}

    def ring(self) -> None:
        """Raise the number and wake everybody, with one call into each loop."""
        with self._lock:
            self.number += 1
            woken, self._waiters = self._waiters, {}
        for loop, futures in woken.items():
            try:
                loop.call_soon_threadsafe(_wake, futures)
            except RuntimeError:
                pass  # the loop was closed; nobody waits there any more

    async def wait(self, seen: int, wait_s: float | None = None) -> int:
        """Return the number as soon as it is not `seen`, or after `wait_s` seconds whatever it is."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self.number != seen:
                return self.number
            future: asyncio.Future[None] = loop.create_future()
            self._waiters.setdefault(loop, []).append(future)
            self.waiting += 1
            first = self.waiting == 1
        timer = None if wait_s is None else loop.call_later(max(0.0, wait_s), _wake, [future])
        try:
            if first:
                self._on_first()
            await future
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                self.waiting -= 1
                mine = self._waiters.get(loop)
                if mine is not None and future in mine:
                    mine.remove(future)
        return self.number


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
