"""4.4: a member of a raft store is killed, stopped or cut off under load; nothing acknowledged is lost.

The crowd's histories are judged by the revisions that the store itself gave out: of the keys, and of a lock
whose tokens must rise. A client that asks again under a new number must be caught.
"""

from __future__ import annotations

import asyncio
from typing import Any

import atoll
import atoll.urls
from atoll import clock
from atoll.engines.raft.link import Link
from atoll.ports.store import put
from atoll.verify import revisions
from atoll.verify.history import History
from atoll.verify.judgement import Answer
from atoll.verify.recorder import RecordingStore
from engines.etcd_crowd import run
from engines.raft_ways import another_leader, behind_doormen, lost, until
from servers import server


async def test_the_leader_is_killed_and_nothing_acknowledged_is_lost() -> None:
    async with server("raft", nodes=3) as cluster:

        async def fault() -> float:
            await asyncio.sleep(0.7)
            first = await cluster.leader()
            cluster.members[first].kill()
            await another_leader(cluster, first)
            moment = clock.lease_now()
            await asyncio.sleep(0.5)
            await cluster.members[first].restart()
            return moment

        crowd, moment, claims = await run(cluster.url, fault)
        assert crowd.after(moment) > 10 and crowd.locked_after(moment) > 0, "nobody found the new leader"
        crowd.holds(claims)


async def test_the_leader_is_stopped_and_wakes_up_into_another_term() -> None:
    async with server("raft", nodes=3) as cluster:

        async def fault() -> float:
            await asyncio.sleep(0.7)
            first = await cluster.leader()
            cluster.members[first].pause()
            await another_leader(cluster, first)
            moment = clock.lease_now()
            await asyncio.sleep(1.0)
            cluster.members[first].resume()
            return moment

        crowd, moment, claims = await run(cluster.url, fault)
        assert crowd.after(moment) > 10 and crowd.locked_after(moment) > 0, "nobody found the new leader"
        assert crowd.longest(crowd.keys) < 3, "a call outlived its ceiling of 1.5 s"
        crowd.holds(claims)


async def test_the_leader_is_cut_off_from_the_others_and_its_clients_are_told_nothing_old() -> None:
    async with behind_doormen() as (cluster, doormen):

        async def fault() -> float:
            await asyncio.sleep(0.7)
            first = await cluster.leader()
            doormen.cut(cluster, first)
            await another_leader(cluster, first)
            moment = clock.lease_now()
            await asyncio.sleep(1.0)
            doormen.heal()
            return moment

        crowd, moment, claims = await run(cluster.url, fault)
        assert sum(proxy.counts.dropped_to_server for proxy in doormen.proxies) > 0, "nothing was cut"
        assert crowd.after(moment) > 10 and crowd.locked_after(moment) > 0, "nobody left the one cut off"
        assert crowd.longest(crowd.keys) < 3, "a call outlived its ceiling of 1.5 s"
        crowd.holds(claims)


async def test_a_client_that_asks_again_under_a_new_number_is_caught(monkeypatch: Any) -> None:
    """The negative control of the numbers: without them an answer that was lost makes two writes."""
    book = History()
    async with (
        behind_doormen() as (cluster, doormen),
        atoll.urls.store(cluster.url) as inner,
        atoll.urls.store(f"raft://{','.join(cluster.addresses[::2])}") as other,
    ):
        store = RecordingStore(inner, book, "w")
        await store.transact(put("k", b"0"))
        begun = asyncio.Event()
        watching = asyncio.create_task(_values(RecordingStore(other, book, "o"), b"end", begun))
        await begun.wait()
        ask = Link.put

        def careless(self: Any, verb: Any, *rest: Any) -> Any:
            if type(verb).__name__ == "Write":
                verb = type(verb)(clock.chance().getrandbits(60), 1, verb.data)
            return ask(self, verb, *rest)

        monkeypatch.setattr(Link, "put", careless)
        asking = await lost(Written(store, inner), doormen, other, "k", b"1")
        await asking
        await store.transact(put("k", b"end"))
        told = await watching
    judgement = revisions.judge(book)
    assert judgement.answer is not Answer.YES, told
    assert judgement.rules() & {"applied twice", "wrong revision"}, judgement


class Written:
    """The recorded handle, with the lines of the real one."""

    def __init__(self, recorded: Any, inner: Any) -> None:
        self.transact, self.get, self.attached = recorded.transact, inner.get, inner.attached


async def _values(store: Any, last: bytes, begun: asyncio.Event) -> list[bytes]:
    found: list[bytes] = []
    async for item in store.observe("k"):
        begun.set()
        found += [entry.value for entry in item.changed]
        if last in found:
            break
    return found


async def test_without_a_majority_nothing_is_answered_and_nothing_hangs() -> None:
    async with server("raft", nodes=3) as cluster:
        async with atoll.urls.store(f"{cluster.url}?ceiling_s=0.6&attempt_s=0.3") as store:
            await store.transact(put("k", b"1"))
            first = await cluster.leader()
            for member in (first, (first + 1) % 3):
                cluster.members[member].kill()
            began = clock.loop_now()
            for call in (store.transact(put("k", b"2")), store.get("k"), store.transact(put("k", b"3"))):
                try:
                    await call
                except (atoll.NotSent, atoll.OutcomeUnknown):
                    continue
                raise AssertionError("one of three answered")
            assert clock.loop_now() - began < 3 * 0.6 + 2
            for member in (first, (first + 1) % 3):
                cluster.members[member].launch()

            async def back() -> Any:
                try:
                    return (await store.get("k")).entry
                except (atoll.NotApplied, atoll.OutcomeUnknown):
                    return None

            entry = await until(back, "the members came back")
            assert entry.value in (b"1", b"2", b"3")
