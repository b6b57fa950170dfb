"""A7: one leader at a time; lost, it is cancelled and another goes on; cancelled, it hands over at once."""

from __future__ import annotations

import asyncio

import pytest

import atoll
from atoll import ConfigurationError, Election, LeaderLost, Refused, Term, put
from atoll.blocks.lock import holders
from atoll.ports import observer
from atoll.testing import Weather, World, simulated


async def test_a_leader_answers_what_its_function_answers() -> None:
    async def nightly(term: Term, n: int) -> str:
        term.check()
        return f"{term.name} {n}"

    assert await Election(atoll.store("memory://"), "nightly").lead(nightly, 3) == "nightly 3"


async def test_an_error_of_the_function_comes_out_and_another_leads() -> None:
    store = atoll.store("memory://")

    async def broken(term: Term) -> None:
        raise ValueError("mine")

    async def fine(term: Term) -> int:
        return 1

    with pytest.raises(ValueError, match="mine"):
        await Election(store, "x").lead(broken)
    assert await Election(store, "x").lead(fine) == 1


async def test_cancelled_it_hands_over_at_once_and_the_next_has_a_greater_token() -> None:
    store, terms = atoll.store("memory://"), []

    async def serve(term: Term) -> None:
        terms.append(term)
        await asyncio.Event().wait()

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while len(terms) < count:
                await asyncio.sleep(0.001)

    first = asyncio.create_task(Election(store, "x", ttl_s=3600, owner="a").lead(serve))
    await until(1)
    second = asyncio.create_task(Election(store, "x", ttl_s=3600, owner="b").lead(serve))
    leader = await Election(store, "x").leader()
    assert leader is not None and leader.owner == "a" and leader.token == terms[0].token
    first.cancel()
    await until(2)
    assert terms[1].token > terms[0].token and terms[1].owner == "b"
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert await Election(store, "x").leader() is None


async def test_elections_and_locks_of_one_name_do_not_meet() -> None:
    store = atoll.store("memory://")

    async def serve(term: Term) -> None:
        async with atoll.Lock(store, "x", wait_s=0) as held:
            assert held.owner_key != term.owner_key
            assert [h.name for h in await holders(store)] == ["x"]
            assert [h.name for h in await holders(store, "election")] == ["x"]

    await Election(store, "x").lead(serve)


async def test_campaigning_for_what_one_leads_is_refused() -> None:
    store = atoll.store("memory://")

    async def again(term: Term) -> None:
        await Election(store, "x").lead(again)

    with pytest.raises(ConfigurationError, match="never end"):
        await Election(store, "x").lead(again)


async def test_a_term_guards_writes_and_is_told_to_observers() -> None:
    store, heard = atoll.store("memory://"), []
    stop = observer.subscribe(heard.append)

    async def serve(term: Term) -> None:
        await store.transact(put("a", b""), guard=term)
        await store.transact(atoll.delete(term.owner_key))
        with pytest.raises(Refused):
            await store.transact(put("a", b""), guard=term)

    try:
        await Election(store, "x").lead(serve)
    finally:
        stop()
    assert [type(event) for event in heard] == [observer.LeaderElected, observer.LeaderEnded]


@simulated(seeds=20)
async def test_a_cut_off_leader_is_cancelled_another_leads_and_it_campaigns_again(world: World) -> None:
    leading: list[str] = []
    terms: list[str] = []

    async def serve(term: Term, name: str) -> None:
        assert leading == []
        leading.append(name)
        terms.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            leading[:] = [other for other in leading if other != name]

    async def campaign(name: str) -> None:
        await Election(world.store(), "x", ttl_s=9, owner=name).lead(serve, name)

    async def until(count: int) -> None:
        async with asyncio.timeout(120):
            while len(terms) < count:
                await asyncio.sleep(0.1)

    for name in ("a", "b", "c"):
        world.process(name).run(campaign(name))
    await until(1)
    cut = terms[-1]
    world.cut(cut)
    await until(2)
    assert terms[-1] != cut
    world.heal(cut)
    for wanted in (3, 4):
        world.kill(terms[-1])
        leading.clear()  # the dead say no more
        await until(wanted)
    assert set(terms[-1:]) == {cut}  # the only one left alive, and it never gave up


@simulated(
    seeds=15, weather=Weather(reply_lost=0.05, request_lost=0.05, late=0.02, duplicated=0.05, ceiling_s=1.0)
)
async def test_in_bad_weather_there_is_one_leader_and_always_one_again(world: World) -> None:
    leading: list[str] = []
    tokens = []

    async def serve(term: Term, name: str) -> None:
        assert leading == []
        leading.append(name)
        tokens.append(term.token)
        try:
            await asyncio.sleep(3)
        finally:
            leading[:] = [other for other in leading if other != name]

    async def campaign(name: str) -> None:
        for _ in range(4):
            await Election(world.store(), "x", ttl_s=6, owner=name).lead(serve, name)

    await asyncio.gather(*[world.process(name).run(campaign(name)) for name in ("a", "b", "c")])
    assert len(tokens) >= 12 and tokens == sorted(set(tokens))


async def test_a_function_that_hides_its_cancellation_does_not_go_on_for_ever() -> None:
    store, runs = atoll.store("memory://"), 0

    async def never(lease: str) -> float:
        await asyncio.sleep(3600)
        raise AssertionError

    async def serve(term: Term) -> None:
        nonlocal runs
        runs += 1
        try:
            await asyncio.sleep(60)
        finally:
            task.cancel()
            raise ValueError("in the clean-up")

    assert store.leasing is not None
    store.leasing.keep_alive = never  # type: ignore[method-assign]
    task = asyncio.create_task(Election(store, "x", ttl_s=0.2).lead(serve))
    with pytest.raises(LeaderLost):
        await task
    assert runs == 1


async def test_a_function_that_swallows_its_cancellation_ends_the_term_all_the_same() -> None:
    store, runs = atoll.store("memory://"), 0
    assert store.leasing is not None
    real = store.leasing.keep_alive

    async def never(lease: str) -> float:
        await asyncio.sleep(3600)
        return await real(lease)

    async def serve(term: Term) -> int:
        nonlocal runs
        runs += 1
        if runs > 1:
            return runs
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(LeaderLost):
                term.check()
        return -1  # too late: the answer of a lost term does not count

    store.leasing.keep_alive = never  # type: ignore[method-assign]
    assert await Election(store, "x", ttl_s=0.2).lead(serve) == 2
