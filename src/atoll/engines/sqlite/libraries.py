"""One SQLite library per file in a process.

Two doormen with two guest lists at one door let in more than the house holds. SQLite locks a file with POSIX
locks, which belong to the *process*: when one copy of the library closes the file, the kernel drops the locks
of the other copy too, and two writers meet. Our engine brings its own SQLite (apsw), the standard library has
another; both may be loaded, only one may open a given file.
"""

from __future__ import annotations

import os
import threading
from collections import Counter

from atoll.errors import ConfigurationError

_OURS = "the SQLite of Atoll's own engine (apsw)"
_STANDARD = "the SQLite of the standard library (sqlite3, aiosqlite, SQLAlchemy)"

Identity = tuple[int, int]

_standard: Counter[Identity] = Counter()
_lock = threading.Lock()


def identity(path: str) -> Identity | None:
    """Device and inode of `path`, so that links and relative paths are one file; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def claim_standard(path: str) -> Identity | None:
    """Note that the standard library's SQLite opens `path`. Pair with `release_standard` of the answer."""
    refuse_standard(path)
    if (key := identity(path)) is not None:
        with _lock:
            _standard[key] += 1
    return key


def release_standard(key: Identity) -> None:
    """One holder less."""
    with _lock:
        _standard[key] -= 1


def refuse_standard(path: str) -> None:
    """ConfigurationError when our own engine has `path` open, so the standard library must not."""
    from atoll.engines.sqlite.file import open_paths

    key = identity(path)
    if key is not None and any(identity(other) == key for other in open_paths()):
        raise _refusal(path, _STANDARD, _OURS)


def refuse_ours(path: str) -> None:
    """ConfigurationError when the standard library has `path` open, so our own engine must not."""
    if (key := identity(path)) is not None and _standard[key] > 0:
        raise _refusal(path, _OURS, _STANDARD)


def _refusal(path: str, wanted: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is open in this process through {found}, and was now to be opened through {wanted} as "
        "well. Two SQLite libraries in one process drop each other's file locks and damage the file. Use "
        "one way for each file: either hand atoll.database() your SQLAlchemy engine and keep Atoll's store "
        "and broker in another file, or open this file only as atoll.database('sqlite:///...') and work on "
        "the transaction that its begin() gives."
    )
