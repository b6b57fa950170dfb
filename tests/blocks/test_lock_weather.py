"""A7: on the weakest store, in bad weather, a lock stays exclusive, is never stuck and leaves nothing."""

from __future__ import annotations

import asyncio
import os

import pytest

import atoll
from atoll import Lock, LockLost, NotApplied, NotSent, OutcomeUnknown, put
from atoll.blocks import session as sessions
from atoll.blocks.ownership import Keys
from atoll.ports.store import Store, Token, absent, delete
from atoll.testing import Weather, World, simulated
from atoll.verify.faults_in_process import Duplicated, ReplyLost, RequestLost, cancel_at_every_await, through

WEAK = (
    "observe=coalesced&observe_late_s=0.05&observe_reset=0.2&expiry_late_s=2&granted_ttl_factor=0.5"
    "&operations_max=6"
)
LONG = 10 if os.environ.get("ATOLL_LONG") else 1

STORMS = {
    "replies are lost": Weather(reply_lost=0.1),
    "requests are lost": Weather(request_lost=0.1),
    "requests arrive twice": Weather(duplicated=0.2),
    "requests arrive after their sender gave up": Weather(late=0.05, ceiling_s=1.0),
    "everything at once": Weather(
        reply_lost=0.05, request_lost=0.05, duplicated=0.1, late=0.03, ceiling_s=1.0
    ),
}


class Judge:
    """Watches from outside: who believes to hold, and which guarded writes were accepted."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.tokens: list[Token] = []
        self.turns = 0


async def take_turns(world: World, name: str, judge: Judge, *, turns: int, ttl_s: float = 10.0) -> None:
    store = world.store(knobs=WEAK)
    for _ in range(turns):
        try:
            async with Lock(store, "x", ttl_s=ttl_s, owner=name) as held:
                assert judge.inside == set(), f"{name} holds beside {judge.inside}"
                judge.inside.add(name)
                assert held.token not in judge.tokens, "a token was given twice"
                judge.tokens.append(held.token)
                assert judge.tokens == sorted(judge.tokens), "a token went down"
                try:
                    await asyncio.sleep(0.01)
                finally:
                    judge.inside.discard(name)
                judge.turns += 1
        except (LockLost, OutcomeUnknown, NotSent):
            pass


@pytest.mark.parametrize("storm", STORMS)
def test_it_stays_exclusive_and_is_never_stuck_when(storm: str) -> None:
    @simulated(seeds=12 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        judge = Judge()
        names = ["a", "b", "c", "d"]
        await asyncio.gather(
            *[world.process(name).run(take_turns(world, name, judge, turns=8)) for name in names]
        )
        assert judge.turns >= 20, "hardly anybody got it"
        await emptied(world)

    run()


async def emptied(world: World, within_s: float = 40.0) -> None:
    """Sooner or later nothing of the recipe is left but the sign, whatever went wrong."""
    calm = world.process("calm")
    world.weather = Weather()

    async def look() -> None:
        store = world.store()
        async with asyncio.timeout(within_s):
            while {e.key for e in (await store.range("lock/")).entries} - {Keys.of("lock", "x").line}:
                await asyncio.sleep(0.5)

    await calm.run(look())


@simulated(seeds=25 * LONG)
async def test_processes_that_die_and_freeze_in_line_do_not_hold_it_up(world: World) -> None:
    judge = Judge()
    names = [f"p{n}" for n in range(6)]
    done = {n: world.process(n).run(take_turns(world, n, judge, turns=30)) for n in names}
    await asyncio.sleep(0.05 + world.seed * 0.003)
    world.kill("p0")
    world.process("p1").freeze(30)
    await asyncio.sleep(0.02)
    world.kill("p2")
    judge.inside -= {"p0", "p1", "p2"}  # the dead say no more; the frozen one is told when it wakes
    for name in ("p3", "p4", "p5", "p1"):
        await done[name]
    assert judge.turns >= 90


@simulated(seeds=10)
async def test_a_line_of_the_dead_is_walked_past(world: World) -> None:
    async def hold() -> None:
        async with Lock(world.store(), "x", ttl_s=5):
            await asyncio.sleep(3600)

    for name in ("a", "b", "c"):
        world.process(name).run(hold())
        await asyncio.sleep(0.1)
    for name in ("a", "b", "c"):
        world.kill(name)
    store = world.store()
    line = Keys.of("lock", "x").line
    async with asyncio.timeout(20):
        while len((await store.range("lock/")).entries) > 1:
            await asyncio.sleep(0.5)
    assert (await store.get(line)).entry is not None  # the sign they left
    async with Lock(store, "x", wait_s=0):
        assert (await store.get(line)).entry is None
    assert (await store.range("lock/")).entries == ()


@simulated(seeds=10)
async def test_a_waiter_whose_lease_is_taken_away_gets_back_in_line(world: World) -> None:
    """The place in the line dies with the lease; whoever wins with a dead place would be a second holder."""
    store = world.store()
    got: list[str] = []

    async def wait(name: str) -> None:
        async with Lock(world.store(), "x", owner=name) as held:
            held.check()
            got.append(name)

    async with Lock(store, "x"):
        waiting = [world.process(name).run(wait(name)) for name in ("a", "b")]
        await asyncio.sleep(1)
        places = (await store.range(Keys.of("lock", "x").place(""))).entries
        assert len(places) == 2 and store.leasing is not None
        first = min(places, key=lambda entry: entry.create_revision)
        assert first.lease is not None
        await store.leasing.revoke(first.lease)
        await asyncio.sleep(6)
    await asyncio.gather(*waiting)
    assert sorted(got) == ["a", "b"]


@simulated(seeds=10)
async def test_a_place_deleted_by_an_operator_is_drawn_anew(world: World) -> None:
    store = world.store()

    async def wait() -> None:
        async with Lock(world.store(), "x"):
            pass

    async with Lock(store, "x"):
        waiting = world.process("a").run(wait())
        await asyncio.sleep(1)
        (place,) = (await store.range(Keys.of("lock", "x").place(""))).entries
        await store.transact(delete(place.key))
    await waiting


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
@pytest.mark.parametrize("contended", [False, True])
def test_each_single_call_may_fail(fault: type, contended: bool) -> None:
    """The 1st, 2nd, 3rd ... call of a kind meets the fault; the lock is had and given back all the same."""

    @simulated(seeds=1)
    async def run(world: World) -> None:
        for verb in ("transact", "range", "grant", "epoch"):
            for nth in range(1, 7):
                store = atoll.store("memory://")
                faulty: Store = through(store, fault(verb, nth=nth))
                if contended:
                    async with Lock(store, "x", owner="blocker"):
                        task = asyncio.create_task(hold_once(faulty))
                        await asyncio.sleep(1)
                        assert not task.done()
                    token = await task
                else:
                    token = await asyncio.create_task(hold_once(faulty))
                async with Lock(store, "x", wait_s=16) as next_one:
                    assert next_one.token > token, (verb, nth)

    run()


async def hold_once(store: Store) -> Token:
    async with Lock(store, "x") as held:
        held.check()
        return held.token


def test_cancelled_at_any_await_it_leaves_nothing_behind() -> None:
    @simulated(seeds=1)
    async def run(world: World) -> None:
        store = atoll.store("memory://")

        async def once() -> None:
            async with Lock(store, "x"):
                await asyncio.sleep(0)

        async def check() -> None:
            async with Lock(store, "x", wait_s=0.5):  # at once, not after a lease
                pass
            assert {e.key for e in (await store.range("lock/")).entries} <= {Keys.of("lock", "x").line}

        assert await cancel_at_every_await(once, check) >= 4

    run()


def test_a_waiter_cancelled_at_any_await_leaves_nothing_behind() -> None:
    @simulated(seeds=1)
    async def run(world: World) -> None:
        store = atoll.store("memory://")

        async def contend() -> None:
            async with Lock(store, "x", owner="waiter"):
                pass

        async def once() -> None:
            async with Lock(store, "y", wait_s=0):  # sees that its clean-up waits for nobody
                holder = asyncio.create_task(hold_a_while())
                while (await store.get(Keys.of("lock", "x").owner)).entry is None:
                    await asyncio.sleep(0.001)
                try:
                    await contend()
                finally:
                    await asyncio.shield(holder)

        async def hold_a_while() -> None:
            async with Lock(store, "x", owner="holder"):
                await asyncio.sleep(0.1)

        async def check() -> None:
            await asyncio.sleep(0.3)
            async with Lock(store, "x", wait_s=0.5):
                pass
            assert {e.key for e in (await store.range("lock/")).entries} <= {Keys.of("lock", "x").line}

        assert await cancel_at_every_await(once, check) >= 10

    run()


@simulated(seeds=10)
async def test_a_release_that_nobody_answers_does_not_hang_and_ends_with_the_lease(world: World) -> None:
    async def hold() -> float:
        store = world.store()
        lock = Lock(store, "x", ttl_s=10)
        await lock.__aenter__()
        world.cut("a")
        began = world.clock.loop_now()
        await lock.__aexit__(None, None, None)
        return world.clock.loop_now() - began

    assert await world.process("a").run(hold()) <= 6
    async with Lock(world.store(), "x", wait_s=15):
        pass


@simulated(seeds=5)
async def test_a_lock_in_doubt_does_not_live_on_by_the_renewals_of_its_neighbour(world: World) -> None:
    """Two locks share one lease; the first one's owner key is left in doubt while the second is held on."""
    store = atoll.store("memory://")
    lossy = through(store, ReplyLost("transact", prefix="lock/doubtful"))
    async with Lock(lossy, "steady", ttl_s=6):
        with pytest.raises((OutcomeUnknown, NotApplied)):
            async with Lock(lossy, "doubtful", ttl_s=6):
                pass
        async with Lock(store, "doubtful", wait_s=10):
            pass


