"""Watching: the present state below a prefix, told again at each change, for as long as it is read.

A window, not a diary. Who looks out sees what is there now; what came and went while he looked away he
never learns. So a recipe waits only for what stays true until it looks.

Promise: the first state is told at once; after a change the state told last is the present one; a watch that
ends is begun anew, with pauses.
What can break it: a store that never answers; the reader's own deadline is what ends it.
Proved by: tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.errors import AtollError, ConfigurationError
from atoll.ports.register import Entry, Observation
from atoll.ports.store import Store

log = logging.getLogger("atoll.watch")

PAUSE_S_MAX = 2.0
"""The longest pause before a watch that ended is begun anew."""

State = Mapping[str, Entry]


async def states(store: Store, prefix: str) -> AsyncGenerator[State]:
    """Key -> entry below `prefix`, at once and after each change. One mapping, changed in place."""
    present: dict[str, Entry] = {}
    failures = 0
    while True:
        news = store.observe(prefix)
        try:
            async for item in news:
                _take(present, item)
                failures = 0
                yield present
        except ConfigurationError:
            raise
        except AtollError as error:
            log.debug("%s: the watch on %s ended, beginning anew: %r", store, prefix, error)
        finally:
            if isinstance(news, AsyncGenerator):
                await news.aclose()
        failures += 1
        await asyncio.sleep(
            full_jitter(failures, clock.chance().random(), first_s=0.1, ceiling_s=PAUSE_S_MAX, floor_s=0.01)
        )


async def until(store: Store, prefix: str, true: Callable[[State], bool]) -> None:
    """Until `true` of the state below `prefix`. It must stay true, or be looked at again."""
    async with aclosing(states(store, prefix)) as told:
        async for state in told:
            if true(state):
                return


async def first_of(due: float, *waits: Coroutine[Any, Any, object]) -> set[int]:
    """Wait for the first of them, or until `due` by the loop clock; answers which have ended."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    left = due - clock.loop_now()
    try:
        await asyncio.wait(
            tasks,
            timeout=None if math.isinf(left) else max(0.0, left),
            return_when=asyncio.FIRST_COMPLETED,
        )
        ended = {at for at, task in enumerate(tasks) if task.done()}
        for at in ended:
            tasks[at].result()
        return ended
    finally:
        for task in tasks:
            task.cancel()


def _take(present: dict[str, Entry], item: Observation) -> None:
    if item.reset:
        present.clear()
    for key in item.removed:
        present.pop(key, None)
    present.update((entry.key, entry) for entry in item.changed)
