"""Background: what runs beside a body, and may not fail in silence.

Promise: when one of the coroutines raises, the body is cancelled and the error comes out of the block;
when the body is left, all of them are cancelled and waited for, at most `GRACE_S`.
What can break it: a coroutine that neither awaits nor lets itself be cancelled.
Proved by: tests/blocks/test_background.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

log = logging.getLogger("atoll.background")

GRACE_S = 10.0
"""How long the end of the block waits for cancelled coroutines."""


class Background:
    """Made by `background`; for one `async with`."""

    def __init__(self, coroutines: tuple[Coroutine[Any, Any, Any], ...]) -> None:
        self._coroutines = coroutines
        self._tasks: list[asyncio.Task[Any]] = []
        self._body: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._stopped = False
        self._leaving = False

    async def __aenter__(self) -> None:
        self._body = asyncio.current_task()
        self._cancelling = self._body.cancelling() if self._body else 0
        loop = asyncio.get_running_loop()
        for coroutine in self._coroutines:
            task = loop.create_task(
                coroutine, name=f"atoll background {getattr(coroutine, '__qualname__', coroutine)}"
            )
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None or self._leaving or self._stopped:
            return
        log.error("%s ended with %r; its block is stopped", task.get_name(), task.exception())
        if self._body is not None and not self._body.done():
            self._stopped = True
            self._body.cancel(f"{task.get_name()} failed")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        try:
            await self._stop()
        finally:
            ours = True
            if self._stopped and self._body is not None and self._body is asyncio.current_task():
                ours = self._body.uncancel() <= self._cancelling
        if isinstance(error, asyncio.CancelledError) and not (self._stopped and ours):
            return
        if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
            return
        failures = [e for t in self._tasks if t.done() and not t.cancelled() and (e := t.exception())]
        if isinstance(error, Exception):
            for failure in failures:
                log.error("also failed in the background: %r", failure)
        elif len(failures) == 1:
            raise failures[0]
        elif failures:
            raise BaseExceptionGroup("several background coroutines failed", failures)

    async def _stop(self) -> None:
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            _, late = await asyncio.wait(running, timeout=GRACE_S)
            for task in late:
                log.error("%s did not end within %.3g s of its cancellation", task.get_name(), GRACE_S)


def background(*coroutines: Coroutine[Any, Any, Any]) -> Background:
    """Run coroutines beside the body of an `async with`, an election's `lead(...)` for one.

    If one raises, the body is cancelled and the block raises that error; several make an exception
    group. At the end of the block all are cancelled and waited for, at most 10 s.
    """
    return Background(coroutines)
