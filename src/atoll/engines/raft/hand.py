"""Hand: a thread that does one kind of slow work in order, and tells the event loop of it.

The loop is a chess player who must not leave the board; his two hands fetch the books. One writes the log,
one keeps the state; each takes everything that was put before it, and calls when it is done. What lies within
reach and takes no time he may do himself: to wake a hand costs more than the work.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from atoll import clock

log = logging.getLogger("atoll.raft")
T = TypeVar("T")
R = TypeVar("R")
Job = Callable[[], None]
QUICK_S = 0.02
"""A hand that took longer for one thing is slow, for as long as SLOW_S."""
SLOW_S = 1.0


class Hand(Generic[T]):
    """Items put in are handed to `serve` in order, as many together as are waiting and `together_max` allows.

    `failed` is called in the loop, once, with what `serve` or a job raised; nothing is done after that.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Sequence[T]], Job | None],
        failed: Callable[[BaseException], None],
        *,
        together_max: int = 1024,
        weight: Callable[[T], int] = lambda item: 1,
    ) -> None:
        self._serve = serve
        self._failed = failed
        self._most = together_max
        self._weight = weight
        self._queue: queue.SimpleQueue[T | _Aside | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._dead = False
        self._put = self._served = 0
        self._slow_until = 0.0
        self._thread = threading.Thread(target=self._run, name=f"raft {name}", daemon=True)
        self._thread.start()

    def put(self, item: T, *, here: bool = False) -> None:
        """More work. `serve` answers what the loop shall call when it is done.

        `here`: in the loop's own thread, where this hand has nothing else to do and was quick lately.
        """
        if here and self._put == self._served and not self._dead and clock.loop_now() > self._slow_until:
            self._serve_here(item)
            return
        self._put += 1
        self._queue.put(item)

    def _serve_here(self, item: T) -> None:
        try:
            after = self._timed([item])
        except Exception as error:
            self._put += 1
            self._queue.put(_Aside(self._loop, _raising(error), None))
            return
        if after is not None:
            self._put += 1
            self._loop.call_soon(self._served_here, after)

    def _served_here(self, after: Job) -> None:
        self._served += 1
        after()

    def _timed(self, items: Sequence[T]) -> Job | None:
        begun = clock.loop_now()
        after = self._serve(items)
        ended = clock.loop_now()
        if ended - begun > QUICK_S:
            self._slow_until = ended + SLOW_S
        return after

    def aside(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """Do `work` in this thread, after what was put before; its result."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._put += 1
        self._queue.put(_Aside(self._loop, work, future))
        return future

    def stop(self, within_s: float = 5.0) -> None:
        """Finish what was put, then end."""
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(within_s)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            self._dead = True
            self._tell(partial(self._failed, error))
            self._refuse_all(error)

    def _turn(self) -> bool:
        items: list[T] = []
        weight = 0
        found = self._queue.get()
        while True:
            if found is None or isinstance(found, _Aside):
                break
            items.append(found)
            weight += self._weight(found)
            if weight >= self._most:
                break
            try:
                found = self._queue.get_nowait()
            except queue.Empty:
                break
        if items:
            self._tell(self._timed(items), len(items))
        if isinstance(found, _Aside):
            self._tell(found.done(), 1)
        return found is not None

    def _tell(self, job: Job | None, count: int = 0) -> None:
        """In the loop: call `job`. Only then are its items served, so that no later one overtakes them."""

        def told() -> None:
            self._served += count
            if job is not None:
                job()

        try:
            self._loop.call_soon_threadsafe(told)
        except RuntimeError:  # the loop has ended before its hands
            log.debug("the event loop has ended")

    def _refuse_all(self, error: BaseException) -> None:
        while True:
            found = self._queue.get()
            if found is None:
                return
            if isinstance(found, _Aside):
                self._tell(found.refused(error))


class _Aside:
    """One piece of other work, with whoever waits for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], R], future: asyncio.Future[R] | None
    ) -> None:
        self._work = work
        self._future = future

    def done(self) -> Job:
        future = self._future
        try:
            result = self._work()
        except Exception as error:
            if future is None:
                raise
            return self.refused(error)
        assert future is not None
        return lambda: None if future.done() else future.set_result(result)

    def refused(self, error: BaseException) -> Job:
        future = self._future
        return lambda: None if future is None or future.done() else future.set_exception(error)


def _raising(error: Exception) -> Callable[[], None]:
    """Work that fails as what was done elsewhere has failed: the hand dies of it, in its own thread."""

    def work() -> None:
        raise error

    return work
