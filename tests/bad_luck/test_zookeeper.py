"""Bad luck with ZooKeeper: each its own error, in the right family, in time; and what heals by itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from atoll import Lock, clock
from atoll.engines.zookeeper import ZookeeperStore
from atoll.engines.zookeeper.limits import ZookeeperOptions
from atoll.errors import (
    AtollError,
    ConfigurationError,
    EpochUncertain,
    FormatRefused,
    LeaseOver,
    LimitReached,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    WatchLost,
)
from atoll.ports.store import put
from atoll.verify.conformance_guard import Held
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.process import free_port
from servers import server

CEILING_S = 1.5
SLACK_S = 1.0
QUICK = ZookeeperOptions(ceiling_s=CEILING_S, connect_s=0.5, session_s=1.0, liveness_s=1.0)


async def in_time(call: Awaitable[Any], kind: type[AtollError], ceiling_s: float = CEILING_S) -> AtollError:
    """`call` raises `kind`, with a sentence, before its deadline and a little."""
    began = clock.loop_now()
    with pytest.raises(kind) as caught:
        await call
    assert clock.loop_now() - began < ceiling_s + SLACK_S
    assert len(str(caught.value)) > 20
    return caught.value


async def healed(store: ZookeeperStore, key: str = "k") -> bytes:
    """What a key holds once the store answers again."""
    until = clock.loop_now() + 20
    while True:
        try:
            entry = (await store.get(key)).entry
            return entry.value if entry is not None else b""
        except AtollError:
            assert clock.loop_now() < until, "the store did not come back"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def alone(**settings: Any) -> AsyncIterator[tuple[Cluster, ZookeeperStore]]:
    """A server to be hurt, and a store on it."""
    async with server("zookeeper", tick_ms=200, **settings) as cluster:
        store = ZookeeperStore(cluster.addresses[0], root="shop", options=QUICK)
        try:
            await store.open()
            yield cluster, store
        finally:
            await store.close()


def shared_store(shared: Any, **words: Any) -> ZookeeperStore:
    cluster = shared("zookeeper", tick_ms=200)
    return ZookeeperStore(cluster.addresses[0], root=f"luck-{clock.unique_id()}", options=QUICK, **words)


async def test_nobody_listens() -> None:
    store = ZookeeperStore(f"127.0.0.1:{free_port()}", options=QUICK)
    error = await in_time(store.get("k"), NotSent)
    assert "took us on" in str(error)
    with clock.deadline(0.3):
        await in_time(store.transact(put("k", b"")), NotSent, 0.3)
    await store.close()


async def test_somebody_else_listens() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        store = ZookeeperStore(f"127.0.0.1:{port}", options=QUICK)
        with clock.deadline(0.7):
            await in_time(store.get("k"), NotSent, 0.7)
        await store.close()


async def test_a_server_that_stands_still_and_goes_on() -> None:
    async with alone() as (cluster, store):
        await store.transact(put("k", b"1"))
        assert store.leasing is not None
        lease = (await store.leasing.grant(2)).lease
        cluster.members[0].pause()
        try:
            error = await in_time(store.transact(put("k", b"2"), request_id="r"), OutcomeUnknown)
            assert isinstance(error, OutcomeUnknown) and error.id == "r"
            fresh = ZookeeperStore(cluster.addresses[0], root="shop", options=QUICK)
            for call, kind in (
                (store.get("k"), AtollError),
                (store.leasing.keep_alive(lease), AtollError),
                (fresh.open(), NotSent),
            ):
                with clock.deadline(0.3):
                    await in_time(call, kind, 0.3)
            await fresh.close()
        finally:
            cluster.members[0].resume()
        assert await healed(store) in (b"1", b"2")


async def test_a_server_that_is_killed_keeps_what_it_answered_and_is_found_again() -> None:
    patience = ZookeeperOptions(session_s=1.0, liveness_s=30.0, connect_s=0.5)
    async with (
        alone() as (cluster, store),
        ZookeeperStore(cluster.addresses[0], root="shop", options=patience) as patient,
    ):
        assert store.leasing is not None
        granted = await store.leasing.grant(0.5)
        items, lasting = store.observe("k"), patient.observe("k")
        await anext(items)
        await anext(lasting)
        await store.transact(put("k", b"1"))
        assert (await anext(items)).changed[0].value == (await anext(lasting)).changed[0].value == b"1"
        cluster.members[0].kill()
        await in_time(store.transact(put("k", b"2")), AtollError)
        with pytest.raises(WatchLost):
            await asyncio.wait_for(anext(items), 10)
        await eventually_over(store, granted.lease)
        await cluster.members[0].start()
        assert await healed(store) == b"1"
        await in_time(store.leasing.keep_alive(granted.lease), LeaseOver)
        async with Lock(store, "x", ttl_s=1.0) as held:
            written = await store.transact(put("k", b"3"), guard=held)
        item = await asyncio.wait_for(anext(lasting), 30)
        assert item.changed[0].value == b"3" and item.revision >= written.revision
        async for item in store.observe("k"):
            assert item.reset and item.changed[0].value == b"3"
            break


async def eventually_over(store: ZookeeperStore, lease: str) -> None:
    """Until our own clock says that a lease is over, whatever a server would say."""
    assert store.leasing is not None
    until = clock.lease_now() + 10
    while await store.leasing.remaining(lease) is not None:
        assert clock.lease_now() < until
        await asyncio.sleep(0.02)


async def test_data_put_back_or_wiped_is_noticed_until_an_operator_says_so() -> None:
    async with alone() as (cluster, store):
        server, data = cluster.members[0], Path(cluster.members[0].folder) / "data" / "version-2"
        assert store.leasing is not None and store.moving is not None
        await store.transact(put("k", b"old"))
        server.kill()
        shutil.copytree(data, data.parent / "kept")
        await server.start()
        await healed(store)
        for n in range(20):
            await store.transact(put("k", b"%d" % n))
        server.kill()
        shutil.rmtree(data)
        (data.parent / "kept").rename(data)
        await server.start()
        assert await healed(store) == b"old"
        error = await in_time(store.epoch(), EpochUncertain)
        assert "went back" in str(error) and "atoll store bump" in str(error)
        assert await store.moving.bump() == 2 == await store.epoch()
        async with Lock(store, "x", ttl_s=1.0) as before:
            pass

        server.kill()
        shutil.rmtree(data)
        await server.start()
        assert await healed(store) == b""
        await in_time(store.epoch(), EpochUncertain)
        await in_time(store.leasing.grant(1), EpochUncertain)
        late = Held("lock/x/owner", before.token)
        await in_time(store.transact(put("k", b"late"), guard=late), EpochUncertain)
        assert await store.moving.bump(above=7) == 8
        async with Lock(store, "x", ttl_s=1.0) as after:
            assert after.token > before.token
        async with ZookeeperStore(cluster.addresses[0], root="shop", options=QUICK) as newcomer:
            assert await newcomer.epoch() == 8


async def test_two_ensembles_behind_one_url_are_told_apart(shared: Any) -> None:
    async with alone() as (cluster, _):
        other = shared("zookeeper", tick_ms=200)
        both = ZookeeperStore(f"{cluster.addresses[0]},{other.addresses[0]}", root="shop", options=QUICK)
        try:
            noticed = False
            for _ in range(40):
                try:
                    await both.epoch()
                except EpochUncertain:
                    noticed = True
                    break
                # The session is ended by hand, as a long absence would; the next is with whoever answers.
                opened = both._opening.inside
                assert opened is not None
                await both._opening.drop(opened)
            assert noticed
        finally:
            await both.close()


@pytest.mark.parametrize("stranger", [{"user": "ann", "password": "wrong"}, {"user": "bob"}, {}])
async def test_wrong_credentials(shared: Any, stranger: dict[str, str]) -> None:
    root = f"guarded-{clock.unique_id()}"
    hosts = shared("zookeeper", tick_ms=200).addresses[0]
    async with ZookeeperStore(hosts, root=root, user="ann", password="s3cret", options=QUICK) as mine:
        await mine.transact(put("k", b""))
        theirs = ZookeeperStore(hosts, root=root, options=QUICK, **stranger)
        error = await in_time(theirs.get("k"), ConfigurationError)
        assert "wrong" not in str(error) and "s3cret" not in str(error) and "user" in str(error)
        await theirs.close()
        async with Lock(mine, "x"):
            pass


async def test_a_root_that_is_not_ours(shared: Any) -> None:
    cluster = shared("zookeeper", tick_ms=200)
    root = f"theirs-{clock.unique_id()}"
    client = KazooClient(hosts=cluster.addresses[0])
    await asyncio.to_thread(client.start)
    try:
        for data, kind in (
            (b"something else", FormatRefused),
            (b'{"format": 2, "epoch": 1, "incarnation": ""}', FormatRefused),
        ):
            await asyncio.to_thread(client.ensure_path, f"/{root}/meta")
            await asyncio.to_thread(client.set, f"/{root}/meta", data)
            store = ZookeeperStore(cluster.addresses[0], root=root, options=QUICK)
            await in_time(store.open(), kind)
            await store.close()
    finally:
        await asyncio.to_thread(client.stop)
        client.close()


async def test_a_value_that_is_not_ours_is_said_to_be_so(shared: Any) -> None:
    store = shared_store(shared)
    client = KazooClient(hosts=shared("zookeeper", tick_ms=200).addresses[0])
    await asyncio.to_thread(client.start)
    try:
        async with store:
            await store.transact(put("k", b"v"))
            await asyncio.to_thread(client.set, store._tree.path("k"), b"by hand")
            await in_time(store.get("k"), FormatRefused)
    finally:
        await asyncio.to_thread(client.stop)
        client.close()


async def test_over_quota() -> None:
    async with alone(java=("-Dzookeeper.enforceQuota=true",)) as (cluster, store):
        client = KazooClient(hosts=cluster.addresses[0])
        await asyncio.to_thread(client.start)
        try:
            await asyncio.to_thread(client.ensure_path, "/zookeeper/quota/shop")
            limits = b"count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=280"
            await asyncio.to_thread(client.create, "/zookeeper/quota/shop/zookeeper_limits", limits)
            await asyncio.to_thread(
                client.create, "/zookeeper/quota/shop/zookeeper_stats", b"count=0,bytes=0"
            )
        finally:
            await asyncio.to_thread(client.stop)
            client.close()
        cluster.members[0].kill()  # what is there is counted when a server starts
        await cluster.members[0].start()
        await healed(store)

        async def fill() -> None:
            for n in range(60):
                await store.transact(put(f"{n}", b""))

        error = await in_time(fill(), LimitReached, 10)
        assert "quota" in str(error)
        assert await healed(store, "0") == b""


async def test_a_request_that_the_server_finds_too_long_costs_the_connection_and_no_more() -> None:
    async with alone(java=("-Djute.maxbuffer=60000",)) as (_, store):
        await store.transact(put("k", b"1"))
        await in_time(store.transact(put("k", bytes(100_000))), OutcomeUnknown)
        assert await healed(store) == b"1"
        await store.transact(put("k", b"2"))


async def test_more_calls_than_may_be_on_their_way(shared: Any) -> None:
    cluster = shared("zookeeper", tick_ms=200)
    few = ZookeeperOptions(in_flight_max=5)
    async with ZookeeperStore(cluster.addresses[0], root="luck-few", options=few) as store:
        answers = await asyncio.gather(*(store.get(f"{n}") for n in range(50)), return_exceptions=True)
        refused = [a for a in answers if isinstance(a, Overloaded)]
        assert refused and len(refused) < 50 and all(not isinstance(a, OutcomeUnknown) for a in answers)


async def test_a_deadline_that_has_passed_sends_nothing(shared: Any) -> None:
    async with shared_store(shared) as store:
        with clock.deadline(0.0001):
            await asyncio.sleep(0.001)
            await in_time(store.transact(put("k", b"")), NotSent)
        assert (await store.get("k")).entry is None


async def test_a_call_that_is_cancelled_leaves_the_store_usable(shared: Any) -> None:
    async with shared_store(shared) as store:
        for n in range(30):
            call = asyncio.ensure_future(store.transact(put("k", b"%d" % n)))
            for _ in range(n % 6):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await store.transact(put("k", b"end"))
        assert await healed(store) == b"end"
