"""Accidents kept out of a simulated run: the machine's time, its dice, its threads, its collector.

A stage with the windows bricked up. Whatever would come in from outside, and differ from night to night,
is either replaced by something the seed repeats or refused aloud.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

START_S = 1_000.0
WALL_AHEAD_S = 1_767_225_600.0 - START_S  # the run begins at 2026-01-01 00:00 UTC


class Forbidden(AssertionError):
    """Something that a seed cannot repeat: a thread, a socket, a real sleep."""


def sentence(what: str) -> str:
    """Why it is refused, and what to do."""
    return (
        f"found {what} in a simulated run; a seed cannot repeat it. Expected everything to go through "
        "the world's ports and the event loop. Put it behind a port, or test it in real time."
    )


@contextmanager
def no_accidents(loop: asyncio.AbstractEventLoop, seed: int) -> Iterator[None]:
    """For code that runs on `loop`: `time` is virtual, `random` seeded, real sleeps and threads refused.

    Garbage is collected at counted steps, because the end of an async generator is an event.
    """
    dice = random.getstate()
    real_time, real_monotonic, real_sleep = time.time, time.monotonic, time.sleep
    real_start = threading.Thread.start

    def virtual() -> bool:
        return asyncio._get_running_loop() is loop

    def sleep(seconds: float) -> None:
        if virtual():
            raise Forbidden(sentence(f"time.sleep({seconds:g})"))
        real_sleep(seconds)

    def start(thread: threading.Thread) -> None:
        if virtual():
            raise Forbidden(sentence(f"the start of a thread ({thread.name})"))
        real_start(thread)

    accidents: list[tuple[Any, str, Any, Any]] = [
        (time, "time", real_time, lambda: loop.time() + WALL_AHEAD_S if virtual() else real_time()),
        (time, "monotonic", real_monotonic, lambda: loop.time() if virtual() else real_monotonic()),
        (time, "sleep", real_sleep, sleep),
        (threading.Thread, "start", real_start, start),
    ]
    for owner, name, _, ours in accidents:
        setattr(owner, name, ours)
    random.seed(f"{seed}/random")
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for owner, name, theirs, _ in accidents:
            setattr(owner, name, theirs)
        random.setstate(dice)
