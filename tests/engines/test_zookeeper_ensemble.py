"""Three ZooKeeper servers: nothing acknowledged is lost, nothing old is read, whoever leads or stands still.

Each run has its proof that the fault bit, and the checker is shown an engine that reads without its barrier.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atoll import clock
from atoll.engines.zookeeper import ZookeeperStore
from atoll.engines.zookeeper.limits import ZookeeperOptions
from atoll.engines.zookeeper.opened import Opened
from atoll.errors import AtollError, OutcomeUnknown
from atoll.ports.store import put
from atoll.verify import lock_history, revisions, servers
from atoll.verify.history import History
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.recorder import RecordingStore
from atoll.verify.scenario import Worker
from atoll.verify.servers import zookeeper
from atoll.verify.servers.cluster import Cluster
from atoll.verify.workloads import keys, lock
from servers import expect

OPTIONS = ZookeeperOptions(ceiling_s=4.0, connect_s=1.0, session_s=1.5)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One ensemble for this file; each test leaves it with three servers at work."""
    expect("zookeeper")
    folder = tmp_path_factory.mktemp("zookeeper")
    cluster = asyncio.run(servers.start("zookeeper", folder, nodes=3, tick_ms=300, sync_limit=4))
    yield cluster
    asyncio.run(cluster.close())


@asynccontextmanager
async def clients(cluster: Cluster, count: int) -> AsyncIterator[list[ZookeeperStore]]:
    """Handles with sessions of their own, each with another server first."""
    stores = []
    for n in range(count):
        hosts = cluster.addresses[n % 3 :] + cluster.addresses[: n % 3]
        stores.append(ZookeeperStore(",".join(hosts), root="ensemble", options=OPTIONS))
    try:
        for store in stores:
            await store.open()
        yield stores
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def worked(
    cluster: Cluster, hurt: Callable[[Cluster], Awaitable[float]], seconds: float
) -> tuple[History, History, Any, float]:
    """Four clients on a few keys, four on one lock, while `hurt` does its worst; at the end, when it did."""
    books = History(), History()
    place = f"{clock.unique_id()}/"
    async with clients(cluster, 8) as stores:
        until = clock.lease_now() + seconds
        workers = [
            Worker(
                handle=RecordingStore(store, books[n % 2], f"client-{n}"),
                book=books[n % 2],
                process=f"client-{n}",
                prefix=f"{place}{n % 2}/",
                dice=random.Random(n),
                until=until,
                ttl_s=1.5,
            )
            for n, store in enumerate(stores)
        ]
        works = [busy(w) if n % 2 == 0 else lock.lock(w) for n, w in enumerate(workers)]
        hurt_at, *_ = await asyncio.gather(hurt(cluster), *works)
        claims = await stores[0].open()
    return *books, claims, hurt_at


async def kill_leader(cluster: Cluster) -> float:
    """In the middle of the work; it comes back a little later."""
    await asyncio.sleep(0.7)
    leader = await cluster.leader()
    at = clock.lease_now()
    cluster.members[leader].kill()
    await asyncio.sleep(1.0)
    await cluster.members[leader].start()
    return at


async def pause_leader(cluster: Cluster) -> float:
    """Until the others have chosen another; it wakes up believing that it leads."""
    await asyncio.sleep(0.7)
    leader = await cluster.leader()
    at = clock.lease_now()
    cluster.members[leader].pause()
    try:
        others = [address for n, address in enumerate(cluster.addresses) if n != leader]
        while not any(
            ["Mode: leader" in await zookeeper.four_letters(address, "srvr") for address in others]
        ):
            assert clock.lease_now() < at + 10, "nobody else was chosen, so nothing was tested"
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    finally:
        cluster.members[leader].resume()
    return at


def answered(book: History) -> int:
    return sum(call.type.value == "ok" for call in book.calls)


def well(judgement: Judgement) -> None:
    assert judgement.answer is Answer.YES, "\n".join(map(str, judgement.violations[:5])) or judgement.note


async def busy(worker: Worker) -> None:
    """Several things at once, so that many are on their way when the fault comes."""
    steps = [keys.look, keys.swap, keys.overwrite, keys.remove, keys.several, keys.several, keys.survey]
    await asyncio.gather(*(keys.loop(worker, steps) for _ in range(4)))


