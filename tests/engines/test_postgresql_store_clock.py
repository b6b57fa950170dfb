"""3.1: leases are judged by the server's wall clock, which somebody may set; the claims say so."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import atoll.urls
from atoll import Lock, LockLost
from atoll.errors import LeaseOver, Refused
from atoll.ports.store import put
from atoll.verify.servers import postgresql
from atoll.verify.wall_clock import WallClock, compiler
from servers import server

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler: apt-get install gcc libc6-dev")


@asynccontextmanager
async def with_a_clock() -> AsyncIterator[tuple[Any, Any]]:
    """A server whose wall clock the test may set: `step(seconds)` from the true time."""
    with tempfile.TemporaryDirectory(prefix="atoll-clock-") as folder:
        Path(folder).chmod(0o755)  # the server's account looks at the hand
        wall = WallClock(Path(folder))
        await wall.build()
        async with server("postgresql", environment=wall.environment()) as cluster:
            port = cluster.facts["ports"][0]

            async def now() -> float:
                sql = "SELECT extract(epoch FROM clock_timestamp())::float8"
                return float((await postgresql.ask(port, sql))[0][0])

            async def step(seconds: int) -> None:
                before = await now()
                wall.set(seconds)
                assert abs(await now() - before) > abs(seconds) / 2, "nothing was tested"

            yield cluster, step


async def test_a_clock_set_forward_ends_leases_early_and_the_holder_is_told() -> None:
    async with with_a_clock() as (cluster, step):
        async with atoll.urls.store(cluster.url) as store, atoll.urls.store(cluster.url) as rival:
            assert (await store.open()).never_early is False
            with pytest.raises(LockLost):
                async with Lock(store, "x", ttl_s=3) as held:
                    await step(3600)
                    async with Lock(rival, "x", ttl_s=30, wait_s=10):
                        with pytest.raises((Refused, LeaseOver)):  # what the guard is there for
                            await store.transact(put("late", b""), guard=held)
                        assert store.leasing is not None
                        with pytest.raises(LeaseOver):
                            await store.leasing.keep_alive(held._session.lease)
                    await asyncio.sleep(60)  # the next renewal is told so, and the body is stopped


async def test_a_clock_set_back_only_makes_leases_longer() -> None:
    async with with_a_clock() as (cluster, step):
        async with atoll.urls.store(cluster.url) as store:
            assert store.leasing is not None
            lease = await store.leasing.grant(2)
            await store.transact(put("k", b"", lease=lease.lease))
            await step(-3600)
            left = await store.leasing.remaining(lease.lease)
            assert left is not None and left > 3000
            assert await store.leasing.keep_alive(lease.lease) == 2
            left = await store.leasing.remaining(lease.lease)
            assert left is not None and left <= 2, "a renewal sets it right again"
