"""Writer: one thread per process and file that commits whatever waits as one transaction.

The bus leaves when its driver comes back, with everybody who stands at the stop: one forced write for
all of them. Each has a seat of their own (a SAVEPOINT), so one who is sick gets off alone. Nobody is
told "you arrived" before the bus is there: answers are given after the COMMIT was forced to disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import apsw

from atoll import clock
from atoll.engines.sqlite.lane import Job, Lane, State
from atoll.engines.sqlite.translation import translate
from atoll.engines.sqlite.turnstile import Turnstile
from atoll.errors import AtollError, NotSent

BATCH_MAX = 256
BATCH_S = 0.02
"""Work begun in one transaction for at most this long: bounds the turn, and so everybody's wait."""
CHECKPOINT_PAGES = 1024
"""The write-ahead log is copied back into the file above this many pages: 4 MiB."""
_NOTICE_S = (0.001, 0.002, 0.005)


class Writer(Lane):
    """Serves jobs by group commit. `committed` hears of each; `watched`: somebody waits for others'."""

    name = "writer"

    def __init__(
        self,
        path: str,
        connect: Callable[[], apsw.Connection],
        line_up: Callable[[], Turnstile],
        *,
        moved: Callable[[], str | None],
        committed: Callable[[], None],
        watched: Callable[[], bool],
        queue_max: int,
    ) -> None:
        super().__init__(path, queue_max=queue_max, batch_max=BATCH_MAX)
        self.busy = threading.Lock()
        self._connect = connect
        self._line_up = line_up
        self._moved = moved
        self._committed = committed
        self._watched = watched
        self._connection: apsw.Connection | None = None
        self._turnstile: Turnstile | None = None
        self._forced = True
        self._pages = 0
        self._retry_pages = CHECKPOINT_PAGES
        self._data_version = -1
        self._quiet = 0

    def serve(self, batch: list[Job[Any]]) -> None:
        try:
            if self._turnstile is None:
                self._turnstile = self._line_up()
            self._turnstile.acquire()
        except (OSError, AtollError) as error:
            self.fail(batch, translate(error, self.path))
            return
        try:
            with self.busy:
                answered = self._commit_all(batch)
                self._checkpoint_when_long()
        finally:
            self._turnstile.release()
        self._quiet = 0
        self.deliver(answered)

    def idle_s(self) -> float | None:
        if not self._watched():
            return None
        return _NOTICE_S[0 if self._quiet < 50 else 1 if self._quiet < 500 else 2]

    def idle(self) -> None:
        """Has another process, or another connection of this one, committed since we looked?"""
        if not self._watched() or self.failed is not None:
            return
        self._quiet += 1
        try:
            with self.busy:
                version = self._open().pragma("data_version")
        except (apsw.Error, OSError, AtollError):
            return  # whoever waits will meet it on their next read, in their own words
        if version != self._data_version:
            self._data_version = version
            self._quiet = 0
            self._committed()

    def leave(self) -> None:
        with self.busy:
            if self._connection is not None and self.failed is None and self._pages:
                self._checkpoint_at_end()
            self.disconnect()
            if self._turnstile is not None:
                self._turnstile.close()
                self._turnstile = None

    def disconnect(self) -> None:
        """Close the connection; it opens again when needed. Called holding `busy`, or by the lane itself."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            connection = self._connect()
            connection.set_wal_hook(self._hear_pages)
            self._forced = True
            self._data_version = connection.pragma("data_version")
            self._connection = connection
        return self._connection

    def _hear_pages(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def _commit_all(self, batch: list[Job[Any]]) -> list[Job[Any]]:
        """Commit the batch as one; if the disk threw all of it out, each alone. Answers the answered."""
        batch = [job for job in batch if job.state is not State.DROPPED]
        if not batch:
            return []
        if self._connection is not None and self.failed is None:
            self.failed = self._moved()
        if self.failed is not None:
            self._refuse(batch, NotSent(self.failed))
            together = True
        else:
            together = self._commit_once(batch)
        begun = [job for job in batch if job.state is State.RUNNING]
        for job in begun if not together else ():
            if self.failed is not None:
                job.error = job.error or NotSent(self.failed)
            elif job.error is None:
                self._commit_once([job])
        return begun

    def _commit_once(self, batch: list[Job[Any]]) -> bool:
        """One transaction. False: the disk undid all of it, and each should be tried alone."""
        try:
            connection = self._open()
            self._force(connection, any(job.forced for job in batch))
            if not self._begin(connection, batch):
                return True
        except (apsw.Error, OSError, AtollError) as error:
            self._refuse(batch, translate(error, self.path))
            return True
        before = connection.total_changes()
        deadline = clock.loop_now() + BATCH_S
        running: list[Job[Any]] = []
        for place, job in enumerate(batch):
            if running and clock.loop_now() > deadline:
                self._backlog.extend(batch[place:])
                break
            if not self.begin(job):
                continue
            running.append(job)
            if len(batch) == 1:
                _run_alone(connection, job, self.path)
                if job.error is not None:
                    return True
            else:
                _run(connection, job, self.path)
            if not connection.in_transaction:
                return self._undone(running, batch[place + 1 :])
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            return self._not_committed(connection, running, error)
        if connection.total_changes() != before:
            self._committed()
        return True

    def _begin(self, connection: apsw.Connection, batch: list[Job[Any]]) -> bool:
        """Take the write lock. A program that does not line up may have it: wait while callers do."""
        while any(job.state is State.QUEUED for job in batch) or batch[0].state is State.RUNNING:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return True
            except apsw.BusyError:
                continue
        return False

    def _force(self, connection: apsw.Connection, forced: bool) -> None:
        if forced is not self._forced:
            connection.execute(f"PRAGMA synchronous={'FULL' if forced else 'NORMAL'}")
            self._forced = forced

    def _refuse(self, batch: list[Job[Any]], error: Exception) -> None:
        for job in batch:
            if self.begin(job):
                job.error = error

    def _undone(self, running: list[Job[Any]], rest: list[Job[Any]]) -> bool:
        """SQLite rolled the whole transaction back by itself: only the last job's work is to blame."""
        self._backlog.extendleft(reversed(rest))
        return len(running) == 1

    def _not_committed(self, connection: apsw.Connection, running: list[Job[Any]], error: apsw.Error) -> bool:
        full = isinstance(error, apsw.FullError)
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except apsw.Error:
                full = False
        if full and len(running) > 1:
            return False
        answer = translate(error, self.path, committing=True)
        if not full:
            self._close_for_good(answer)
        for job in running:
            job.error = job.error or answer
        return True

    def _close_for_good(self, error: Exception) -> None:
        self.failed = (
            f"{self.path} was closed here after the disk failed to take a write ({error.__cause__}). "
            "Nothing was sent: look at the disk, then close and open the handle again."
        )
        self.disconnect()

    def _checkpoint_when_long(self) -> None:
        """Copy the log back under our turn, so never beside another writer; a reader may postpone it."""
        if self._pages < self._retry_pages or self._connection is None:
            return
        try:
            self._connection.set_busy_timeout(20)
            # RESTART, not TRUNCATE: a log that keeps its length is forced faster than one that grows.
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            self._pages, self._retry_pages = 0, CHECKPOINT_PAGES
        except apsw.BusyError:
            self._retry_pages = self._pages + CHECKPOINT_PAGES // 4
        except apsw.FullError:
            self._retry_pages = self._pages + CHECKPOINT_PAGES
        except apsw.Error as error:
            self._close_for_good(translate(error, self.path, committing=True))
            return
        self._connection.set_busy_timeout(1000)

    def _checkpoint_at_end(self) -> None:
        if self._turnstile is None or self._connection is None or not self._turnstile.try_acquire():
            return
        try:
            self._connection.set_busy_timeout(20)
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error:
            pass  # the log stays beside the file and loses nothing
        finally:
            self._turnstile.release()


def _run_alone(connection: apsw.Connection, job: Job[Any], path: str) -> None:
    """The only caller's work: the transaction itself is its savepoint."""
    job.error = None
    try:
        job.value = job.work(connection)
    except BaseException as error:  # it belongs to the caller, whatever it is
        job.error = translate(error, path) if isinstance(error, Exception) else error
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _run(connection: apsw.Connection, job: Job[Any], path: str) -> None:
    """One caller's work in its own SAVEPOINT."""
    job.error = None
    connection.execute("SAVEPOINT atoll_caller")
    try:
        job.value = job.work(connection)
    except BaseException as error:  # it belongs to the caller, whatever it is
        job.error = translate(error, path) if isinstance(error, Exception) else error
        if connection.in_transaction:
            connection.execute("ROLLBACK TO atoll_caller")
    if connection.in_transaction:
        connection.execute("RELEASE atoll_caller")
