"""A semaphore lets in so many, in order, on the weakest store and in any weather."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from recipe_weather import LONG, STORMS, WEAK, Judge, TooMany, emptied, keys

import atoll
from atoll import ConfigurationError, LockLost, NotSent, OutcomeUnknown, Refused, Taken, put
from atoll.blocks import Semaphore
from atoll.blocks.semaphore import PermitRule
from atoll.blocks.sharing import Place, Ticket, read_ticket
from atoll.ports.register import Entry
from atoll.ports.store import Store, delete
from atoll.testing import World, simulated

PERMITS = 3


async def take_turns(world: World, name: str, judge: Judge, turns: int, permits: int = PERMITS) -> None:
    store = world.store(knobs=WEAK)
    for _ in range(turns):
        try:
            async with Semaphore(store, "x", permits=permits, ttl_s=10, owner=name):
                judge.enter(name)
                try:
                    await asyncio.sleep(0.02)
                finally:
                    judge.leave(name)
        except (LockLost, OutcomeUnknown, NotSent):
            pass


def at_most(number: int) -> Judge:
    return Judge(lambda crowd: crowd["in"] <= number)


@pytest.mark.parametrize("storm", STORMS)
def test_never_more_than_the_permits_are_inside_and_none_is_stuck_when(storm: str) -> None:
    most = 0

    @simulated(seeds=10 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        nonlocal most
        judge = at_most(PERMITS)
        names = [f"p{n}" for n in range(6)]
        await asyncio.gather(*[world.process(n).run(take_turns(world, n, judge, 6)) for n in names])
        assert judge.turns >= 20
        most = max(most, judge.most)
        await emptied(world, "semaphore/")

    run()
    assert most == PERMITS


@simulated(seeds=20 * LONG)
async def test_processes_that_die_or_freeze_give_their_permits_back_with_the_lease(world: World) -> None:
    judge = at_most(PERMITS)
    names = [f"p{n}" for n in range(7)]
    done = {n: world.process(n).run(take_turns(world, n, judge, 20)) for n in names}
    await asyncio.sleep(0.05 + world.seed * 0.007)
    world.kill("p0")
    world.process("p1").freeze(30)
    await asyncio.sleep(0.03)
    world.kill("p2")
    judge.leave("p0", "p1", "p2")  # the dead say no more; the frozen one is told when it wakes
    for name in ("p3", "p4", "p5", "p6", "p1"):
        await done[name]
    assert judge.turns >= 90


async def test_a_line_moves_in_order() -> None:
    store, order = atoll.store("memory://"), []

    async def wait(n: int) -> None:
        async with Semaphore(store, "x", permits=1, owner=f"o{n}"):
            order.append(n)

    async with Semaphore(store, "x", permits=1, owner="first"):
        tasks = []
        for n in range(10):
            tasks.append(asyncio.create_task(wait(n)))
            while len(await Semaphore(store, "x", permits=1).holders()) < n + 2:
                await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    assert order == list(range(10))
    assert await keys(store) == []


async def test_a_departure_wakes_only_those_it_concerns() -> None:
    """50 wait; when one permit comes back, the head takes it and its successor becomes the head."""
    store = atoll.store("memory://")
    looks = 0
    range_ = store.range

    async def counted(*args: str, **options: object) -> object:
        nonlocal looks
        looks += 1
        return await range_(*args, **options)  # type: ignore[arg-type]

    stop = asyncio.Event()

    async def hold() -> None:
        async with Semaphore(store, "x", permits=2):
            await stop.wait()

    first = Semaphore(store, "x", permits=2)
    await first.__aenter__()
    tasks = [asyncio.create_task(hold()) for _ in range(51)]
    while len(await first.holders()) < 52:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    store.range = counted  # type: ignore[method-assign]
    await first.__aexit__(None, None, None)
    await asyncio.sleep(0.2)
    assert 1 <= looks <= 4
    stop.set()
    await asyncio.gather(*tasks)


async def test_one_who_looks_late_tells_who_came_behind_him() -> None:
    """He finds himself inside at his first look; who came behind him looked before, and waits for him."""
    name = "memory://semaphore-late"
    store, late = atoll.store(name), atoll.store(name)
    look, range_ = asyncio.Event(), late.range
    entered: list[str] = []
    stop = asyncio.Event()

    async def delayed(*args: str, **options: object) -> object:
        await look.wait()
        return await range_(*args, **options)  # type: ignore[arg-type]

    late.range = delayed  # type: ignore[method-assign, assignment]

    async def hold(where: Store, owner: str) -> None:
        async with Semaphore(where, "x", permits=2, owner=owner):
            entered.append(owner)
            await stop.wait()

    async with Semaphore(store, "x", permits=2), Semaphore(store, "x", permits=2):
        first = asyncio.create_task(hold(late, "late"))
        while len(await Semaphore(store, "x", permits=2).holders()) < 3:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(hold(store, "behind"))
        await asyncio.sleep(0.05)
    look.set()
    async with asyncio.timeout(10):
        while sorted(entered) != ["behind", "late"]:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(first, second)


async def test_where_processes_disagree_the_smaller_number_counts() -> None:
    store = atoll.store("memory://")
    async with Semaphore(store, "x", permits=1):
        with pytest.raises(Taken):
            async with Semaphore(store, "x", permits=5, wait_s=0):
                pass
    async with Semaphore(store, "x", permits=5), Semaphore(store, "x", permits=5):
        with pytest.raises(Taken):
            async with Semaphore(store, "x", permits=2, wait_s=0):
                pass
        async with Semaphore(store, "x", permits=5, wait_s=0):
            pass


async def test_taken_names_the_holders() -> None:
    store = atoll.store("memory://")
    with pytest.raises(Taken, match=r"all 1 permits of gpu are out, to api-1; waited .* Ask again") as taken:
        async with Semaphore(store, "gpu", permits=1, owner="api-1"):
            async with Semaphore(store, "gpu", permits=1, wait_s=0.05):
                pass
    assert taken.value.owner == "api-1" and taken.value.since is not None
    assert await keys(store) == []


async def test_a_permit_guards_writes_in_its_store_and_carries_no_token() -> None:
    store = atoll.store("memory://")
    async with Semaphore(store, "x", permits=2) as permit, Semaphore(store, "x", permits=2) as other:
        assert not hasattr(permit, "token") and not hasattr(permit, "fence")
        await store.transact(put("a", b""), guard=permit.guard)
        await store.transact(delete(permit.guard.owner_key))
        with pytest.raises(Refused):
            await store.transact(put("a", b""), guard=permit.guard)
        await store.transact(put("a", b""), guard=other.guard)


async def test_a_waiters_permit_guards_after_it_was_let_in() -> None:
    """It has told its successor by writing its key again: the guard is the last writing."""
    store = atoll.store("memory://")

    async def wait() -> None:
        async with Semaphore(store, "x", permits=1) as permit:
            await store.transact(put("a", b""), guard=permit.guard)

    async with Semaphore(store, "x", permits=1) as first:
        task = asyncio.create_task(wait())
        while len(await Semaphore(store, "x", permits=1).holders()) < 2:
            await asyncio.sleep(0.001)
    await task
    with pytest.raises(LockLost):
        await store.transact(put("a", b""), guard=first.guard)


@simulated(seeds=10)
async def test_a_waiter_whose_lease_is_taken_away_gets_back_in_line(world: World) -> None:
    store, got = world.store(knobs=WEAK), []

    async def wait(name: str) -> None:
        async with Semaphore(world.store(), "x", permits=1, owner=name) as permit:
            permit.check()
            got.append(name)

    async with Semaphore(store, "x", permits=1):
        waiting = [world.process(name).run(wait(name)) for name in ("a", "b")]
        await asyncio.sleep(1)
        places = sorted((await store.range("semaphore/")).entries, key=lambda e: e.create_revision)
        assert len(places) == 3 and store.leasing is not None and places[1].lease is not None
        await store.leasing.revoke(places[1].lease)
        await asyncio.sleep(12)
    await asyncio.gather(*waiting)
    assert sorted(got) == ["a", "b"]


@simulated(seeds=5)
async def test_a_holder_whose_lease_ends_is_stopped(world: World) -> None:
    async def hold() -> None:
        async with Semaphore(world.store(), "x", permits=1, ttl_s=10):
            await asyncio.sleep(3600)

    holding = world.process("a").run(hold())
    await asyncio.sleep(1)
    world.cut("a")
    async with Semaphore(world.store(), "x", permits=1, wait_s=30):
        with pytest.raises(LockLost):
            await holding


async def test_behind_ten_thousand_the_next_one_waits_for_its_predecessor() -> None:
    store = atoll.store("memory://")
    assert store.leasing is not None
    lease = (await store.leasing.grant(600)).lease
    for n in range(10_000):
        ticket = Ticket(
            owner=f"o{n}", since=0.0, nonce=f"{n * 7919 % 10_000:032d}", wants="permit", permits=2
        )
        key = f"semaphore/x/queue/{ticket.nonce}"
        await store.transact(put(key, msgspec.json.encode(ticket), lease=lease))
    mine = Semaphore(store, "x", permits=2)
    assert await mine.holders() == [f"o{n}" for n in range(10_000)]
    observed: list[str] = []
    observe = store.observe
    store.observe = lambda prefix: (observed.append(prefix), observe(prefix))[1]  # type: ignore[method-assign]
    with pytest.raises(Taken, match=r"all 2 permits of x are out, to o0, o1, 9998 before us"):
        async with Semaphore(store, "x", permits=2, wait_s=1):
            pass
    assert observed == [f"semaphore/x/queue/{9_999 * 7919 % 10_000:032d}"]
    await store.leasing.revoke(lease)
    async with mine:
        pass


@pytest.mark.parametrize("permits", [0, -1])
def test_no_permits_are_refused(permits: int) -> None:
    with pytest.raises(ConfigurationError, match="expected 1 or more"):
        Semaphore(atoll.store("memory://"), "x", permits=permits)


@pytest.mark.parametrize("knobs", ["leasing=false", "forgets_at_failover=true", "operations_max=5"])
async def test_a_store_that_is_too_weak_is_refused(knobs: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///state\.db"):
        async with Semaphore(atoll.store(f"memory://?{knobs}"), "x", permits=1):
            pass


class Greedy(PermitRule):
    """Negative control: lets in one more."""

    def awaits(self, before: Sequence[Place], me: Ticket) -> Sequence[Place]:
        return super().awaits(before[1:], me)


def test_the_judge_catches_a_semaphore_that_lets_in_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.blocks.semaphore.PermitRule", Greedy)

    @simulated(seeds=3)
    async def run(world: World) -> None:
        judge = at_most(PERMITS)
        names = [f"p{n}" for n in range(6)]
        await asyncio.gather(*[world.process(n).run(take_turns(world, n, judge, 6)) for n in names])

    with pytest.raises(TooMany):
        run()


def test_an_unreadable_place_counts_and_stops_nobody_from_reading() -> None:
    ticket = read_ticket(Entry("k", b"scribble", 3, 3))
    assert ticket.owner == "an unknown owner"
    mine = Ticket(owner="me", since=0.0, nonce="n", permits=1)
    assert PermitRule(1).awaits([Place(ticket, Entry("k", b"", 3, 3))], mine)
