"""Who watches a prefix of a file is not woken for others' keys, and misses nothing for it."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll.engines.parts.notices import Notice
from atoll.engines.sqlite import history, watchman
from atoll.ports.store import delete, put


async def _next(news: Any) -> Any:
    async with asyncio.timeout(20):
        return await anext(news)


async def _asleep(store: Any, sleepers: int) -> None:
    """Until that many watch in their sleep."""
    async with asyncio.timeout(10):
        while len(watchman.of(store._file)._sleepers) < sleepers:
            await asyncio.sleep(0.001)


async def test_sixteen_watches_of_a_file_cost_one_look_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = reads = 0
    look, read = history.look, watchman.read

    def counted_look(*words: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(*words, **more)

    def counted_read(*words: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*words, **more)

    monkeypatch.setattr(history, "look", counted_look)
    monkeypatch.setattr(watchman, "read", counted_read)
    async with atoll.store(f"sqlite:///{tmp_path / 's.db'}") as store:
        watches = [store.observe(f"w/{number:02}") for number in range(16)]
        for news in watches:
            assert (await _next(news)).reset
        waiting = [asyncio.ensure_future(_next(news)) for news in watches]
        await _asleep(store, 16)
        before = looks
        for number in range(50):
            await store.transact(put(f"other/{number}", b""))
        await store.transact(*[put(f"w/{number:02}", b"hello") for number in range(16)])
        for number, one in enumerate(waiting):
            [entry] = (await one).changed
            assert (entry.key, entry.value) == (f"w/{number:02}", b"hello")
        assert looks == before and reads <= 52
        for news in watches:
            await news.aclose()


async def test_what_is_long_or_leased_is_looked_at_and_not_missed(tmp_path: Path) -> None:
    async with atoll.store(f"sqlite:///{tmp_path / 's.db'}") as store:
        lease = (await store.leasing.grant(0.5)).lease
        news = store.observe("w/")
        await _next(news)
        waiting = asyncio.ensure_future(_next(news))
        await _asleep(store, 1)
        await store.transact(put("w/long", b"x" * 5000), put("w/short", b"x"))
        assert [len(entry.value) for entry in (await waiting).changed] == [5000, 1]
        waiting = asyncio.ensure_future(_next(news))
        await _asleep(store, 1)
        await store.transact(put("w/leased", b"", lease=lease))
        assert (await waiting).changed[0].lease == lease
        assert (await _next(news)).removed == ("w/leased",)  # its end is heard though nobody calls
        await news.aclose()


def _write_elsewhere(path: str, times: int) -> None:
    async def write() -> None:
        async with atoll.store(f"sqlite:///{path}") as store:
            for number in range(times):
                await store.transact(put(f"w/{number}", b"x"), delete(f"w/{number - 1}"), put("other", b""))

    asyncio.run(write())


async def test_what_another_process_commits_is_heard_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with atoll.store(f"sqlite:///{path}") as store:
        news = store.observe("w/")
        await _next(news)
        writer = multiprocessing.get_context("spawn").Process(target=_write_elsewhere, args=(str(path), 30))
        writer.start()
        for number in range(30):
            item = await _next(news)
            assert [entry.key for entry in item.changed] == [f"w/{number}"] and not item.reset
            assert item.removed == (() if number == 0 else (f"w/{number - 1}",))
        await news.aclose()
        await asyncio.to_thread(writer.join, 20)


async def test_a_watchman_that_overlooks_commits_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken on purpose: every other thing he reads he keeps to himself. Nothing may be missed for it."""
    tell = watchman.Watchman._tell
    count = 0

    def careless(self: Any, told: Notice) -> None:
        nonlocal count
        count += 1
        if count % 2:
            tell(self, told)
        else:
            self._notices.newest = told.newest  # he believes that he has told it

    monkeypatch.setattr(watchman.Watchman, "_tell", careless)
    async with atoll.store(f"sqlite:///{tmp_path / 's.db'}") as store:
        news = store.observe("w/")
        await _next(news)
        seen: list[str] = []
        waiting = asyncio.ensure_future(_next(news))
        await _asleep(store, 1)
        for number in range(21):
            await store.transact(put(f"w/{number}", b"x"))
        while len(seen) < 21:
            seen += [entry.key for entry in (await waiting).changed]
            if len(seen) < 20:
                waiting = asyncio.ensure_future(_next(news))
            elif len(seen) < 21:
                await store.transact(put("w/last", b""))
                waiting = asyncio.ensure_future(_next(news))
        assert seen[:21] == [f"w/{number}" for number in range(21)]
        await news.aclose()


async def test_a_closed_handle_ends_its_watches_while_others_sleep_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    async with atoll.store(url) as stays:
        leaves = atoll.store(url)
        await leaves.open()
        watches = [stays.observe("w/"), leaves.observe("w/")]
        for news in watches:
            await _next(news)
        waiting = [asyncio.ensure_future(_next(news)) for news in watches]
        await _asleep(stays, 2)
        await leaves.close()
        with pytest.raises(atoll.errors.WatchLost):
            await waiting[1]
        await stays.transact(put("w/a", b""))
        assert (await waiting[0]).changed[0].key == "w/a"
        for news in watches:
            await news.aclose()
