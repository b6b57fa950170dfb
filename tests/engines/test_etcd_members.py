"""3.2: an etcd member is killed, stopped or cut off under load, and nothing acknowledged is lost.

The crowd's histories are judged by the revisions that etcd itself gave out: of the keys, and of a lock whose
tokens must rise. A client that is broken on purpose must be caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import atoll.urls
from atoll import clock
from atoll.errors import OutcomeUnknown
from atoll.verify import revisions
from atoll.verify.judgement import Answer
from atoll.verify.servers.cluster import Cluster
from engines.etcd_crowd import Porters, run
from servers import server


async def another_leader(cluster: Cluster, than: int) -> None:
    """Wait until somebody else leads."""
    while await cluster.leader() == than:
        await asyncio.sleep(0.05)


async def test_the_leader_is_killed_and_nothing_acknowledged_is_lost() -> None:
    async with server("etcd", nodes=3) as cluster:

        async def fault() -> float:
            await asyncio.sleep(0.7)
            first = await cluster.leader()
            cluster.members[first].kill()
            await another_leader(cluster, first)
            moment = clock.lease_now()
            await asyncio.sleep(1)
            await cluster.members[first].restart()
            return moment

        crowd, moment, claims = await run(cluster.url, fault)
        assert crowd.after(moment) > 10 and crowd.locked_after(moment) > 0, "nobody found the new leader"
        crowd.holds(claims)


async def test_the_leader_is_stopped_and_wakes_up_into_another_term() -> None:
    async with server("etcd", nodes=3) as cluster:

        async def fault() -> float:
            await asyncio.sleep(0.7)
            first = await cluster.leader()
            cluster.members[first].pause()
            await another_leader(cluster, first)
            moment = clock.lease_now()
            await asyncio.sleep(1.5)
            cluster.members[first].resume()
            return moment

        crowd, moment, claims = await run(cluster.url, fault)
        assert crowd.after(moment) > 10 and crowd.locked_after(moment) > 0, "nobody found the new leader"
        assert crowd.longest(crowd.keys) < 3, "a call outlived its ceiling of 1.5 s"
        crowd.holds(claims)


async def test_the_leader_is_cut_off_from_the_others_and_clients_leave_it() -> None:
    porters = Porters()
    try:
        async with server("etcd", nodes=3, between=porters.between) as cluster:

            async def fault() -> float:
                await asyncio.sleep(0.7)
                first = await cluster.leader()
                porters.cut(cluster, first)
                await another_leader(cluster, first)
                moment = clock.lease_now()
                await asyncio.sleep(1.5)
                porters.heal()
                return moment

            crowd, moment, claims = await run(cluster.url, fault)
            assert sum(proxy.counts.dropped_to_server for proxy in porters.proxies) > 0, "nothing was cut"
            assert crowd.after(moment) > 10 and crowd.locked_after(moment) > 0, "nobody left the one cut off"
            assert crowd.longest(crowd.keys) < 3, "a call outlived its ceiling of 1.5 s"
            crowd.holds(claims)
    finally:
        await porters.close()


class AsksAgain:
    """A broken client: it sends a write again when it got no answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.again = 0

    async def transact(self, *then: Any, **asked: Any) -> Any:
        for _ in range(20):
            try:
                return await self._inner.transact(*then, **asked)
            except OutcomeUnknown:
                self.again += 1
                await asyncio.sleep(0.1)
        raise OutcomeUnknown("twenty times")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_client_that_sends_a_write_twice_is_caught() -> None:
    from atoll.ports.store import put
    from atoll.verify.history import History
    from atoll.verify.proxy import Mood, Proxy
    from atoll.verify.recorder import RecordingStore

    async with server("etcd") as cluster:
        host, _, port = cluster.addresses[0].partition(":")
        async with Proxy(host, int(port)) as proxy:
            book = History()
            inner = atoll.urls.store(f"etcd://{proxy.address}?ceiling_s=1")
            broken = AsksAgain(inner)
            store = RecordingStore(broken, book, "w")
            await store.transact(put("k", b"0"))
            watching = asyncio.create_task(_values(RecordingStore(inner, book, "o"), "k", b"end"))
            await asyncio.sleep(0)
            proxy.be(Mood.SWALLOW)
            asking = asyncio.create_task(store.transact(put("k", b"1")))
            while proxy.counts.answers_swallowed == 0 or broken.again == 0:
                await asyncio.sleep(0.01)
            proxy.be(Mood.FAITHFUL)
            await asking
            await store.transact(put("k", b"end"))
            told = await watching
            await store.close()
        judgement = revisions.judge(book)
        assert judgement.answer is not Answer.YES, told
        assert judgement.rules() & {"applied twice", "wrong revision"}, judgement


async def _values(store: Any, key: str, last: bytes) -> list[bytes]:
    """What an observer is told of a key, until its last value."""
    found: list[bytes] = []
    items: AsyncIterator[Any] = store.observe(key)
    async for item in items:
        found += [entry.value for entry in item.changed]
        if last in found:
            return found
    return found
