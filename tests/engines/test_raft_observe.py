"""4.4: whoever watches a raft store is told by any member, goes on at another, and misses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll.urls
from atoll import clock
from atoll.engines.raft.link import Link
from atoll.errors import EpochChanged, NotApplied, OutcomeUnknown, WatchLost
from atoll.ports.store import Bookmark, put
from engines.raft_ways import behind_doormen, until
from servers import server


def place() -> str:
    return f"watch-{clock.unique_id()[:8]}/"


async def test_news_are_pushed_and_small_ones_need_no_look(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Link.put

    def counted(self: Link, verb: Any, *rest: Any) -> Any:
        asked.append(type(verb).__name__)
        return ask(self, verb, *rest)

    at = place()
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        items = store.observe(at)
        assert (await anext(items)).reset
        waiting = asyncio.create_task(anext(items))

        async def listening() -> bool:
            return (await store.attached()).bell.hears  # type: ignore[attr-defined]

        await until(listening, "a member tells the news")
        for number in range(5):
            await asyncio.sleep(0)
            if number == 2:
                asked.clear()
                monkeypatch.setattr(Link, "put", counted)
            await store.transact(put(f"{at}k", b"%d" % number))
            told = await waiting
            assert [entry.value for entry in told.changed] == [b"%d" % number]
            waiting = asyncio.create_task(anext(items))
        await store.transact(put(f"{at[:-1]}-elsewhere", b""))
        waiting.cancel()
        assert asked.count("Look") <= 1, f"every one of the news was looked for: {asked}"


async def test_the_member_that_tells_is_killed_and_every_transaction_is_told_all_the_same() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        assert store.history
        await store.transact(put("k", b"first"))
        begin = await store.history.now()
        told: list[bytes] = []

        async def follow() -> None:
            async for change in store.history.changes("k", begin):  # type: ignore[union-attr]
                told.extend(entry.value for entry in change.changed)
                if told[-1:] == [b"end"]:
                    return

        following = asyncio.create_task(follow())
        written = []
        for number in range(60):
            if number == 20:
                at = await store.attached()  # type: ignore[attr-defined]

                async def listening(at: Any = at) -> bool:
                    return bool(at.bell.hears)

                await until(listening, "a member tells the news")
                telling = at.bell._link.address
                member = cluster.addresses[::2].index(telling)
                cluster.members[member].kill()
            await store.transact(put("k", b"%d" % number))
            written.append(b"%d" % number)
        await store.transact(put("k", b"end"))
        async with asyncio.timeout(20):
            await following
        assert told == [*written, b"end"]


async def test_a_member_that_is_cut_off_is_left_by_those_who_watch() -> None:
    """It keeps its connections and hears of nothing: whoever believed it would be blind."""
    async with behind_doormen() as (cluster, doormen), atoll.urls.store(cluster.url) as store:
        items = store.observe("k")
        assert (await anext(items)).reset
        waiting = asyncio.create_task(anext(items))
        at = await store.attached()  # type: ignore[attr-defined]

        async def listening() -> bool:
            return bool(at.bell.hears)

        await until(listening, "a member tells the news")
        telling = cluster.addresses[1::2].index(at.bell._link.address)
        doormen.cut(cluster, telling)
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.transact(put("k", b"1"))
                    break
                except (NotApplied, OutcomeUnknown):
                    continue
            told = await waiting
        assert [entry.value for entry in told.changed] == [b"1"]
        doormen.heal()


async def test_who_hears_nothing_for_long_is_told_that_the_watch_is_lost() -> None:
    async with server("raft") as cluster:
        store = atoll.urls.store(f"{cluster.url}?liveness_s=1&ceiling_s=1&attempt_s=0.3")
        items = store.observe("k")
        assert (await anext(items)).reset
        cluster.members[0].pause()
        began = clock.loop_now()
        with pytest.raises(WatchLost):
            async with asyncio.timeout(15):
                await anext(items)
        assert clock.loop_now() - began < 8
        cluster.members[0].resume()
        await store.close()


async def test_a_bookmark_of_another_epoch_or_of_the_future_is_refused(shared: Any) -> None:
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        assert store.history
        now = await store.history.now()
        for after in (Bookmark(now.epoch + 1, now.revision), Bookmark(now.epoch, now.revision + 1000)):
            with pytest.raises(EpochChanged):
                async with asyncio.timeout(10):
                    await anext(aiter(store.history.changes("", after)))


async def test_a_thousand_watchers_are_told_by_one_line(shared: Any) -> None:
    at = place()
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        watches = [store.observe(f"{at}{n}") for n in range(1000)]
        await asyncio.gather(*(anext(one) for one in watches))
        waiting = [asyncio.create_task(anext(one)) for one in watches]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await asyncio.gather(*(store.transact(put(f"{at}{n}", b"%d" % n)) for n in range(1000)))
            told = await asyncio.gather(*waiting)
        values = [one.changed[-1].value for one in told]
        assert all(value in (b"%d" % n, b"%d" % (n // 1)) for n, value in enumerate(values))
