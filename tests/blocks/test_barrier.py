"""Nobody goes on before all have come, nobody leaves before all are done; also on the weakest store."""

from __future__ import annotations

import asyncio

import pytest
from recipe_weather import LONG, STORMS, WEAK, emptied, keys

import atoll
from atoll import ConfigurationError, LeaseOver, NotReady, NotSent, OutcomeUnknown
from atoll.blocks import Barrier, DoubleBarrier
from atoll.blocks import barrier as barriers
from atoll.ports.register import Applied
from atoll.testing import World, simulated

PARTIES = 4


class Meeting:
    """Watches from outside: who has come how often, and who went on when."""

    def __init__(self) -> None:
        self.came: dict[str, int] = {}
        self.passed = 0

    async def go(self, world: World, name: str, rounds: int) -> None:
        barrier = Barrier(world.store(knobs=WEAK), "x", parties=PARTIES, ttl_s=10, owner=name)
        for n in range(1, rounds + 1):
            self.came[name] = n
            while True:
                try:
                    await barrier.wait()
                    break
                except (OutcomeUnknown, NotSent):
                    pass
            assert len(self.came) == PARTIES and min(self.came.values()) >= n, f"{name} went on: {self.came}"
            self.passed += 1
            await asyncio.sleep(0.01)


@simulated(seeds=30 * LONG)
async def test_nobody_goes_on_before_all_have_come_round_after_round(world: World) -> None:
    meeting = Meeting()
    names = [f"p{n}" for n in range(PARTIES)]
    async with asyncio.timeout(120):
        await asyncio.gather(*[world.process(n).run(meeting.go(world, n, 6)) for n in names])
    assert meeting.passed == PARTIES * 6
    await emptied(world, "barrier/", but=["barrier/x/generation", "barrier/x/came"])


