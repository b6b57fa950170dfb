"""A lock is re-entered only where that was asked for; elsewhere the caller hears that it waits for itself."""

from __future__ import annotations

import asyncio
import threading

import pytest
from recipe_weather import keys

import atoll
from atoll import ConfigurationError, Lock, LockLost, Taken, WouldDeadlock, put
from atoll.sync import Lock as SyncLock
from atoll.sync import store as sync_store
from atoll.testing import World, cancel_at_every_await, simulated


async def test_the_same_task_goes_in_again_and_gives_it_up_once() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x", reentrant=True) as outer:
        async with Lock(store, "x", reentrant=True) as inner:
            assert inner.token == outer.token
            await store.transact(put("a", b""), guard=inner)
        outer.check()
        await store.transact(put("a", b""), guard=outer)
        with pytest.raises(Taken):
            await asyncio.create_task(take(store, reentrant=True))
    assert await keys(store, "lock/") == []


async def take(store: object, **options: bool) -> None:
    async with Lock(store, "x", wait_s=0, **options):  # type: ignore[arg-type]
        pass


async def test_one_lock_object_is_entered_again_too() -> None:
    store = atoll.store("memory://")
    lock = Lock(store, "x", reentrant=True)
    async with lock, lock, lock:
        assert await keys(store, "lock/") == ["lock/x/owner"]
    assert await keys(store, "lock/") == []


async def test_who_did_not_ask_for_it_is_told_at_once() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x", reentrant=True):
        with pytest.raises(WouldDeadlock, match=r"never end.*reentrant=True"):
            async with Lock(store, "x"):
                pass
        async with Lock(store, "y"):
            pass
    assert issubclass(WouldDeadlock, ConfigurationError)


async def test_it_asks_the_inner_one_only() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x"), Lock(store, "x", reentrant=True):
        pass
    assert await keys(store, "lock/") == []


async def test_another_task_is_another_caller() -> None:
    """What was started inside does not inherit the holding: it waits its turn."""
    store = atoll.store("memory://")
    async with Lock(store, "x", reentrant=True):
        child = asyncio.create_task(take(store, reentrant=True))
        with pytest.raises(Taken):
            await child


async def test_another_store_is_another_lock() -> None:
    one, other = atoll.store("memory://"), atoll.store("memory://")
    async with Lock(one, "x", reentrant=True) as a, Lock(other, "x", reentrant=True) as b:
        assert a is not b


@simulated(seeds=5)
async def test_a_lost_lock_is_raised_at_the_outermost_block_and_not_entered_again(world: World) -> None:
    async def hold() -> None:
        store = world.store()
        async with Lock(store, "x", ttl_s=10, reentrant=True):
            try:
                async with Lock(store, "x", reentrant=True):
                    await asyncio.sleep(3600)
            finally:
                with pytest.raises(LockLost):
                    async with Lock(store, "x", reentrant=True):
                        pass

    holding = world.process("a").run(hold())
    await asyncio.sleep(1)
    world.cut("a")
    with pytest.raises(LockLost):
        await holding


@simulated(seeds=5)
async def test_a_body_that_could_not_be_stopped_meets_lock_lost_at_the_inner_end(world: World) -> None:
    async def hold() -> None:
        store = world.store()
        async with Lock(store, "x", ttl_s=10, reentrant=True):
            async with Lock(store, "x", reentrant=True):
                await world.freeze(seconds=60)
            raise AssertionError("went on between the two")

    with pytest.raises(LockLost):
        await world.process("a").run(hold())


def test_cancelled_at_any_await_it_leaves_nothing_behind() -> None:
    @simulated(seeds=1)
    async def run(world: World) -> None:
        store = atoll.store("memory://")

        async def once() -> None:
            async with Lock(store, "x", reentrant=True):
                async with Lock(store, "x", reentrant=True):
                    await asyncio.sleep(0)
                await asyncio.sleep(0)

        async def check() -> None:
            async with Lock(store, "x", wait_s=0.5):
                pass

        assert await cancel_at_every_await(once, check) >= 5

    run()


def test_without_an_event_loop_the_same_thread_goes_in_again_and_another_does_not() -> None:
    state = sync_store("memory://")
    said: list[str] = []

    def other() -> None:
        try:
            with SyncLock(state, "x", wait_s=0, reentrant=True):
                said.append("got it")
        except Taken:
            said.append("taken")

    with SyncLock(state, "x", reentrant=True) as outer:
        with SyncLock(state, "x", reentrant=True) as inner:
            assert inner.token == outer.token
            with pytest.raises(WouldDeadlock):
                SyncLock(state, "x").__enter__()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert said == ["taken"]
    with SyncLock(state, "x", wait_s=0):
        pass