async def test_sessions_do_not_pile_up() -> None:
    store = atoll.store("memory://")
    for _ in range(50):
        async with Lock(store, "x", ttl_s=0.05):
            pass
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while any(s.store is store for s in sessions._sessions.values()):
            await asyncio.sleep(0.01)


class NoToken:
    """Negative control: the usual lock with a ttl, on the same store, without a line and without a token."""

    def __init__(self, store: Store, ttl_s: float) -> None:
        self.store, self.ttl_s = store, ttl_s

    async def __aenter__(self) -> None:
        assert self.store.leasing is not None
        while True:
            lease = (await self.store.leasing.grant(self.ttl_s)).lease
            answer = await self.store.transact(put("naive", b"", lease=lease), compare=[absent("naive")])
            if hasattr(answer, "results"):
                return
            await asyncio.sleep(0.1)

    async def __aexit__(self, *exc: object) -> None:
        await self.store.transact(delete("naive"))


@simulated(seeds=3)
async def test_the_judge_catches_a_lock_without_a_deadline(world: World) -> None:
    inside: list[str] = []
    overlapped: list[str] = []

    async def hold(name: str) -> None:
        async with NoToken(world.store(), 2.0):
            inside.append(name)
            overlapped.extend(inside[:-1])
            await asyncio.sleep(5)
            inside.remove(name)

    await asyncio.gather(*[world.process(name).run(hold(name)) for name in ("a", "b")])
    assert overlapped