@pytest.mark.parametrize("storm", STORMS)
def test_all_pass_and_nobody_hangs_when(storm: str) -> None:
    """A wait that ended with OutcomeUnknown may have been counted: so only hanging is looked for."""

    @simulated(seeds=10 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        done: list[str] = []

        async def go(name: str) -> None:
            barrier = Barrier(world.store(knobs=WEAK), "x", parties=PARTIES, ttl_s=6, owner=name)
            while True:
                try:
                    await barrier.wait(wait_s=20)
                    break
                except (OutcomeUnknown, NotSent, NotReady):
                    if len(done) > 0:  # it was counted, its answer lost, and the others went on with it
                        break
            done.append(name)

        async with asyncio.timeout(300):
            await asyncio.gather(*[world.process(f"p{n}").run(go(f"p{n}")) for n in range(PARTIES)])
        assert len(done) == PARTIES
        await emptied(world, "barrier/", but=["barrier/x/generation", "barrier/x/came"])

    run()


async def come(store_url: object, name: str, **options: object) -> int:
    return await Barrier(store_url, "x", parties=3, owner=name).wait(**options)  # type: ignore[arg-type]


async def test_who_comes_too_early_is_told_who_was_there_and_is_not_counted() -> None:
    store = atoll.store("memory://")
    other = asyncio.create_task(come(store, "api-2"))
    with pytest.raises(NotReady, match=r"2 of 3 came to x within .* s: api-2, api-1\. Wait longer"):
        while True:
            if await keys(store, "barrier/x/in/"):
                await come(store, "api-1", wait_s=0.05)
            await asyncio.sleep(0.001)
    assert len(await keys(store, "barrier/x/in/")) == 1
    third = asyncio.create_task(come(store, "api-3"))
    await asyncio.sleep(0.05)
    assert not other.done() and not third.done()  # the one who gave up does not count
    assert await come(store, "api-1") == 0
    assert [await other, await third] == [0, 0]
    assert await keys(store) == ["barrier/x/came", "barrier/x/generation"]


async def test_generations_are_counted() -> None:
    store = atoll.store("memory://")
    for generation in range(4):
        assert set(await asyncio.gather(*[come(store, f"p{n}") for n in range(3)])) == {generation}


@simulated(seeds=10)
async def test_a_party_that_dies_waiting_counts_no_more_after_its_lease(world: World) -> None:
    async def go() -> int:
        return await Barrier(world.store(knobs=WEAK), "x", parties=2, ttl_s=6).wait()

    world.process("a").run(go())
    await asyncio.sleep(1)
    world.kill("a")
    await asyncio.sleep(30)
    b = world.process("b").run(go())
    await asyncio.sleep(10)
    assert not b.done()
    assert await go() == 0 and await b == 0


@simulated(seeds=10)
async def test_a_party_whose_lease_is_taken_away_comes_again_and_counts_once(world: World) -> None:
    store = world.store(knobs=WEAK)

    async def go() -> int:
        return await Barrier(world.store(), "x", parties=3, ttl_s=10).wait()

    a = world.process("a").run(go())
    await asyncio.sleep(1)
    (entry,) = (await store.range("barrier/x/in/")).entries
    assert store.leasing is not None and entry.lease is not None
    await store.leasing.revoke(entry.lease)
    await asyncio.sleep(12)
    assert len(await keys(store, "barrier/x/in/")) == 1
    b = world.process("b").run(go())
    await asyncio.sleep(1)
    assert not a.done() and not b.done()
    await go()
    await asyncio.gather(a, b)


async def test_parties_that_disagree_on_the_number_are_told() -> None:
    store = atoll.store("memory://")
    waiting = asyncio.create_task(come(store, "api-2"))
    while not await keys(store, "barrier/x/in/"):
        await asyncio.sleep(0.001)
    with pytest.raises(ConfigurationError, match="api-2 came to x with parties=3, found parties=2"):
        await Barrier(store, "x", parties=2).wait()
    assert len(await keys(store, "barrier/x/in/")) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await keys(store, "barrier/x/in/") == []


async def test_who_comes_wakes_nobody_until_the_last() -> None:
    """The waiting watch the generation alone: the coming of others is no news to them."""
    store = atoll.store("memory://")
    observed: list[str] = []
    observe = store.observe
    store.observe = lambda prefix: (observed.append(prefix), observe(prefix))[1]  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        await asyncio.gather(*[Barrier(store, "x", parties=30).wait() for _ in range(30)])
    assert set(observed) == {"barrier/x/generation"} and len(observed) <= 30


async def test_ten_thousand_parties_are_counted() -> None:
    store = atoll.store("memory://")
    assert store.leasing is not None
    waiting = asyncio.create_task(Barrier(store, "x", parties=10_001).wait())
    while not (there := (await store.range("barrier/x/in/")).entries):
        await asyncio.sleep(0.001)
    text = there[0].value
    for n in range(9_999):
        await store.transact(atoll.put(f"barrier/x/in/{0:012d}/{n * 7919 % 10_000:032d}", text))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert await Barrier(store, "x", parties=10_001).wait(wait_s=10) == 0
    assert await waiting == 0


class Inside:
    """Watches a double barrier: all are inside together, and nobody leaves before all are done."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.done: set[str] = set()
        self.rounds = 0

    async def go(self, world: World, name: str, rounds: int) -> None:
        barrier = DoubleBarrier(world.store(knobs=WEAK), "x", parties=PARTIES, ttl_s=10, owner=name)
        for n in range(rounds):
            self.inside.add(f"{name} {n}")
            async with barrier:
                assert {f"p{m} {n}" for m in range(PARTIES)} <= self.inside, f"{name} began alone"
                await asyncio.sleep(0.01 * int(name[1:]))
                self.done.add(f"{name} {n}")
            assert {f"p{m} {n}" for m in range(PARTIES)} <= self.done, f"{name} left before the others"
            self.rounds += 1


@simulated(seeds=30 * LONG)
async def test_all_begin_together_and_leave_together_round_after_round(world: World) -> None:
    watch = Inside()
    names = [f"p{n}" for n in range(PARTIES)]
    async with asyncio.timeout(120):
        await asyncio.gather(*[world.process(n).run(watch.go(world, n, 5)) for n in names])
    assert watch.rounds == PARTIES * 5
    await emptied(world, "double_barrier/", but=["double_barrier/x/generation", "double_barrier/x/came"])


@simulated(seeds=20)
async def test_who_dies_inside_is_not_waited_for_longer_than_its_lease(world: World) -> None:
    left: list[str] = []

    async def go(name: str, seconds: float) -> None:
        async with DoubleBarrier(world.store(knobs=WEAK), "x", parties=3, ttl_s=10, owner=name):
            await asyncio.sleep(seconds)
        left.append(name)

    tasks = [world.process(n).run(go(n, s)) for n, s in (("a", 0.5), ("b", 0.6), ("c", 3600))]
    await asyncio.sleep(5 + world.seed * 0.1)
    assert left == []
    world.kill("c")
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks[:2])
    assert sorted(left) == ["a", "b"]


@simulated(seeds=10)
async def test_entering_again_after_the_own_lease_ended_counts_once(world: World) -> None:
    store = world.store(knobs=WEAK)
    begun: list[str] = []

    async def go(name: str) -> None:
        async with DoubleBarrier(world.store(), "x", parties=3, ttl_s=10, owner=name):
            begun.append(name)

    a = world.process("a").run(go("a"))
    await asyncio.sleep(1)
    (entry,) = (await store.range("double_barrier/x/in/")).entries
    assert store.leasing is not None and entry.lease is not None
    await store.leasing.revoke(entry.lease)
    await asyncio.sleep(12)
    b = world.process("b").run(go("b"))
    await asyncio.sleep(1)
    assert begun == []
    await go("c")
    await asyncio.gather(a, b)


async def test_an_error_inside_leaves_at_once_and_lets_the_others_go() -> None:
    store = atoll.store("memory://")

    async def go(fails: bool) -> None:
        async with DoubleBarrier(store, "x", parties=2):
            if fails:
                raise ValueError("mine")

    fine, broken = await asyncio.gather(go(False), go(True), return_exceptions=True)
    assert fine is None and isinstance(broken, ValueError)
    assert await keys(store, "double_barrier/x/in/") == []


async def test_leaving_after_the_own_lease_ended_says_so() -> None:
    store = atoll.store("memory://")

    async def go(slow: bool) -> None:
        async with DoubleBarrier(store, "x", parties=2):
            if slow:
                entries = (await store.range("double_barrier/x/in/")).entries
                assert store.leasing is not None and entries[0].lease is not None
                await store.leasing.revoke(entries[0].lease)

    results = await asyncio.gather(go(True), go(False), return_exceptions=True)
    assert not [r for r in results if r is not None and not isinstance(r, LeaseOver)]


async def test_a_double_barrier_waits_no_longer_than_asked() -> None:
    store = atoll.store("memory://")
    with pytest.raises(NotReady, match="1 of 2 came to x"):
        async with DoubleBarrier(store, "x", parties=2, wait_s=0.05):
            pass
    assert await keys(store, "double_barrier/x/in/") == []


def test_a_barrier_without_generations_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: it opens and is closed again at once; who looks late never sees it open."""

    async def opens_for_a_moment(arrival: barriers.Arrival, counted: barriers.Look) -> bool:
        gate, number = arrival._gate, arrival._generation
        moment = barriers.put(gate.key, barriers.msgspec.json.encode(barriers.Generation(number + 1)))
        answer = await gate.store.transact(moment, compare=[barriers._same(gate.came, counted.came)])
        if isinstance(answer, Applied):
            again = barriers.put(gate.key, barriers.msgspec.json.encode(barriers.Generation(number)))
            await gate.store.transact(again)
        return isinstance(answer, Applied)

    monkeypatch.setattr(barriers.Arrival, "_open", opens_for_a_moment)

    @simulated(seeds=3)
    async def run(world: World) -> None:
        meeting = Meeting()
        names = [f"p{n}" for n in range(PARTIES)]
        async with asyncio.timeout(120):
            await asyncio.gather(*[world.process(n).run(meeting.go(world, n, 6)) for n in names])

    with pytest.raises((TimeoutError, AssertionError)):
        run()


def test_a_barrier_that_opens_one_too_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: counts to one less."""
    look = barriers.Gate.look

    async def one_more(gate: barriers.Gate, generation: int) -> barriers.Look:
        seen = await look(gate, generation)
        return barriers.Look(seen.came, seen.opened, [*seen.places, *seen.places[:1]])

    monkeypatch.setattr(barriers.Gate, "look", one_more)

    @simulated(seeds=3)
    async def run(world: World) -> None:
        meeting = Meeting()
        names = [f"p{n}" for n in range(PARTIES)]
        async with asyncio.timeout(120):
            await asyncio.gather(*[world.process(n).run(meeting.go(world, n, 6)) for n in names])

    with pytest.raises((AssertionError, TimeoutError)):
        run()
