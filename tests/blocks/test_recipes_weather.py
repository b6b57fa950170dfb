"""Every recipe alike: cancelled at every await, each call failed in turn, watches cut, processes forked."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recipe_uses import RECIPES, crowded, left_behind
from recipe_weather import WEAK, keys

import atoll
from atoll import Lock
from atoll.blocks import ReadWriteLock, Semaphore
from atoll.blocks.lock import holders
from atoll.blocks.ownership import Owner
from atoll.blocks.watching import states
from atoll.ports.store import Durable, Reach, StoreClaims
from atoll.sync import DoubleBarrier as SyncDoubleBarrier
from atoll.sync import Group as SyncGroup
from atoll.sync import ReadWriteLock as SyncReadWriteLock
from atoll.sync import Semaphore as SyncSemaphore
from atoll.sync import store as sync_store
from atoll.testing import Duplicated, ReplyLost, RequestLost, World, cancel_at_every_await, simulated, through

names = count()


@pytest.mark.parametrize("recipe", RECIPES)
def test_cancelled_at_any_await_it_leaves_nothing_behind_and_stops_nobody(recipe: str) -> None:
    @simulated(seeds=1)
    async def run(world: World) -> None:
        store = atoll.store("memory://")

        async def once() -> None:
            await RECIPES[recipe](store, store)

        async def check() -> None:
            async with asyncio.timeout(5):  # at once, not after a lease
                await RECIPES[recipe](store, store)
                while left_behind(await keys(store)):
                    await asyncio.sleep(0.01)

        assert await cancel_at_every_await(once, check) >= 2

    run()


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_single_call_may_fail(recipe: str, fault: type) -> None:
    @simulated(seeds=1)
    async def run(world: World) -> None:
        for verb in ("transact", "range", "get", "grant", "epoch"):
            for nth in range(1, 8):
                store = atoll.store(f"memory://?{WEAK.replace('expiry_late_s=2&', '')}")
                faulty = through(store, fault(verb, nth=nth))
                async with asyncio.timeout(60):
                    await RECIPES[recipe](faulty, store)
                    while left_behind(await keys(store)):
                        await asyncio.sleep(0.1)

    run()


@pytest.mark.parametrize("recipe", RECIPES)
def test_on_a_store_weak_in_every_way_it_goes_through(recipe: str) -> None:
    """News late and merged, leases shorter than asked and longer than granted, calls lost both ways."""

    @simulated(seeds=10)
    async def run(world: World) -> None:
        name = f"memory://world-{next(names)}?{WEAK}"
        sound = atoll.store(name)
        weak = atoll.store(f"{name}&reply_loss=0.05&request_loss=0.05")
        done = 0
        async with asyncio.timeout(600):
            while done < 3:
                try:
                    await RECIPES[recipe](weak, sound)
                    done += 1
                except (atoll.OutcomeUnknown, atoll.LockLost, atoll.NotReady):
                    pass
            while left_behind(await keys(sound)):
                await asyncio.sleep(0.5)

    run()


@pytest.mark.parametrize(
    "recipe", ["lock", "semaphore", "reading", "writing", "barrier", "double_barrier", "latch"]
)
def test_a_watch_that_ends_is_begun_anew(recipe: str) -> None:
    """Closing the store ends every observation with WatchLost; the next verb opens it again."""

    @simulated(seeds=3)
    async def run(world: World) -> None:
        name = f"memory://world-{next(names)}"
        store, mine = atoll.store(name), atoll.store(name)

        async def trouble() -> None:
            while True:
                await asyncio.sleep(0.02)
                await mine.close()

        async with asyncio.timeout(30):
            await crowded(lambda: RECIPES[recipe](mine, store), trouble())

    run()


async def test_a_watcher_is_told_the_whole_state_again_after_a_break() -> None:
    store = atoll.store("memory://?observe=coalesced")
    told: list[list[str]] = []

    async def watch() -> None:
        async for state in states(store, "a/"):
            told.append(sorted(state))

    watching = asyncio.create_task(watch())
    await store.transact(atoll.put("a/1", b""), atoll.put("b/1", b""))
    await asyncio.sleep(0.02)
    await store.close()
    await store.transact(atoll.put("a/2", b""), atoll.delete("a/1"))
    async with asyncio.timeout(10):
        while told[-1:] != [["a/2"]]:
            await asyncio.sleep(0.01)
    watching.cancel()


EXCLUSIVE = {
    "lock": lambda store, **options: Lock(store, "x", **options),
    "semaphore": lambda store, **options: Semaphore(store, "x", permits=1, **options),
    "read": lambda store, **options: ReadWriteLock(store, "x", **options).read(),
    "write": lambda store, **options: ReadWriteLock(store, "x", **options).write(),
}


async def enter(block: Any) -> None:
    async with block:
        pass


@pytest.mark.parametrize("kind", EXCLUSIVE)
async def test_a_store_that_may_have_gone_back_in_time_is_refused_with_its_own_sentence(kind: str) -> None:
    store = atoll.store("memory://")

    async def uncertain() -> int:
        raise atoll.EpochUncertain("another timeline. Run: atoll store bump URL")

    store.epoch = uncertain  # type: ignore[method-assign]
    with pytest.raises(atoll.EpochUncertain, match="atoll store bump URL"):
        await enter(EXCLUSIVE[kind](store))
    assert await keys(store) == []


WEAKNESSES = {
    "forgets a lock when its server restarts": {"durable": Durable.NONE, "reach": Reach.NETWORK},
    "may forget a lock when its server fails over": {"forgets_at_failover": True},
    "may answer with an old state": {"linearizable": False},
}


@pytest.mark.parametrize("says", WEAKNESSES)
@pytest.mark.parametrize("kind", EXCLUSIVE)
async def test_a_store_that_cannot_keep_exclusion_is_refused_with_its_remedy(kind: str, says: str) -> None:
    store = atoll.store("memory://")
    claims = replace(await store.open(), remedy="Set appendfsync always.", **WEAKNESSES[says])

    async def weak() -> StoreClaims:
        return claims

    store.open = weak  # type: ignore[method-assign]
    with pytest.raises(atoll.ConfigurationError, match=f"{says}.*Set appendfsync always, or say best_effort"):
        await enter(EXCLUSIVE[kind](store))
    await enter(EXCLUSIVE[kind](store, best_effort=True))


async def test_ten_thousand_in_the_line_of_a_lock_are_seen() -> None:
    store = atoll.store("memory://")
    assert store.leasing is not None
    lease = (await store.leasing.grant(600)).lease
    for n in range(10_000):
        me = Owner(owner=f"o{n}", since=0.0, nonce=f"{n * 7919 % 10_000:032d}")
        await store.transact(atoll.put(f"lock/x/queue/{me.nonce}", msgspec.json.encode(me), lease=lease))
    await store.transact(atoll.put("lock/x/line", b"1"))
    (seen,) = await holders(store)
    assert (seen.waiting, seen.first_waiting) == (10_000, "o0")
    with pytest.raises(atoll.Taken, match="is being handed over to o0"):
        async with Lock(store, "x", wait_s=1):
            pass
    await store.leasing.revoke(lease)
    async with Lock(store, "x", wait_s=5):
        pass


def in_child(work: Callable[[], object]) -> str:
    """Run `work` in a forked child; what it said, or the name of its error."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def body() -> None:
        try:
            there.send(repr(work()))
        except BaseException as error:
            there.send(type(error).__name__)

    child = context.Process(target=body)
    child.start()
    child.join(30)
    assert child.exitcode == 0, "the child hung or died"
    return str(here.recv())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_may_not_use_or_give_back_what_its_parent_holds(tmp_path: Path) -> None:
    state = sync_store(f"sqlite:///{tmp_path}/state.db")
    gpu, prices = SyncSemaphore(state, "gpu", permits=1), SyncReadWriteLock(state, "prices")
    reads, member = prices.read(), SyncGroup(state, "workers").join("me")
    import_ = SyncDoubleBarrier(state, "import", parties=1)
    with gpu as permit, reads as held, member, import_:
        for used in (
            permit.check,
            lambda: permit.guard,
            lambda: state.transact(atoll.put("a", b""), guard=permit.guard),
            held.check,
            lambda: gpu.__exit__(None, None, None),
            lambda: reads.__exit__(None, None, None),
            lambda: member.__exit__(None, None, None),
            lambda: import_.__exit__(None, None, None),
        ):
            assert in_child(used) == "UsedAfterFork"
        permit.check()
        assert in_child(lambda: len(SyncGroup(state, "workers").members())) == "1"
        assert in_child(lambda: SyncSemaphore(state, "gpu", permits=1, wait_s=0).__enter__()) == "Taken"
        assert in_child(lambda: enter_and_leave(SyncSemaphore(state, "other", permits=1))) == "'fine'"
    assert gpu.holders() == [] and SyncGroup(state, "workers").members() == []


def enter_and_leave(block: SyncSemaphore) -> str:
    with block:
        return "fine"
