"""Watchdog: notices from outside when the event loop stands still.

The night watchman's clock. The sleeper cannot say that he sleeps; a second clock can see that the first one
has not been wound. It wakes nobody and decides nothing: the machine steps down by its own time. It says
why.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from atoll import clock

log = logging.getLogger("atoll.raft")


class Watchdog:
    """Says so when the loop was not back within `patience_s`; `stalls` counts, `longest_s` is the worst."""

    def __init__(self, patience_s: float) -> None:
        self.stalls = 0
        self.longest_s = 0.0
        self._patience_s = patience_s
        self._beat = clock.lease_now()
        self._loop = asyncio.get_running_loop()
        self._over = threading.Event()
        self._timer = self._loop.call_soon(self._wind)
        self._thread = threading.Thread(target=self._watch, name="raft watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._over.set()
        self._timer.cancel()
        self._thread.join(1.0)

    def _wind(self) -> None:
        self._beat = clock.lease_now()
        self._timer = self._loop.call_later(self._patience_s / 4, self._wind)

    def _watch(self) -> None:
        """A stall is told once, when it is found, and its length when it is over."""
        stalled = 0.0
        while not self._over.wait(self._patience_s / 4):
            beat = self._beat
            still_s = clock.lease_now() - beat
            if still_s > self._patience_s and stalled != beat:
                stalled = beat
                self.stalls += 1
                log.warning("the event loop of this member has stood still for %.2f s", still_s)
            if stalled:
                self.longest_s = max(self.longest_s, still_s if stalled == beat else 0.0)
