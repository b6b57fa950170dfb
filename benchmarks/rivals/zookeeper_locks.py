"""kazoo's Lock, beside Atoll on the same server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

from benchmarks.rivals.lock_sides import ATOLL, Side


@contextmanager
def kazoo_lock(url: str) -> Iterator[Callable[[str], AbstractContextManager[object]]]:
    """Sequence nodes and a watch on the node before; a client for each waiter."""
    from kazoo.client import KazooClient

    client = KazooClient(hosts=urlsplit(url).netloc.rpartition("@")[2], timeout=10)
    client.start(timeout=20)
    try:
        yield lambda name: client.Lock(f"/kazoo/{name}")
    finally:
        client.stop()
        client.close()


SIDES = (ATOLL, Side("kazoo Lock", blocking=kazoo_lock, weaker="no token; is_acquired outlives the session"))
