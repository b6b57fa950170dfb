"""A7: every kind of body learns that its lock is lost: cancelled, by check(), or at the end of the block."""

from __future__ import annotations

import asyncio
import time

import pytest

import atoll
from atoll import Lock, LockLost, Refused, put
from atoll.ports import observer
from atoll.ports.store import Store
from atoll.testing import World, simulated

TTL_S = 0.25


async def dead_store() -> Store:
    """A store whose leases nobody can renew, as behind a cut cable; everything else works."""
    store = atoll.store("memory://")
    assert store.leasing is not None

    async def never(lease: str) -> float:
        await asyncio.sleep(3600)
        raise AssertionError

    store.leasing.keep_alive = never  # type: ignore[method-assign]
    return store


async def test_a_body_that_awaits_is_cancelled_at_the_deadline() -> None:
    store, reached = await dead_store(), []
    began = time.monotonic()
    with pytest.raises(LockLost, match="before a renewal was answered") as caught:
        async with Lock(store, "x", ttl_s=TTL_S):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                reached.append(time.monotonic() - began)
                raise
    assert reached and reached[0] >= TTL_S * 0.9
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_busy_body_meets_the_loss_in_check_and_at_the_end() -> None:
    store, seen = await dead_store(), []
    with pytest.raises(LockLost):
        async with Lock(store, "x", ttl_s=TTL_S) as held:
            held.check()
            while not held.lost:
                pass
            with pytest.raises(LockLost):
                held.check()
            seen.append(True)
    assert seen


async def test_a_thread_meets_the_loss_in_check() -> None:
    store, seen = await dead_store(), []

    def work(held: atoll.blocks.lock.Held) -> None:  # type: ignore[name-defined]
        try:
            while True:
                held.check()
                time.sleep(0.005)
        except LockLost:
            seen.append(True)

    with pytest.raises(LockLost):
        async with Lock(store, "x", ttl_s=TTL_S) as held:
            await asyncio.to_thread(work, held)
    async with asyncio.timeout(10):
        while not seen:
            await asyncio.sleep(0.005)


async def test_a_body_that_swallows_the_cancellation_meets_the_loss_at_the_end() -> None:
    store, finished = await dead_store(), []
    with pytest.raises(LockLost):
        async with Lock(store, "x", ttl_s=TTL_S):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                finished.append(True)
    assert finished
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_an_error_of_the_body_after_the_loss_is_the_cause() -> None:
    with pytest.raises(LockLost) as caught:
        async with Lock(await dead_store(), "x", ttl_s=TTL_S):
            try:
                await asyncio.sleep(60)
            finally:
                raise ValueError("in the clean-up")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_error_of_the_body_in_time_is_its_own_and_gives_the_lock_back() -> None:
    store = atoll.store("memory://")
    with pytest.raises(ValueError):
        async with Lock(store, "x"):
            raise ValueError
    async with Lock(store, "x", wait_s=0):
        pass


async def test_outer_cancellation_wins() -> None:
    store, seen = await dead_store(), []

    async def work() -> None:
        try:
            async with Lock(store, "x", ttl_s=TTL_S) as held:
                try:
                    await asyncio.sleep(60)
                finally:
                    # both at once: the loss has cancelled us, and somebody outside does too
                    seen.append(held.lost)
                    task.cancel()
        except LockLost:
            seen.append("lost")

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [True]


async def test_a_timeout_around_the_lock_stays_a_timeout_and_gives_it_back() -> None:
    store = atoll.store("memory://")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), Lock(store, "x"):
            await asyncio.sleep(60)
    assert (await store.range("")).entries == ()


async def test_a_timeout_inside_the_lock_does_not_hide_the_loss() -> None:
    with pytest.raises(LockLost):
        async with Lock(await dead_store(), "x", ttl_s=TTL_S), asyncio.timeout(60):
            await asyncio.sleep(50)


async def test_a_task_group_inside_is_stopped_whole() -> None:
    stopped = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    with pytest.raises(LockLost):
        async with Lock(await dead_store(), "x", ttl_s=TTL_S), asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())
    assert stopped == [True, True]


async def test_a_lock_inside_a_task_group_fails_it_with_lock_lost() -> None:
    store = await dead_store()

    async def work() -> None:
        async with Lock(store, "x", ttl_s=TTL_S):
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
    assert caught.group_contains(LockLost)


async def test_two_locks_lost_together_end_in_one_lock_lost() -> None:
    store = await dead_store()
    with pytest.raises(LockLost, match=r"^outer"):
        async with Lock(store, "outer", ttl_s=TTL_S), Lock(store, "inner", ttl_s=TTL_S):
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_loss_is_told_to_observers_and_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[observer.Event] = []
    stop = observer.subscribe(heard.append)
    try:
        with pytest.raises(LockLost):
            async with Lock(await dead_store(), "x", ttl_s=TTL_S):
                await asyncio.sleep(60)
    finally:
        stop()
    assert isinstance(heard[-1], observer.LockWasLost)
    assert any("x was lost by" in record.message for record in caplog.records)


@simulated(seeds=20)
async def test_a_frozen_holder_is_told_and_its_late_write_is_refused(world: World) -> None:
    store = world.store()

    async def successor() -> None:
        theirs = world.store()
        async with Lock(theirs, "x") as held:
            await theirs.transact(put("who", b"second"), guard=held)

    with pytest.raises(LockLost):
        async with Lock(store, "x") as held:
            after = world.process("b").run(successor())
            await world.freeze(seconds=20)
            await after
            with pytest.raises((Refused, LockLost)):
                await store.transact(put("who", b"first"), guard=held)
    assert (await store.get("who")).entry.value == b"second"  # type: ignore[union-attr]


@simulated(seeds=50)
async def test_a_cut_off_holder_stops_before_the_next_begins(world: World) -> None:
    inside: list[str] = []

    async def hold(name: str, for_s: float) -> None:
        async with Lock(world.store(), "x", ttl_s=9):
            inside.append(name)
            assert len(inside) == 1, inside
            try:
                await asyncio.sleep(for_s)
            finally:
                inside.remove(name)

    first = world.process("a").run(hold("a", 3600))
    await asyncio.sleep(1)
    second = world.process("b").run(hold("b", 1))
    await asyncio.sleep(world.seed % 7)
    world.cut("a")
    await second
    with pytest.raises(LockLost):
        await first
