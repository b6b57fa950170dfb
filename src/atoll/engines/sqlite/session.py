"""A connection with a thread of its own, and the small pool of them.

A barber's chair: one customer at a time, and the customer may think between two cuts. An interactive
transaction lasts as long as its user's code, so it cannot share the writer thread, which is never kept
waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import apsw

from atoll import clock
from atoll.engines.sqlite import row_lock
from atoll.engines.sqlite.translation import translate
from atoll.errors import Conflict, NotApplied, NotSent, OutcomeUnknown, Overloaded, ReadOnly, UsedAfterFork

T = TypeVar("T")

INTERRUPT_S = 5.0
"""How long an interrupted statement is waited for before its session is given up."""


class _Answer:
    """What a job came to. Its caller waits on `told`, and may leave it: the job goes on without."""

    __slots__ = ("done", "failure", "loop", "result", "told")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.told: asyncio.Future[None] = self.loop.create_future()
        self.result: Any = None
        self.failure: BaseException | None = None
        self.done = False

    def tell(self, result: Any, failure: BaseException | None) -> None:
        self.result, self.failure, self.done = result, failure, True
        self.wake()

    def wake(self) -> None:
        if not self.told.done():
            self.told.set_result(None)

    def take(self) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.result


_Job = tuple[Callable[[apsw.Connection], Any], _Answer | None]

# Connections that a forked child inherited: kept, so that nothing closes the parent's files from here.
_inherited: list[object] = []


class Session:
    """Exclusive use of one connection; `run` works on it in its thread. Made by a `SessionPool`."""

    def __init__(self, path: str, connect: Callable[[], apsw.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._connection: apsw.Connection | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._pid = os.getpid()
        self.broken = False
        self._left = False
        self._using = threading.Lock()
        threading.Thread(target=self._serve, name="atoll-sqlite-session", daemon=True).start()

    @property
    def connection(self) -> apsw.Connection:
        """The connection. Work on it inside `run`; the event loop's thread must not wait for a disk."""
        assert self._connection is not None, "run something first"
        return self._connection

    async def run(
        self, work: Callable[[apsw.Connection], T], *, ceiling_s: float = 60.0, final: bool = False
    ) -> T:
        """`work(connection)` on the session's thread.

        Cancelled or out of time: the statement is interrupted and waited for, so nothing of it runs on. A
        `final` work (COMMIT) is never interrupted; out of time it is OutcomeUnknown and the session is over.
        Errors of SQL come as apsw raises them; those of the disk and of locks are Atoll's.
        """
        if self._pid != os.getpid():
            raise UsedAfterFork(
                "this transaction belongs to the parent process. Begin a new one in the child."
            )
        left = clock.remaining_s(ceiling_s)
        if left <= 0 or self.broken:
            why = "its session was closed after a failure" if self.broken else "the deadline has passed"
            raise NotSent(
                f"the statement was not sent: {why}. Nothing was done; begin the transaction again."
            )
        answer = _Answer()
        context = contextvars.copy_context()  # the clock of a test goes along to the thread
        self._left = False
        self._jobs.put((lambda connection: context.run(self._translated, work, connection, final), answer))
        timer = answer.loop.call_later(left, answer.wake, context=contextvars.Context())
        try:
            await answer.told
        except asyncio.CancelledError:
            await self._settle(answer, interrupt=not final)
            raise
        finally:
            timer.cancel()
        if answer.done:
            return cast(T, answer.take())
        if not await self._settle(answer, interrupt=not final):
            raise OutcomeUnknown(f"no answer after {left:.1f} s; it may still happen. Read what you wrote.")
        if answer.failure is None:
            return cast(T, answer.take())
        raise NotApplied(
            f"the statement did not end within {left:.1f} s and was stopped."
        ) from answer.failure

    def _translated(
        self, work: Callable[[apsw.Connection], T], connection: apsw.Connection, committing: bool
    ) -> T:
        try:
            return work(connection)
        except apsw.BusyError as error:
            raise Conflict(
                f"{self._path}: another program has the write lock and kept it for longer than this waits. "
                "Nothing of this statement was written; roll back and retry the whole transaction."
            ) from error
        except (apsw.Error, OSError) as error:
            if row_lock.refused(error):
                raise row_lock.conflict(self._path) from error
            if isinstance(error, apsw.ReadOnlyError) and connection.pragma("query_only"):
                raise ReadOnly(
                    "found a write in a transaction that only reads; nothing was written. Begin it with "
                    "begin() instead of read()."
                ) from error
            if (told := translate(error, self._path, committing=committing)) is error:
                raise
            raise told from error

    async def _settle(self, answer: _Answer, *, interrupt: bool) -> bool:
        """Wait for a job that nobody wants any more; False when it does not end, and the session is over."""
        if interrupt and self._connection is not None:
            self._connection.interrupt()
        due = clock.loop_now() + INTERRUPT_S
        cancelled = None
        while not answer.done and (left := due - clock.loop_now()) > 0:
            try:
                answer.told = answer.loop.create_future()
                await asyncio.wait([answer.told], timeout=left)
            except asyncio.CancelledError as error:  # cleaning up comes first, then cancel is cancel
                cancelled = error
        if not answer.done:
            self.broken = True
            self._jobs.put(None)
        if cancelled is not None:
            raise cancelled
        return answer.done

    def leave(self, work: Callable[[apsw.Connection], Any]) -> None:
        """Have `work` done after what was run, and wait for nothing; what fails closes the connection."""
        self._left = True
        self._jobs.put((work, None))

    def tidy(self) -> None:
        """Roll back what its last user left open, before the next one has it."""
        if self._connection is None or self.broken or self._left:
            return
        if self._connection.in_transaction:
            self.leave(_roll_back)

    def close(self) -> None:
        """Close the connection on its thread, after what runs there."""
        if self._pid == os.getpid():
            self._jobs.put(None)
        else:
            _inherited.append(self._connection)

    def part(self) -> None:
        """Close the connection of an idle session; the next `run` opens it again."""
        with self._using:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, answer = job
            result, failure = None, None
            try:
                with self._using:
                    if self._connection is None and answer is not None:
                        self._connection = self._connect()
                    if self._connection is not None:
                        result = work(self._connection)
            except BaseException as error:  # it belongs to the caller, whatever it is
                failure = translate(error, self._path) if isinstance(error, Exception) else error
            if answer is not None:
                try:
                    answer.loop.call_soon_threadsafe(answer.tell, result, failure)
                except RuntimeError:  # the loop that asked is closed: nobody is left to hear it
                    self.broken = True
            elif failure is not None:
                self.part()
            del job, work, answer, result, failure  # a waiting thread must keep no user's objects alive
        self.part()


