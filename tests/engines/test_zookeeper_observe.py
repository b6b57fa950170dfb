"""What an observation of ZooKeeper's shows is the state as of its revision, whoever comes and goes meanwhile.

The checker is shown an observer that overlooks one flag in ten, and must say so.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from atoll import clock
from atoll.engines.zookeeper import ZookeeperStore
from atoll.engines.zookeeper.hub import Hub
from atoll.engines.zookeeper.mirror import Mirror
from atoll.ports.store import delete, put
from atoll.verify import revisions
from atoll.verify.history import History
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.recorder import RecordingStore
from atoll.verify.scenario import Worker
from atoll.verify.servers.cluster import Cluster
from atoll.verify.workloads import keys


@pytest.fixture
def cluster(shared: Any) -> Cluster:
    found: Cluster = shared("zookeeper", tick_ms=200)
    return found


def opened(cluster: Cluster, root: str) -> ZookeeperStore:
    return ZookeeperStore(cluster.addresses[0], root=root)


@pytest.mark.parametrize("key", ["k", "a/b/c"])
async def test_a_key_made_again_between_the_look_at_it_and_at_its_directory_is_shown(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    root = f"observe-{clock.unique_id()}"
    async with opened(cluster, root) as one, opened(cluster, root) as other:
        await other.transact(put(key, b"first life"))
        items = one.observe("")
        assert (await anext(items)).changed[0].value == b"first life"
        await other.transact(delete(key))
        await one.get(key)  # answered after both flags, the key's and its directory's, are up

        listed = Hub.listed
        reborn = []

        async def late(self: Hub, *arguments: Any) -> Any:
            if not reborn:
                reborn.append(None)
                await one.get(key)  # answered after the look at the key, which was sent before it
                reborn[0] = await other.transact(put(key, b"second life"))
            return await listed(self, *arguments)

        monkeypatch.setattr(Hub, "listed", late)
        item = await asyncio.wait_for(anext(items), 5)
        assert reborn and item.revision >= reborn[0].revision
        assert [entry.value for entry in item.changed] == [b"second life"] and not item.removed


async def crowded(cluster: Cluster, seconds: float) -> Judgement:
    """Three clients who write a few keys and listen to all of them, and what the checker says of it."""
    root, book, place = f"observe-{clock.unique_id()}", History(), f"{clock.unique_id()}/"
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(cluster, root)) for _ in range(3)]
        claims = await stores[0].open()
        until = clock.lease_now() + seconds
        workers = [
            Worker(
                handle=RecordingStore(store, book, f"client-{n}"),
                book=book,
                process=f"client-{n}",
                prefix=place,
                dice=random.Random(n),
                until=until,
                ttl_s=1.5,
            )
            for n, store in enumerate(stores)
        ]
        await asyncio.gather(*(keys.observe(worker) for worker in workers))
    judgement = revisions.judge(book, claims=claims)
    assert judgement.counts["stream items"] > 20, "little was observed, so little was tested"
    return judgement


@pytest.mark.parametrize("seconds", [2.0, pytest.param(20.0, marks=pytest.mark.long)])
async def test_every_observation_is_the_state_as_of_its_revision(cluster: Cluster, seconds: float) -> None:
    judgement = await crowded(cluster, seconds)
    assert judgement.answer is Answer.YES, "\n".join(map(str, judgement.violations[:5])) or judgement.note


async def test_an_observer_that_overlooks_a_flag_now_and_then_is_caught(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, dice = Mirror._flag_node, random.Random(1)

    def sleepy(self: Mirror, path: str) -> None:
        if dice.random() > 0.1:
            whole(self, path)

    monkeypatch.setattr(Mirror, "_flag_node", sleepy)
    judgement = await crowded(cluster, 1.5)
    assert judgement.answer is Answer.NO
