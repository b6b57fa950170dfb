"""filelock, beside Atoll on a file of the same folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.rivals.lock_sides import ATOLL, Side


@contextmanager
def file_lock(url: str) -> Iterator[Callable[[str], AbstractContextManager[object]]]:
    """flock on a file, asked again every 10 ms (its default of 50 ms would be slower still)."""
    import filelock

    path = url.partition("://")[2].partition("?")[0][1:]
    yield lambda name: filelock.FileLock(f"{path}.{name}.lock", poll_interval=0.01, thread_local=False)


SIDES = (
    ATOLL,
    Side(
        "filelock",
        blocking=file_lock,
        weaker="no token, no order, writes nothing, one machine",
        needs="filelock",
    ),
)
