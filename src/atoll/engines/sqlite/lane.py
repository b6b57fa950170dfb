"""Lane: one thread that serves work asked for from any event loop, many pieces at a time.

A post office with one clerk. Letters are dropped through a slot from every side; the clerk empties the
box, serves what was in it in one go, and sends one messenger per street, not one per letter.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import apsw

from atoll import clock
from atoll.errors import AtollError, NotSent, OutcomeUnknown, Overloaded

log = logging.getLogger("atoll.sqlite")

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]


class State(Enum):
    """Where a job is. Only `RUNNING` and later may have left a trace."""

    QUEUED = 0
    RUNNING = 1
    DROPPED = 2


class Job(Generic[T]):
    """One caller's work and the future it waits on."""

    __slots__ = ("error", "forced", "future", "loop", "state", "value", "work")

    def __init__(self, work: Work[T], forced: bool) -> None:
        self.work = work
        self.forced = forced
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.state = State.QUEUED
        self.value: T | None = None
        self.error: BaseException | None = None


class DeadlineWatch:
    """The deadlines of one event loop's jobs, under one timer: most calls never touch the clockwork."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Job[Any], float], None]) -> None:
        self.jobs: dict[Job[Any], tuple[float, float]] = {}
        self._loop = weakref.ref(loop)
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: Job[Any], left_s: float) -> None:
        """Expire `job` in `left_s` seconds unless it is taken out of `jobs` before."""
        due = job.loop.time() + left_s
        self.jobs[job] = (due, left_s)
        if self._timer is None or due < self._timer.when():
            self._arm(job.loop, due)

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(due, self._ring, context=Context())

    def _ring(self) -> None:
        self._timer = None
        loop = self._loop()
        if loop is None:
            return
        now = loop.time()
        for job, (due, left_s) in list(self.jobs.items()):
            if due <= now:
                del self.jobs[job]
                self._expire(job, left_s)
        if self.jobs:
            self._arm(loop, min(due for due, _ in self.jobs.values()))


class Lane:
    """The queue, the thread and the deadlines. `serve` says what is done with a batch.

    A job not begun by its deadline is dropped: NotSent. One that was begun and not answered in time is
    OutcomeUnknown, because it may still be committed; for a lane that only reads, it is NotSent too.
    """

    name = "lane"
    changes = True

    def __init__(self, path: str, *, queue_max: int, batch_max: int) -> None:
        self.path = path
        self.failed: str | None = None
        self.batch_max = batch_max
        self._queue_max = queue_max
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._backlog: deque[Job[Any]] = deque()
        self._states = threading.Lock()
        self._watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, DeadlineWatch]
        self._watches = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._stopped = False

    async def ask(self, work: Work[T], *, forced: bool = True, ceiling_s: float = 10.0) -> T:
        """Run `work(connection)` on the lane's thread and answer what it returns."""
        left_s = clock.remaining_s(ceiling_s)
        if left_s <= 0:
            raise NotSent(f"the deadline had passed before anything was asked of {self.path}.")
        if self.failed is not None or self._stopped:
            raise NotSent(
                self.failed or f"{self.path} was closed here while this was asked; nothing was sent."
            )
        if self._queue.qsize() + len(self._backlog) >= self._queue_max:
            raise Overloaded(
                f"{self._queue_max} calls wait for {self.path} in this process already. "
                "Nothing was sent: wait, or ask from fewer tasks."
            )
        job = Job(work, forced)
        self._queue.put(job)
        if self._thread is None:
            self._start()
        watch = self._watches.get(job.loop)
        if watch is None:
            watch = self._watches[job.loop] = DeadlineWatch(job.loop, self._expire)
        watch.add(job, left_s)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._drop(job)
            raise
        finally:
            watch.jobs.pop(job, None)

    def nudge(self) -> None:
        """Wake the thread so that it looks at its surroundings."""
        if self._thread is None and not self._stopped:
            self._start()
        self._queue.put(None)

    def stop(self, wait_s: float = 5.0) -> None:
        """End the thread after what was asked so far; what it holds is closed by itself."""
        with self._states:
            thread, self._stopped = self._thread, True
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(wait_s)

    def serve(self, batch: list[Job[Any]]) -> None:
        """Do the work of `batch` and `deliver` it."""
        raise AssertionError

    def idle_s(self) -> float | None:
        """How long to sleep at most before `idle` is called; None: until asked."""
        return None

    def idle(self) -> None:
        """Called when nothing was asked for `idle_s`, and after a nudge."""

    def disconnect(self) -> None:
        """Close the connection; it opens again when needed. What was not committed is undone."""

    def leave(self) -> None:
        """Called once at the end of the thread: close what it holds."""

    def begin(self, job: Job[Any]) -> bool:
        """Mark `job` as begun; False when its caller has left."""
        with self._states:
            if job.state is State.DROPPED:
                return False
            job.state = State.RUNNING
            return True

    def deliver(self, jobs: list[Job[Any]]) -> None:
        """Hand the answers over, with one call into each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
        for job in jobs:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, theirs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, theirs, context=Context())
            except RuntimeError:
                pass  # that loop was closed; its callers are gone

    def fail(self, jobs: list[Job[Any]], error: BaseException) -> None:
        """Answer all of `jobs` with `error`."""
        for job in jobs:
            job.error = error
        self.deliver(jobs)

    def _start(self) -> None:
        with self._states:
            if self._thread is not None or self._stopped:
                return
            self._thread = threading.Thread(
                target=self._run, name=f"atoll {self.name} {self.path}", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        while not (self._stopped and self._queue.empty() and not self._backlog):
            batch = self._collect()
            try:
                if batch:
                    self.serve(batch)
                elif not self._stopped:
                    self.idle()
            except Exception as error:
                log.exception("%s: the %s stumbled and goes on", self.path, self.name)
                self.fail(batch, _stumbled(self.path, error))
                self.disconnect()
        self.leave()

    def _collect(self) -> list[Job[Any]]:
        batch: list[Job[Any]] = []
        while self._backlog and len(batch) < self.batch_max:
            batch.append(self._backlog.popleft())
        try:
            if not batch:
                first = self._queue.get(timeout=self.idle_s())
                if first is not None:
                    batch.append(first)
            while len(batch) < self.batch_max:
                job = self._queue.get_nowait()
                if job is not None:
                    batch.append(job)
        except Empty:
            pass
        return batch

    def _drop(self, job: Job[Any]) -> bool:
        with self._states:
            if job.state is State.QUEUED:
                job.state = State.DROPPED
                return True
            return False

    def _expire(self, job: Job[Any], left_s: float) -> None:
        dropped = self._drop(job)
        if job.future.done():
            return
        error: AtollError
        if dropped or not self.changes:
            error = NotSent(
                f"{self.path} had no turn for this within {left_s:.3g} s, so nothing was written. "
                "Another process or program writes for long, or the disk is slow; ask again later."
            )
        else:
            error = OutcomeUnknown(
                f"{self.path} was being written when {left_s:.3g} s had passed: the write may stand. "
                "Read it to learn."
            )
        job.future.set_exception(error)


def _stumbled(path: str, error: Exception) -> OutcomeUnknown:
    unknown = OutcomeUnknown(
        f"{path}: found {error!r} while it was being written; the write may stand. Read it."
    )
    unknown.__cause__ = error
    return unknown


def _settle(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.value)
