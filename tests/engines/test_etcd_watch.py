"""3.2: an etcd watch tells every transaction, whole and in order, or says that some are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import atoll.urls
from atoll.engines.etcd import watch
from atoll.errors import Compacted, EpochChanged, OutcomeUnknown, WatchLost
from atoll.ports.store import Bookmark, delete, put
from atoll.verify import revisions
from atoll.verify.history import History
from atoll.verify.judgement import Answer
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.recorder import RecordingStore
from engines.etcd_crowd import quick
from servers import server


def proxied(cluster: Any, member: int = 0) -> Proxy:
    host, _, port = cluster.addresses[2 * member].partition(":")
    return Proxy(host, int(port))


async def compact(cluster: Any, revision: int) -> None:
    await cluster.facts["ask"](0, "/v3/kv/compaction", revision=str(revision), physical=True)


async def until(items: AsyncIterator[Any], revision: int) -> list[Any]:
    """The items up to `revision`."""
    found = []
    async with asyncio.timeout(20):
        async for item in items:
            found.append(item)
            place = item.at.revision if hasattr(item, "at") else item.revision
            if place >= revision:
                return found
    raise AssertionError("it ended")


async def test_a_bookmark_behind_a_compaction_is_compacted_and_the_oldest_goes_on() -> None:
    async with server("etcd") as cluster, atoll.urls.store(cluster.url) as store:
        for number in range(10):
            last = await store.transact(put("k", b"%d" % number))
        await compact(cluster, last.revision - 3)
        assert store.history
        epoch = await store.epoch()
        with pytest.raises(Compacted) as caught:
            await anext(store.history.changes("k", Bookmark(epoch, last.revision - 6)))
        assert caught.value.oldest == last.revision - 2
        after = Bookmark(epoch, caught.value.oldest - 1)
        assert len(await until(store.history.changes("k", after), last.revision)) == 3


async def test_a_delete_at_the_compacted_revision_itself_is_not_passed_over() -> None:
    """etcd keeps nothing of a key that was deleted at the revision it is compacted to."""
    async with server("etcd") as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        before = await store.transact(put("other", b"1"))
        gone = await store.transact(delete("k"))
        await store.transact(put("k2", b"1"))
        await compact(cluster, gone.revision)
        assert store.history
        with pytest.raises(Compacted):
            await anext(store.history.changes("", Bookmark(await store.epoch(), before.revision)))


async def test_an_observer_behind_a_compaction_begins_anew_with_the_whole_state() -> None:
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        async with (
            atoll.urls.store(f"etcd://{proxy.address}") as store,
            atoll.urls.store(cluster.url) as other,
        ):
            await other.transact(put("a", b"1"))
            items = store.observe("")
            assert (await anext(items)).reset
            proxy.be(Mood.CUT)
            await other.transact(delete("a"))
            last = await other.transact(put("b", b"1"))
            await compact(cluster, last.revision)
            proxy.be(Mood.FAITHFUL)
            async with asyncio.timeout(10):
                again = await anext(items)
            assert again.reset and [entry.key for entry in again.changed] == ["b"]


async def caught_up(cluster: Any) -> list[int]:
    """How many entries each change shows, of transactions of three large values, read from the past."""
    async with atoll.urls.store(cluster.url) as store:
        assert store.history
        begin = await store.history.now()
        large = bytes(400_000)
        for _ in range(8):
            last = await store.transact(put("a", large), put("b", large), put("c", large))
        changes = await until(store.history.changes("", begin), last.revision)
        assert [c.at.revision for c in changes] == list(range(begin.revision + 1, last.revision + 1))
        return [len(change.changed) for change in changes]


async def test_transactions_stay_whole_where_an_answer_comes_in_fragments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fragments = 0
    heard = watch.Subscriber.heard

    def counted(self: watch.Subscriber, response: Any) -> None:
        nonlocal fragments
        fragments += response.fragment
        heard(self, response)

    monkeypatch.setattr(watch.Subscriber, "heard", counted)
    async with server("etcd") as cluster:
        assert await caught_up(cluster) == [3] * 8
    assert fragments > 0, "nothing came in fragments"


async def test_a_watch_that_takes_a_fragment_for_the_whole_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = watch.Subscriber.heard

    def hasty(self: watch.Subscriber, response: Any) -> None:
        response.fragment = False
        heard(self, response)

    monkeypatch.setattr(watch.Subscriber, "heard", hasty)
    async with server("etcd") as cluster:
        with pytest.raises((WatchLost, AssertionError)):
            assert await caught_up(cluster) == [3] * 8


async def interrupted() -> Any:
    """An observer whose line is cut while others write: the judgement of what it was told."""
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        book = History()
        near = RecordingStore(atoll.urls.store(f"etcd://{proxy.address}"), book, "observer")
        far = RecordingStore(atoll.urls.store(cluster.url), book, "writer")
        async with near, far:
            await far.transact(put("k/a", b"1"))
            told = asyncio.create_task(heard_last(near))
            while not any(call.f == "observation" for call in book.calls):
                await asyncio.sleep(0.01)
            await far.transact(put("k/b", b"2"))
            for round in range(3):
                proxy.be(Mood.CUT)
                for number in range(10):
                    await far.transact(put(f"k/{number}", b"%d-%d" % (round, number)))
                proxy.be(Mood.FAITHFUL)
                await asyncio.sleep(0.3)
            await far.transact(put("k/last", b"end"))
            async with asyncio.timeout(20):
                await told
            await far.range("k/")
        assert proxy.counts.cut > 0
        return revisions.judge(book)


async def heard_last(store: Any) -> None:
    async for item in store.observe("k/"):
        if any(entry.key == "k/last" for entry in item.changed):
            return


async def test_a_watch_cut_again_and_again_misses_nothing() -> None:
    judgement = await interrupted()
    assert judgement.answer is Answer.YES, [str(v) for v in judgement.violations[:3]] or judgement.note


async def test_a_watch_that_goes_on_from_now_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    create = watch._create

    def from_now(number: int, low: bytes, high: bytes, after: int) -> Any:
        request = create(number, low, high, after)
        request.create_request.start_revision = 0
        return request

    monkeypatch.setattr(watch, "_create", from_now)
    judgement = await interrupted()
    assert judgement.answer is Answer.NO, judgement


async def test_a_silent_line_ends_the_watch_within_its_liveness_and_the_next_one_works() -> None:
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        async with atoll.urls.store(f"etcd://{proxy.address}?liveness_s=1.5&ceiling_s=1") as store:
            items = store.observe("k")
            await anext(items)
            proxy.be(Mood.SILENT)
            async with asyncio.timeout(15):
                with pytest.raises(WatchLost):
                    while True:
                        await anext(items)
            proxy.be(Mood.FAITHFUL)
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert (await anext(store.observe("k"))).reset
                        break
                    except (WatchLost, OutcomeUnknown):
                        continue


async def test_an_idle_watch_is_kept_for_much_longer_than_its_liveness() -> None:
    async with server("etcd") as cluster, atoll.urls.store(f"{cluster.url}?liveness_s=0.6") as store:
        items = store.observe("k")
        await anext(items)
        waiting = asyncio.ensure_future(anext(items))
        done, _ = await asyncio.wait([waiting], timeout=2.0)
        assert not done
        last = await store.transact(put("k", b"1"))
        assert (await waiting).revision == last.revision


async def test_a_watch_leaves_a_stopped_member_for_another_one() -> None:
    async with server("etcd", nodes=3) as cluster:
        async with atoll.urls.store(quick(cluster.url) + "&liveness_s=3") as store:
            items = store.observe("k")
            assert (await anext(items)).reset
            at = await store.attached()  # type: ignore[attr-defined]
            asked = cluster.addresses[::2].index(at.client.current.address)
            cluster.members[asked].pause()
            other = atoll.urls.store(quick(cluster.url))
            last = None
            while last is None:
                try:
                    last = await other.transact(put("k", b"news"))
                except (OutcomeUnknown, atoll.NotSent):
                    continue
            await other.close()
            async with asyncio.timeout(15):
                while (await anext(items)).revision < last.revision:
                    pass
            cluster.members[asked].resume()


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WAITING_MAX", 20)
    async with server("etcd") as cluster, atoll.urls.store(cluster.url) as store:
        assert store.history
        begin = await store.history.now()
        slow, quick_one = store.history.changes("", begin), store.history.changes("", begin)
        first = await store.transact(put("k", b"first"))
        assert (await anext(slow)).at.revision == first.revision
        answers = await asyncio.gather(*(store.transact(put(f"k{n}", b"")) for n in range(300)))
        newest = max(answer.revision for answer in answers)
        assert len(await until(quick_one, newest)) == 301
        assert len(await until(slow, newest)) == 300


async def test_closing_ends_a_watch() -> None:
    async with server("etcd") as cluster:
        store = atoll.urls.store(cluster.url)
        items = store.observe("k")
        await anext(items)
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.05)
        await store.close()
        with pytest.raises(WatchLost):
            async with asyncio.timeout(5):
                await waiting


async def test_another_cluster_behind_the_address_is_shown_whole_and_no_change_is_told_from_it() -> None:
    async with server("etcd") as one, server("etcd") as two, proxied(one) as proxy:
        async with atoll.urls.store(two.url) as other:
            await other.transact(put("theirs", b"1"))
        async with atoll.urls.store(f"etcd://{proxy.address}?liveness_s=4") as store:
            await store.transact(put("ours", b"1"))
            assert store.history
            items, changes = store.observe(""), store.history.changes("", await store.history.now())
            assert [entry.key for entry in (await anext(items)).changed] == ["ours"]
            reading = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.1)
            host, _, port = two.addresses[0].partition(":")
            proxy.host, proxy.port = host, int(port)
            proxy.be(Mood.CUT)
            proxy.be(Mood.FAITHFUL)
            async with asyncio.timeout(15):
                item = await anext(items)
                assert item.reset and [entry.key for entry in item.changed] == ["theirs"]
                with pytest.raises(EpochChanged):
                    await reading
