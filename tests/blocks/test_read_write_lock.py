"""A read/write lock: readers together, a writer alone, everybody in order, on the weakest store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from recipe_weather import LONG, STORMS, WEAK, Judge, TooMany, emptied, keys

import atoll
from atoll import LockLost, NotSent, OutcomeUnknown, Refused, Taken, WouldDeadlock, put
from atoll.blocks import ReadWriteLock
from atoll.blocks.read_write_lock import ReadRule
from atoll.blocks.sharing import Place, Ticket
from atoll.ports.store import Token, delete
from atoll.testing import World, simulated


def readers_or_one_writer() -> Judge:
    return Judge(lambda crowd: crowd["write"] == 0 or (crowd["write"] == 1 and crowd["read"] == 0))


async def take_turns(world: World, name: str, judge: Judge, tokens: list[Token], turns: int) -> None:
    lock = ReadWriteLock(world.store(knobs=WEAK), "x", ttl_s=10, owner=name)
    for turn in range(turns):
        try:
            if (turn + int(name[1:])) % 3:
                async with lock.read():
                    judge.enter(name, "read")
                    try:
                        await asyncio.sleep(0.02)
                    finally:
                        judge.leave(name)
            else:
                async with lock.write() as held:
                    judge.enter(name, "write")
                    assert not tokens or held.token > tokens[-1], "a writer's token went down"
                    tokens.append(held.token)
                    try:
                        await asyncio.sleep(0.02)
                    finally:
                        judge.leave(name)
        except (LockLost, OutcomeUnknown, NotSent):
            pass


@pytest.mark.parametrize("storm", STORMS)
def test_a_writer_is_alone_and_none_is_stuck_when(storm: str) -> None:
    most = 0

    @simulated(seeds=10 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        nonlocal most
        judge, tokens = readers_or_one_writer(), list[Token]()
        names = [f"p{n}" for n in range(6)]
        await asyncio.gather(*[world.process(n).run(take_turns(world, n, judge, tokens, 6)) for n in names])
        assert judge.turns >= 20 and len(tokens) >= 6
        most = max(most, judge.most)
        await emptied(world, "read_write/")

    run()
    assert most >= 2


@simulated(seeds=20 * LONG)
async def test_processes_that_die_or_freeze_do_not_hold_the_others_up(world: World) -> None:
    judge, tokens = readers_or_one_writer(), list[Token]()
    names = [f"p{n}" for n in range(7)]
    done = {n: world.process(n).run(take_turns(world, n, judge, tokens, 18)) for n in names}
    await asyncio.sleep(0.05 + world.seed * 0.007)
    world.kill("p0")
    world.process("p1").freeze(30)
    await asyncio.sleep(0.03)
    world.kill("p2")
    judge.leave("p0", "p1", "p2")  # the dead say no more; the frozen one is told when it wakes
    for name in ("p3", "p4", "p5", "p6", "p1"):
        await done[name]
    assert judge.turns >= 80


async def stand_in_line(lock: ReadWriteLock, kinds: str) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Behind who holds it: r and w in this order; what they did, and their tasks."""
    log: list[str] = []

    async def one(n: int, kind: str) -> None:
        async with lock.read() if kind == "r" else lock.write():
            log.append(f"{kind}{n}+")
            await asyncio.sleep(0.01)
            log.append(f"{kind}{n}-")

    tasks = []
    before = len(await lock.holders())
    for n, kind in enumerate(kinds):
        tasks.append(asyncio.create_task(one(n, kind)))
        while len(await lock.holders()) < before + n + 1:
            await asyncio.sleep(0.001)
    return log, tasks


async def test_a_stream_of_readers_does_not_starve_a_writer_nor_writers_a_reader() -> None:
    lock = ReadWriteLock(atoll.store("memory://"), "x")
    async with lock.write():
        log, tasks = await stand_in_line(lock, "rrwrrwwr")
    await asyncio.gather(*tasks)
    assert log[:4] in (
        ["r0+", "r1+", "r0-", "r1-"],
        ["r1+", "r0+", "r1-", "r0-"],
        ["r0+", "r1+", "r1-", "r0-"],
    )
    assert log[4:6] == ["w2+", "w2-"]
    assert set(log[6:8]) == {"r3+", "r4+"}
    assert log[10:] == ["w5+", "w5-", "w6+", "w6-", "r7+", "r7-"]
    assert await keys(lock.store) == []


async def test_a_writer_waits_for_every_reader_before_it_whatever_their_order_of_leaving() -> None:
    lock, order = ReadWriteLock(atoll.store("memory://"), "x"), []
    leave = [asyncio.Event() for _ in range(3)]

    async def read(n: int) -> None:
        async with lock.read():
            await leave[n].wait()
            order.append(n)

    async def write() -> None:
        async with lock.write():
            order.append("w")

    tasks = []
    for n in range(3):
        tasks.append(asyncio.create_task(read(n)))
        while len(await lock.holders()) < n + 1:
            await asyncio.sleep(0.001)
    tasks.append(asyncio.create_task(write()))
    while len(await lock.holders()) < 4:
        await asyncio.sleep(0.001)
    for n in (2, 0, 1):
        leave[n].set()
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    assert order == [2, 0, 1, "w"]


