"""3.3: Sentinel and Cluster: the master dies under load, the way to the next is found, the loss is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import Sentinel

import atoll.urls
from atoll import AtollError, ConfigurationError, EpochUncertain, Lock, put
from atoll.engines.redis import RedisOptions, RedisStore
from atoll.ports.register import Applied
from atoll.verify.servers.redis import client_of
from servers import server


def port(cluster: Any, number: int) -> int:
    return int(cluster.addresses[2 * number].rpartition(":")[2])


class Writer:
    """Puts one number after the other until it is told to stop; what was acknowledged counts."""

    def __init__(self, store: Any) -> None:
        self.store, self.acknowledged, self.errors, self.on = store, 0, 0, True

    async def write(self) -> None:
        number = 0
        while self.on:
            number += 1
            try:
                done = await self.store.transact(put(f"n/{number:06}", b""))
                assert isinstance(done, Applied)
                self.acknowledged += 1
            except EpochUncertain:
                return
            except AtollError:
                self.errors += 1


async def watch(store: Any, seen: list[int]) -> None:
    """Heals itself; only who had been told what is lost now is told so, until the bump."""
    while True:
        try:
            async for observation in store.observe("n/"):
                seen.append(observation.revision)
        except EpochUncertain:
            await asyncio.sleep(0.05)


async def survives(cluster: Any, store: Any, fail: Any) -> None:
    """Under load `fail()` takes the master away; then writes, watches and locks go on, as is promised."""
    assert (await store.open()).forgets_at_failover
    with pytest.raises(ConfigurationError, match="best_effort=True"):
        async with Lock(store, "x"):
            pass
    async with Lock(store, "x", best_effort=True, ttl_s=5) as held:
        before = held.token
    writer, seen = Writer(store), []
    watching = asyncio.create_task(watch(store, seen))
    writing = asyncio.create_task(writer.write())
    async with asyncio.timeout(60):
        while writer.acknowledged < 100 or not seen:
            await asyncio.sleep(0.01)
        old = await cluster.leader()
        await fail(old)
        while not writing.done() and not await _writes(store):
            await asyncio.sleep(0.05)
        assert await cluster.leader() != old
    writer.on = False
    await writing
    new = atoll.urls.store(cluster.url)
    with pytest.raises(EpochUncertain, match=r"promoted from a replica|not there any more"):
        await new.epoch()
    assert await new.moving.bump() == 2
    async with Lock(store, "x", best_effort=True, ttl_s=6, wait_s=20) as held:
        assert held.token > before and held.token.epoch == 2
    done = await store.transact(put("n/end", b""))
    assert isinstance(done, Applied)
    async with asyncio.timeout(20):
        while seen[-1] < done.revision:
            assert not watching.done(), "the watch did not heal itself"
            await asyncio.sleep(0.02)
    there = len((await new.range("n/", limit=100_000)).entries) - 1
    print(f"acknowledged {writer.acknowledged}, there {there}, errors {writer.errors}")

    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await new.close()


async def _writes(store: Any) -> bool:
    try:
        with atoll.deadline(3):
            await store.transact(put("probe", b""))
    except EpochUncertain:
        return True
    except AtollError:
        return False
    return True


@pytest.mark.parametrize("product", ["redis", pytest.param("valkey", marks=pytest.mark.long)])
async def test_behind_sentinel_a_killed_master_is_followed_by_the_next(product: str) -> None:
    async with server(product, sentinel=True) as cluster, atoll.urls.store(cluster.url) as store:

        async def kill(old: int) -> None:
            cluster.members[old].kill()

        await survives(cluster, store, kill)


def sentinels(cluster: Any) -> list[int]:
    return [int(one.command[-1]) for one in cluster.members[3:]]


async def test_behind_sentinel_a_stopped_master_is_left() -> None:
    async with server("redis", sentinel=True) as cluster:
        sentinel = Sentinel([("127.0.0.1", number) for number in sentinels(cluster)])
        store = RedisStore(client=sentinel.master_for("main"), options=RedisOptions(ceiling_s=2))

        async def stop(old: int) -> None:
            cluster.members[old].pause()

        await survives(cluster, store, stop)
        await store.close()
        for one in sentinel.sentinels:
            await one.aclose()


@pytest.mark.long
async def test_behind_sentinel_a_master_that_steps_down_is_left() -> None:
    async with server("redis", sentinel=True) as cluster, atoll.urls.store(cluster.url) as store:

        async def step_down(old: int) -> None:
            client = client_of(sentinels(cluster)[0])
            await client.execute_command("SENTINEL", "FAILOVER", "main")
            await client.aclose()
            while await cluster.leader() == old:
                await asyncio.sleep(0.05)

        await survives(cluster, store, step_down)


async def test_in_a_cluster_the_slot_of_the_prefix_is_found_and_followed_when_its_master_dies() -> None:
    async with server("redis", cluster=True) as cluster:
        owner = await cluster.leader()
        stranger = (owner + 1) % 3
        store = atoll.urls.store(f"redis+cluster://127.0.0.1:{port(cluster, stranger)}")
        client = RedisCluster(host="127.0.0.1", port=port(cluster, stranger))
        mine = RedisStore(client=client)
        await store.transact(put("k", b"1"))
        assert (await mine.get("k")).entry is not None
        await mine.close()
        await client.aclose()

        async def kill(old: int) -> None:
            cluster.members[old].kill()

        await survives(cluster, store, kill)
        await store.close()
