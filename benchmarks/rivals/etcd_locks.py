"""The lock of etcd's own recipe written by hand on aetcd, beside Atoll on the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.rivals.lock_sides import ATOLL, Side


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Callable[[str], AbstractAsyncContextManager[object]]]:
    """A key under a lease and a watch on the key before it, as etcd's concurrency package does."""
    import aetcd

    parts = urlsplit(url)
    async with aetcd.Client(host=parts.hostname or "", port=parts.port or 2379) as client:
        lease = await client.lease(15)

        @asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            prefix = f"by-hand/{name}/".encode()
            mine = prefix + f"{lease.id:x}".encode()
            await client.transaction(
                compare=[client.transactions.create(mine) == 0],
                success=[client.transactions.put(mine, b"", lease=lease)],
                failure=[],
            )
            while True:
                found = sorted(await client.get_prefix(prefix), key=lambda one: one.create_revision)
                place = [one.key for one in found].index(mine)
                if place == 0:
                    break
                before = found[place - 1]
                watch = await client.watch(before.key, start_revision=before.mod_revision + 1)
                async for _ in watch:
                    break
                await watch.cancel()
            try:
                yield
            finally:
                await client.delete(mine)

        yield lock


SIDES = (
    ATOLL,
    Side("aetcd by hand", opened=by_hand, weaker="no keep-alive, no loss noticed, no token", needs="aetcd"),
)
