"""Turnstile: whose turn it is to write a SQLite file, among threads and processes.

SQLite's own busy handler is a crowd around a door: whoever happens to push at the right moment gets in.
Here there are two places instead, "next in line" and "at the counter". You give up the line only when
you stand at the counter, so whoever has just been served must line up behind the one who waits.

Both places are locks of the kernel on one side file, `<file>-atoll`: they vanish with a killed process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref

_LINE, _COUNTER = 0, 1
_OFD: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_OFD_WAIT: int | None = getattr(fcntl, "F_OFD_SETLKW", None)

_open: weakref.WeakSet[Turnstile] = weakref.WeakSet()


class Turnstile:
    """One visitor's pass. Each thread that writes has its own; two passes exclude each other.

    `acquire` blocks without a limit: call it on a thread. `OSError` when the side file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._descriptors: list[int] = []
        # Without byte locks owned by the open file (macOS), two files stand for the two places.
        names = [f"{path}-atoll"] if _OFD is not None else [f"{path}-atoll-line", f"{path}-atoll"]
        try:
            for name in names:
                self._descriptors.append(os.open(name, os.O_RDWR | os.O_CREAT, 0o666))
        except OSError:
            self.close()
            raise
        _open.add(self)

    def acquire(self) -> None:
        """Wait for the turn; the caller has it until `release`."""
        self._lock(_LINE, wait=True)
        try:
            self._lock(_COUNTER, wait=True)
        finally:
            self._unlock(_LINE)

    def try_acquire(self) -> bool:
        """Take the turn if nobody has it and nobody waits; never blocks."""
        if not self._lock(_LINE, wait=False):
            return False
        try:
            return self._lock(_COUNTER, wait=False)
        finally:
            self._unlock(_LINE)

    def release(self) -> None:
        """Leave the counter."""
        self._unlock(_COUNTER)

    def close(self) -> None:
        """Give the pass back, with whatever it holds."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _lock(self, place: int, *, wait: bool) -> bool:
        try:
            if _OFD is not None and _OFD_WAIT is not None:
                request = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
                fcntl.fcntl(self._descriptors[0], _OFD_WAIT if wait else _OFD, request)
            else:
                fcntl.flock(self._descriptors[place], fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            if wait:
                raise
            return False
        return True

    def _unlock(self, place: int) -> None:
        if not self._descriptors:
            return
        if _OFD is not None:
            request = struct.pack("@hhqqi0q", fcntl.F_UNLCK, os.SEEK_SET, place, 1, 0)
            fcntl.fcntl(self._descriptors[0], _OFD, request)
        else:
            fcntl.flock(self._descriptors[place], fcntl.LOCK_UN)


def _drop_inherited() -> None:
    """A forked child shares its parent's passes; kept open they would outlive the parent's death."""
    for turnstile in list(_open):
        turnstile.close()
    _open.clear()


os.register_at_fork(after_in_child=_drop_inherited)
