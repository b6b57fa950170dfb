"""redis-py's Lock and python-redis-lock, beside Atoll on the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)

from benchmarks.rivals.lock_sides import ATOLL, Side


@asynccontextmanager
async def redis_py(url: str) -> AsyncIterator[Callable[[str], AbstractAsyncContextManager[object]]]:
    """SET NX with a ttl, asked again every 10 ms (its default of 100 ms would be slower still)."""
    import redis.asyncio

    client = redis.asyncio.from_url(url.partition("?")[0])
    try:
        yield lambda name: client.lock(f"redis-py:{name}", timeout=15, sleep=0.01)
    finally:
        await client.aclose()


@contextmanager
def redis_lock(url: str) -> Iterator[Callable[[str], AbstractContextManager[object]]]:
    """python-redis-lock: a signal list wakes the next one."""
    import redis
    import redis_lock as library

    client = redis.from_url(url.partition("?")[0])
    try:
        yield lambda name: library.Lock(client, name, expire=15, strict=True)
    finally:
        client.close()


SIDES = (
    ATOLL,
    Side("redis-py Lock", opened=redis_py, weaker="no token, no order, polls every 10 ms"),
    Side("python-redis-lock", blocking=redis_lock, weaker="no token, no order", needs="redis_lock"),
)
