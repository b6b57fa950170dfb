"""Anybody may watch who leads; nobody needs to campaign for that."""

from __future__ import annotations

import asyncio

import pytest
from recipe_weather import WEAK, until

import atoll
from atoll import Election, EpochUncertain, Term
from atoll.testing import World, simulated


async def serve(term: Term) -> None:
    await asyncio.Event().wait()


async def test_an_observer_is_told_who_leads_now_and_at_each_change() -> None:
    store, seen = atoll.store("memory://?observe=coalesced"), []

    async def watch() -> None:
        async for leader in Election(store, "x").watch():
            seen.append(leader.owner if leader else None)

    watching = asyncio.create_task(watch())
    await until(lambda: seen == [None])
    for name in ("a", "b"):
        leading = asyncio.create_task(Election(store, "x", owner=name).lead(serve))
        await until(lambda name=name: seen[-1] == name)
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await until(lambda: seen[-1] is None)
    watching.cancel()
    assert seen == [None, "a", None, "b", None]


async def test_a_new_term_of_the_same_leader_is_news_and_a_new_candidate_is_not() -> None:
    store, seen = atoll.store("memory://"), []

    async def watch() -> None:
        async for leader in Election(store, "x").watch():
            seen.append(leader.token if leader else None)

    async def once(term: Term) -> None:
        await until(lambda: term.token in seen)

    watching = asyncio.create_task(watch())
    await Election(store, "x", owner="a").lead(once)
    await Election(store, "x", owner="a").lead(once)
    tokens = [token for token in seen if token is not None]
    assert len(tokens) == 2 and tokens[1] > tokens[0]
    leading = asyncio.create_task(Election(store, "x", owner="a").lead(serve))
    await until(lambda: len([token for token in seen if token is not None]) == 3)
    waiting = asyncio.create_task(Election(store, "x", owner="b").lead(serve))
    told = len(seen)
    while (leader := await Election(store, "x").leader()) is None or leader.waiting == 0:
        await asyncio.sleep(0.001)
    assert len(seen) == told
    for task in (waiting, leading, watching):
        task.cancel()
    await asyncio.gather(leading, waiting, return_exceptions=True)


@simulated(seeds=20)
async def test_an_observer_that_was_cut_off_ends_with_the_leader_of_now(world: World) -> None:
    seen: list[str | None] = []

    async def watch() -> None:
        async for leader in Election(world.store(knobs=WEAK), "x").watch():
            seen.append(leader.owner if leader else None)

    async def lead(name: str) -> None:
        await Election(world.store(knobs=WEAK), "x", ttl_s=10, owner=name).lead(serve)

    world.process("o").run(watch())
    world.process("a").run(lead("a"))
    async with asyncio.timeout(60):
        while seen[-1:] != ["a"]:
            await asyncio.sleep(0.1)
    world.cut("o")
    world.kill("a")
    world.process("b").run(lead("b"))
    await asyncio.sleep(30)
    world.heal("o")
    async with asyncio.timeout(60):
        while seen[-1:] != ["b"]:
            await asyncio.sleep(0.1)


async def test_a_store_that_may_have_gone_back_in_time_ends_the_campaign_with_its_own_sentence() -> None:
    store = atoll.store("memory://")

    async def uncertain() -> int:
        raise EpochUncertain("another timeline; run: atoll store bump URL")

    store.epoch = uncertain  # type: ignore[method-assign]
    with pytest.raises(EpochUncertain, match="atoll store bump"):
        await Election(store, "x").lead(serve)
