"""Turnstile: whose turn it is to write a SQLite file, among threads and processes.

SQLite's own busy handler is a crowd around a door: whoever happens to push at the right moment gets in.
Here a few numbered places lead to the counter instead. You leave a place only when you have the next one,
so nobody is overtaken in the line, and whoever has just been served begins at its end.

The places are locks of the kernel on one side file, `<file>-atoll`: they vanish with a killed process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref

COUNTER = 0
PLACES = 5
"""The counter and the line before it. With more visitors than places, the rest race for the last place."""
_OFD: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_OFD_WAIT: int | None = getattr(fcntl, "F_OFD_SETLKW", None)

_open: weakref.WeakSet[Turnstile] = weakref.WeakSet()


class Turnstile:
    """One visitor's pass. Each thread that writes has its own; two passes exclude each other.

    `acquire` blocks without a limit: call it on a thread. `OSError` when the side file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._descriptors: list[int] = []
        # Without byte locks owned by the open file (macOS), each place is a file.
        count = 1 if _OFD is not None else PLACES
        try:
            for place in range(count):
                name = f"{path}-atoll{place or ''}"
                self._descriptors.append(os.open(name, os.O_RDWR | os.O_CREAT, 0o666))
        except OSError:
            self.close()
            raise
        _open.add(self)

    def acquire(self) -> None:
        """Wait for the turn; the caller has it until `release`."""
        if not self._stride():
            self._walk(wait=True)

    def try_acquire(self) -> bool:
        """Take the turn if nobody has it and nobody waits; never blocks."""
        return self._stride() if _OFD is not None else self._walk(wait=False)

    def release(self) -> None:
        """Leave the counter."""
        self._unlock(COUNTER)

    def close(self) -> None:
        """Give the pass back, with whatever it holds."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _stride(self) -> bool:
        """All places at once, when the hall is empty: two calls of the kernel instead of nine."""
        if _OFD is None or not self._lock(COUNTER, PLACES, wait=False):
            return False
        self._unlock(COUNTER + 1, PLACES - 1)
        return True

    def _walk(self, *, wait: bool) -> bool:
        held: int | None = None
        try:
            for place in range(PLACES - 1, COUNTER - 1, -1):
                if not self._lock(place, wait=wait):
                    return False
                if held is not None:
                    self._unlock(held)
                held = place
        finally:
            if held is not None and held != COUNTER:
                self._unlock(held)
        return True

    def _lock(self, place: int, count: int = 1, *, wait: bool) -> bool:
        try:
            if _OFD is not None and _OFD_WAIT is not None:
                request = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, place, count, 0)
                fcntl.fcntl(self._descriptors[0], _OFD_WAIT if wait else _OFD, request)
            else:
                fcntl.flock(self._descriptors[place], fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            if wait:
                raise
            return False
        return True

    def _unlock(self, place: int, count: int = 1) -> None:
        if not self._descriptors:
            return
        if _OFD is not None:
            request = struct.pack("@hhqqi0q", fcntl.F_UNLCK, os.SEEK_SET, place, count, 0)
            fcntl.fcntl(self._descriptors[0], _OFD, request)
        else:
            fcntl.flock(self._descriptors[place], fcntl.LOCK_UN)


def _drop_inherited() -> None:
    """A forked child shares its parent's passes; kept open they would outlive the parent's death."""
    for turnstile in list(_open):
        turnstile.close()
    _open.clear()


os.register_at_fork(after_in_child=_drop_inherited)
