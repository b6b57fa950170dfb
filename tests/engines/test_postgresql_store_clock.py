"""3.1: leases are judged by the server's wall clock, which somebody may set; the claims say so."""

from __future__ import annotations

import asyncio
import shutil
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
from servers import server

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
pytestmark = pytest.mark.skipif(
    shutil.which("faketime") is None or not LIBRARY.exists(),
    reason="apt-get install faketime",
)


@asynccontextmanager
async def with_a_clock() -> AsyncIterator[tuple[Any, Any]]:
    """A server whose wall clock the test may set: `step(seconds)` from the true time."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-clock-"))
    folder.chmod(0o755)  # the server's account reads the dial
    dial = folder / "dial"
    dial.write_text("+0")
    dial.chmod(0o644)
    environment = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(dial),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with server("postgresql", environment=environment) as cluster:

        async def step(seconds: float) -> None:
            [(before,)] = await postgresql.ask(
                cluster.facts["ports"][0], "SELECT extract(epoch FROM clock_timestamp())::float8"
            )
            dial.write_text(f"{seconds:+g}")
            [(after,)] = await postgresql.ask(
                cluster.facts["ports"][0], "SELECT extract(epoch FROM clock_timestamp())::float8"
            )
            assert abs(after - before) > abs(seconds) / 2, "the clock was not set: nothing was tested"

        yield cluster, step
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_clock_set_forward_ends_leases_early_and_the_holder_is_told() -> None:
    async with with_a_clock() as (cluster, step):
        async with atoll.urls.store(cluster.url) as store, atoll.urls.store(cluster.url) as rival:
            assert (await store.open()).never_early is False
            with pytest.raises(LockLost):
                async with Lock(store, "x", ttl_s=30) as held:
                    await step(3600)
                    async with Lock(rival, "x", ttl_s=30, wait_s=10):
                        with pytest.raises((Refused, LeaseOver)):  # what the guard is there for
                            await store.transact(put("late", b""), guard=held)
                        assert store.leasing is not None
                        with pytest.raises(LeaseOver):
                            await store.leasing.keep_alive(held._session.lease)
                        held._session.end("the store says that its lease is over")
                    await asyncio.sleep(5)


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