def _roll_back(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _tell(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_result(None)


class SessionPool:
    """At most `most` sessions, grown as they are needed; who waits is served in the order of coming."""

    def __init__(self, path: str, connect: Callable[[], apsw.Connection], most: int) -> None:
        self._path = path
        self._connect = connect
        self._most = most
        self._idle: list[Session] = []
        self._count = 0
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def session(self, *, wait_s: float) -> AsyncIterator[Session]:
        """One session for as long as the block lasts; Overloaded when none came free in time."""
        session = await self._acquire(clock.remaining_s(wait_s))
        try:
            yield session
        finally:
            session.tidy()
            self._release(session)

    async def _acquire(self, wait_s: float) -> Session:
        due = clock.loop_now() + wait_s
        while True:
            loop = asyncio.get_running_loop()
            with self._lock:
                if self._idle:
                    return self._idle.pop()
                if self._count < self._most:
                    self._count += 1
                    return Session(self._path, self._connect)
                place = (loop, loop.create_future())
                self._waiting.append(place)
            try:
                async with asyncio.timeout_at(due):
                    await place[1]
            except TimeoutError:
                raise Overloaded(
                    f"all {self._most} sessions are busy, and none came free within {wait_s:.1f} s. Make the "
                    "transactions shorter, or raise max_sessions."
                ) from None
            finally:
                with self._lock:
                    if place in self._waiting:
                        self._waiting.remove(place)
                    elif place[1].cancelled():  # woken and cancelled at once: the next one takes the turn
                        self._wake()

    def _release(self, session: Session) -> None:
        with self._lock:
            if session.broken:
                self._count -= 1
                session.close()
            else:
                self._idle.append(session)
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            loop, place = self._waiting.popleft()
            try:
                loop.call_soon_threadsafe(_tell, place)
                return
            except RuntimeError:  # that loop is closed
                continue

    def close(self) -> None:
        """Close what is idle; what is in use closes when it is given back."""
        with self._lock:
            for session in self._idle:
                session.close()
                self._count -= 1
            self._idle.clear()

    def part(self) -> None:
        """Before a fork: close the idle connections, which open again when they are needed."""
        with self._lock:
            for session in self._idle:
                session.part()

    def abandon(self) -> None:
        """In a forked child: keep the parent's connections untouched."""
        _inherited.append((self._idle, self._waiting))