async def test_a_reader_watches_its_last_preceding_writer_and_nobody_else() -> None:
    store = atoll.store("memory://")
    lock = ReadWriteLock(store, "x")
    async with lock.write():
        _, tasks = await stand_in_line(lock, "wrrr")
        await asyncio.sleep(0.02)
        places = sorted((await store.range("read_write/")).entries, key=lambda e: e.create_revision)
        observed: list[str] = []
        observe = store.observe
        store.observe = lambda prefix: (observed.append(prefix), observe(prefix))[1]  # type: ignore[method-assign]
        with pytest.raises(Taken, match="x is wanted for writing before us by"):
            await asyncio.create_task(enter(lock, 0.05))
        assert observed == [places[1].key]
    await asyncio.gather(*tasks)


async def enter(lock: ReadWriteLock, wait_s: float) -> None:
    async with lock.read(wait_s=wait_s):
        pass


async def test_a_writer_has_a_token_that_guards_and_a_reader_has_none() -> None:
    store = atoll.store("memory://")
    lock = ReadWriteLock(store, "x")
    async with lock.read() as reading:
        assert not hasattr(reading, "token") and not hasattr(reading, "fence")
        await store.transact(put("a", b""), guard=reading.guard)
    async with lock.write() as held:
        await store.transact(put("a", b""), guard=held)
        await store.transact(delete(held.owner_key))
        with pytest.raises(Refused):
            await store.transact(put("a", b""), guard=held)


@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("second", ["read", "write"])
async def test_a_task_that_holds_it_is_told_at_once_that_it_would_wait_for_itself(
    first: str, second: str
) -> None:
    lock = ReadWriteLock(atoll.store("memory://"), "x")
    async with lock.read() if first == "read" else lock.write():
        with pytest.raises(WouldDeadlock, match="never end"):
            async with lock.write() if second == "write" else lock.read():
                pass
    async with lock.write(wait_s=0):
        pass


@simulated(seeds=10)
async def test_waiters_whose_lease_is_taken_away_get_back_in_line(world: World) -> None:
    store, got = world.store(knobs=WEAK), []

    async def wait(name: str) -> None:
        lock = ReadWriteLock(world.store(), "x", owner=name)
        async with lock.read() if name == "r" else lock.write() as held:
            held.check()
            got.append(name)

    async with ReadWriteLock(store, "x").write():
        waiting = [world.process(name).run(wait(name)) for name in ("r", "w", "r2")]
        await asyncio.sleep(1)
        places = sorted((await store.range("read_write/")).entries, key=lambda e: e.create_revision)
        assert len(places) == 4 and store.leasing is not None
        for place in places[1:3]:
            assert place.lease is not None
            await store.leasing.revoke(place.lease)
        await asyncio.sleep(12)
    await asyncio.gather(*waiting)
    assert sorted(got) == ["r", "r2", "w"]


async def test_ten_thousand_readers_are_all_seen_by_a_writer() -> None:
    store = atoll.store("memory://")
    assert store.leasing is not None
    lease = (await store.leasing.grant(600)).lease
    for n in range(10_000):
        ticket = Ticket(owner=f"o{n}", since=0.0, nonce=f"{n * 7919 % 10_000:032d}", wants="read")
        key = f"read_write/x/queue/{ticket.nonce}"
        await store.transact(put(key, msgspec.json.encode(ticket), lease=lease))
    lock = ReadWriteLock(store, "x")
    assert len(await lock.holders()) == 10_000
    with pytest.raises(Taken, match="before us by o0, o1, o2 and 9997 more"):
        async with lock.write(wait_s=1):
            pass
    async with lock.read(wait_s=5):
        pass
    await store.leasing.revoke(lease)
    async with lock.write(wait_s=5):
        pass


class Deaf(ReadRule):
    """Negative control: a reader that ignores the writer before it."""

    def awaits(self, before: Sequence[Place], me: Ticket) -> Sequence[Place]:
        return ()


def test_the_judge_catches_a_reader_that_ignores_the_writer_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atoll.blocks.read_write_lock.ReadRule", Deaf)

    @simulated(seeds=3)
    async def run(world: World) -> None:
        judge, tokens = readers_or_one_writer(), list[Token]()
        names = [f"p{n}" for n in range(6)]
        await asyncio.gather(*[world.process(n).run(take_turns(world, n, judge, tokens, 6)) for n in names])

    with pytest.raises(TooMany):
        run()
