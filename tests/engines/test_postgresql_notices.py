"""What the server's bell says of each commit is enough for most watches, and a gap in it is noticed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll
from atoll.engines.parts.notices import Line, Notice, Notices, concerns
from atoll.engines.postgresql import bell, history
from atoll.engines.postgresql.bell import notice
from atoll.ports.store import delete, put


def test_a_notice_says_what_was_put_and_what_is_gone() -> None:
    told = notice(f"7 9 8+{'a/ü'.encode().hex()} 9-{b'b'.hex()}")
    assert told == Notice(7, 9, (Line(8, True, "a/ü"), Line(9, False, "b")))
    assert notice("7 9 *") == Notice(7, 9, None) and notice("9").lines is None and notice("7 8 ").lines == ()


def test_a_watch_is_told_removals_and_sent_to_look_at_the_rest() -> None:
    notices = Notices()
    for payload in ("0 1 1+61", "1 2 2-61", "2 3 3-62", "3 4 4+6162"):
        notices.add(notice(payload))
    heard = notices.since(1, "a")
    assert heard == (3, ((2, (Line(2, False, "a"),)),), True)
    assert notices.since(1, "zz") == (4, (), False)
    assert notices.since(0, "b") == (4, ((3, (Line(3, False, "b"),)),), False)
    assert notices.since(0, None).more


def test_a_missing_notice_sends_every_watch_to_look() -> None:
    notices = Notices()
    notices.add(notice("0 1 "))
    skipped = notice("2 3 3-7a")
    assert concerns(skipped, 1, "a")
    notices.add(skipped)
    assert notices.since(1, "a") == (1, (), True)


async def _next(news: Any) -> Any:
    async with asyncio.timeout(10):
        return await anext(news)


async def _settled(store: Any) -> Any:
    """Its bell, when the line is open."""
    the_bell = (await store.desk()).bell
    async with asyncio.timeout(10):
        while the_bell.heard_s is None:
            await asyncio.sleep(0.01)
    return the_bell


async def test_commits_elsewhere_cost_a_watch_no_look_and_a_removal_neither(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    asked = history.Pages._asked

    async def counted(self: Any, prefix: str, after: int | None, *, all: bool) -> Any:
        nonlocal looks
        looks += 1
        return await asked(self, prefix, after, all=all)

    monkeypatch.setattr(history.Pages, "_asked", counted)
    url = shared("postgresql", fsync=False).url
    async with atoll.store(url) as mine, atoll.store(url) as other:
        await other.transact(put("notices/a", b"1"))
        news = mine.observe("notices/a")
        assert (await _next(news)).reset
        waiting = asyncio.ensure_future(_next(news))
        await _settled(mine)
        await asyncio.sleep(0)
        before = looks
        for number in range(50):
            await other.transact(put(f"notices/z{number % 3}", b"x"))
        await other.transact(delete("notices/a"))
        gone = await waiting
        assert gone.removed == ("notices/a",) and not gone.changed and not gone.reset
        assert looks - before <= 4  # when the line opens, and once a second where it was still silent
        await news.aclose()


async def test_a_bell_that_skips_commits_is_found_out(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: every other notice is lost on the way. Nothing may be missed for it."""
    heard = bell.Bell._tell

    def deaf(self: Any, told: Notice) -> None:
        if told.lines is None or told.newest % 2:
            heard(self, told)

    monkeypatch.setattr(bell.Bell, "_tell", deaf)
    url = shared("postgresql", fsync=False).url
    async with atoll.store(url) as mine, atoll.store(url) as other:
        seen: list[str] = []

        async def watch() -> None:
            async for item in mine.observe("deaf/"):
                seen.extend(entry.key for entry in item.changed)

        async with atoll.background(watch()):
            await _settled(mine)
            for number in range(20):
                answer = await other.transact(put(f"deaf/{number}", b"x"), delete(f"deaf/{number - 1}"))
                if answer.revision % 2:
                    async with asyncio.timeout(10):
                        while f"deaf/{number}" not in seen:
                            await asyncio.sleep(0.001)
            await other.transact(put("deaf/last", b""))
            await other.transact(put("deaf/last", b""))
            async with asyncio.timeout(10):
                while "deaf/19" not in seen:
                    await asyncio.sleep(0.001)
        assert seen[:20] == [f"deaf/{number}" for number in range(20)]


async def test_more_keys_than_a_notice_can_name_are_heard_all_the_same(shared: Any) -> None:
    async with atoll.store(shared("postgresql", fsync=False).url) as store:
        await store.transact(*[put(f"many/{number:03}{'x' * 200}", b"") for number in range(100)])
        news = store.observe("many/")
        assert len((await _next(news)).changed) == 100
        waiting = asyncio.ensure_future(_next(news))
        await _settled(store)
        await store.transact(*[delete(f"many/{number:03}{'x' * 200}") for number in range(100)])
        assert len((await waiting).removed) == 100
        await news.aclose()