@pytest.mark.parametrize("seconds", [5.0, pytest.param(15.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("hurt", [kill_leader, pause_leader])
async def test_one_order_and_no_stale_holder_whatever_befalls_the_leader(
    ensemble: Cluster, hurt: Any, seconds: float
) -> None:
    book, locks, claims, hurt_at = await worked(ensemble, hurt, seconds)
    well(revisions.judge(book, claims=claims))
    across = [c for c in book.calls if c.began_at < hurt_at and (c.ended_at or hurt_at) > hurt_at]
    assert len(across) > 3, "little was on its way when the leader went, so little was tested"
    last = max(call.began_at for call in book.calls)
    back = [c for c in book.calls if c.type.value == "ok" and c.began_at > last - 0.5]
    assert answered(book) > 100 and back, "the clients did not come back to work"
    well(lock_history.judge(locks))
    acquired = [c.ended_at or 0.0 for c in locks.calls if c.f == "acquired" and c.type.value == "ok"]
    assert min(acquired) < hurt_at < max(acquired), "the lock was not passed on both before and after"


async def lagging(cluster: Cluster, book: History) -> None:
    """A follower is stopped, others write, and it is asked in the moment it wakes up."""
    leader = await cluster.leader()
    follower = next(n for n in range(3) if n != leader)
    place = f"{clock.unique_id()}/"
    writer = ZookeeperStore(cluster.addresses[leader], root="ensemble", options=OPTIONS)
    reader = ZookeeperStore(cluster.addresses[follower], root="ensemble", options=OPTIONS)
    async with writer, reader:
        writing, asking = RecordingStore(writer, book, "writer"), RecordingStore(reader, book, "reader")
        await writing.transact(put(place + "k", clock.unique_id().encode()))
        await asking.get(place + "k")
        cluster.members[follower].pause()
        try:
            for _ in range(150):
                await writing.transact(put(place + "k", clock.unique_id().encode()))
            questions = [asyncio.ensure_future(asking.get(place + "k")) for _ in range(5)]
            await asyncio.sleep(0.05)
        finally:
            cluster.members[follower].resume()
        await asyncio.gather(*questions, return_exceptions=True)


async def test_a_follower_that_lags_answers_with_the_newest(ensemble: Cluster) -> None:
    book = History()
    for _ in range(2):
        await lagging(ensemble, book)
    well(revisions.judge(book))


async def test_a_read_without_its_barrier_is_caught(
    ensemble: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Opened.read

    async def hasty(
        self: Opened, what: str, lines: Any, due: float, *, newest: bool, link: Any = None
    ) -> Any:
        return await whole(self, what, lines, due, newest=newest and what == "opening the store", link=link)

    monkeypatch.setattr(Opened, "read", hasty)
    for _ in range(8):
        book = History()
        await lagging(ensemble, book)
        judgement = revisions.judge(book)
        if judgement.answer is Answer.NO:
            assert "stale" in str(judgement.rules()) or judgement.violations
            return
    pytest.fail("eight lagging followers were asked without a barrier, and every answer was the newest")


async def test_a_lease_outlives_the_server_it_was_renewed_through(ensemble: Cluster) -> None:
    async with clients(ensemble, 2) as (store, witness):
        assert store.leasing is not None
        sent = clock.lease_now()
        granted = await store.leasing.grant(4.0)
        await store.transact(put("leased", b"", lease=granted.lease))
        link = store._leasing._leases[granted.lease].link
        port = link.client._connection._socket.getpeername()[1]
        struck = next(n for n, address in enumerate(ensemble.addresses) if address.endswith(f":{port}"))
        ensemble.members[struck].kill()
        try:
            until = sent + granted.ttl_s
            renewed = 0.0
            while clock.lease_now() < until and not renewed:
                try:
                    renewed = await store.leasing.keep_alive(granted.lease)
                except OutcomeUnknown:
                    await asyncio.sleep(0.05)
            assert renewed, "nobody took the session on within its time"
            assert (await witness.get("leased")).entry is not None
        finally:
            await ensemble.members[struck].start()
        await store.leasing.revoke(granted.lease)
        assert (await witness.get("leased")).entry is None


async def test_a_majority_gone_is_said_in_time_and_its_return_is_noticed(ensemble: Cluster) -> None:
    async with clients(ensemble, 1) as (store,):
        await store.transact(put("majority", b"1"))
        for member in ensemble.members[:2]:
            member.kill()
        began = clock.loop_now()
        with pytest.raises(AtollError), clock.deadline(1.0):
            await store.transact(put("majority", b"2"))
        with pytest.raises(AtollError), clock.deadline(1.0):
            await store.get("majority")
        assert clock.loop_now() - began < 3.0
        for member in ensemble.members[:2]:
            member.launch()
        for member in ensemble.members:
            await member.serving()
        with clock.deadline(20):
            for _ in range(20):
                try:
                    assert (await store.get("majority")).entry is not None
                    return
                except AtollError:
                    await asyncio.sleep(0.2)
    pytest.fail("the store did not come back")
