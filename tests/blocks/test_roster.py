"""3.11: who holds and who waits, of every recipe, since when and with the cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import atoll
from atoll import Lock
from atoll.blocks.read_write_lock import ReadWriteLock
from atoll.blocks.roster import Person, roster
from atoll.blocks.semaphore import Semaphore
from atoll.ports.store import Store


@asynccontextmanager
async def waiting(*entered: Any) -> AsyncIterator[None]:
    """Others who try to enter, in this order, each in a task of its own."""

    async def enter(one: Any) -> None:
        async with one:
            await asyncio.sleep(60)

    tasks = []
    try:
        for one in entered:
            tasks.append(asyncio.ensure_future(enter(one)))
            await asyncio.sleep(0.02)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await question():
            await asyncio.sleep(0.01)


async def lengths(store: Store, inside: int, outside: int) -> None:
    async def so() -> bool:
        (one,) = await roster(store)
        return (len(one.holders), len(one.waiting)) == (inside, outside)

    await until(so)


async def test_a_lock_its_holder_and_its_line() -> None:
    async with atoll.store("memory://") as store, Lock(store, "order/81", owner="api-2") as held:
        async with waiting(Lock(store, "order/81", owner="api-0"), Lock(store, "order/81", owner="api-1")):
            await lengths(store, 1, 2)
            (one,) = await roster(store)
    (holder,) = one.holders
    assert (one.kind, one.name, holder.owner, holder.token) == ("lock", "order/81", "api-2", held.token)
    assert holder.ttl_s == 15 and holder.lease_left_s and 10 < holder.lease_left_s <= 15
    assert [person.owner for person in one.waiting] == ["api-0", "api-1"]
    assert holder.cause == "" and holder.since is not None and one.waiting[0].since is not None


async def test_a_semaphore_shows_who_is_in_and_who_waits() -> None:
    async with atoll.store("memory://") as store, AsyncExitStack() as inside:
        for owner in ("a", "b"):
            await inside.enter_async_context(Semaphore(store, "sms", permits=2, owner=owner))
        async with waiting(Semaphore(store, "sms", permits=2, owner="c")):
            await lengths(store, 2, 1)
            (one,) = await roster(store)
    assert (one.kind, one.permits) == ("semaphore", 2)
    assert [p.owner for p in one.holders] == ["a", "b"] and [p.owner for p in one.waiting] == ["c"]


async def test_a_read_write_lock_shows_its_readers_and_the_writer_who_waits() -> None:
    async with atoll.store("memory://") as store:
        locks = [ReadWriteLock(store, "page", owner=owner) for owner in ("a", "b", "w")]
        async with waiting(locks[0].read(), locks[1].read(), locks[2].write()):
            await lengths(store, 2, 1)
            (one,) = await roster(store)
    assert [(p.owner, p.wants) for p in one.holders] == [("a", "read"), ("b", "read")]
    assert [(p.owner, p.wants) for p in one.waiting] == [("w", "write")]


def test_a_holder_who_did_not_renew_is_told_with_the_time_left() -> None:
    person = Person(owner="api-2", since=1.0, lease_left_s=4.0, ttl_s=15.0)
    assert "not renewed for 11.0 s" in person.cause and "in 4.0 s" in person.cause
    assert Person(owner="api-2", since=1.0, lease_left_s=11.0, ttl_s=15.0).cause == ""
    assert Person(owner="api-2", since=1.0, lease_left_s=None, ttl_s=15.0).cause == ""


async def test_a_frozen_store_is_read_all_the_same() -> None:
    async with atoll.store("memory://") as store, Lock(store, "x", owner="api-2"):
        assert store.moving
        await store.moving.freeze("closed")
        (one,) = await roster(store)
        assert one.holders[0].owner == "api-2"
        await store.moving.freeze(None)
