"""Checkpoints: copy what the state's log of pages holds into its file, on a thread of their own.

The apprentice who carries finished sheets to the cellar while the clerk goes on writing. If the cellar door
once jams, he says so and carries nothing more: he cannot know which sheets arrived.

Source: sqlite.org/wal.html. Departure: SQLite's own checkpoint runs within a commit, would stall whoever
applies, and is tried again after a failed force, when the kernel may say yes to pages that it threw away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import apsw

PAGES = 4000
"""A checkpoint begins when the log of pages holds so many."""
ROUNDS = 4
PAGES_MAX = 16_000
"""Beyond this, whoever applies waits for one: the log of pages must not grow for ever."""


class Checkpoints:
    """Of one open file. `failed` is called, on the thread, with the error that ended them."""

    def __init__(self, connect: Callable[[], apsw.Connection], failed: Callable[[Exception], None]) -> None:
        self._connect = connect
        self._failed = failed
        self._wanted = threading.Event()
        self._idle = threading.Condition()
        self._busy = False
        self._pages = 0
        self._next = PAGES
        self._over = False
        self._thread: threading.Thread | None = None

    def committed(self, pages: int) -> None:
        """A commit left so many pages in the log."""
        if pages < self._pages:
            self._next = PAGES  # all was copied, and the log began anew
        self._pages = pages
        if pages < self._next or self._over:
            return
        self._next = pages + PAGES
        with self._idle:
            self._busy = True
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="raft checkpoints", daemon=True)
            self._thread.start()
        if pages > PAGES_MAX:
            with self._idle:
                self._idle.wait_for(lambda: not self._busy or self._over)

    def stop(self) -> None:
        """Finish the one that runs, begin no more."""
        self._over = True
        self._wanted.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            connection = self._connect()
            try:
                while self._wanted.wait() and not self._over:
                    self._wanted.clear()
                    copy(connection)
                    with self._idle:
                        self._busy = self._wanted.is_set()
                        self._idle.notify_all()
            finally:
                connection.close()
        except Exception as error:
            self._failed(error)
        finally:
            self._over = True
            with self._idle:
                self._idle.notify_all()


def copy(connection: apsw.Connection) -> None:
    """Copy what can be copied while others read and write; forced before and after.

    The log of pages begins anew only when all of it is copied, so what was written meanwhile is copied too.
    """
    with contextlib.suppress(apsw.BusyError):  # another checkpoint runs
        for _ in range(ROUNDS):
            pages, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if copied >= pages:
                return
