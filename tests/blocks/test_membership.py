"""A group lists who is here: while they live, no longer than their lease after that."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from recipe_weather import LONG, STORMS, WEAK, emptied, keys, until

import atoll
from atoll import ConfigurationError, NotSent, OutcomeUnknown, put
from atoll.blocks import Group
from atoll.blocks.membership import Lamp
from atoll.testing import World, simulated


async def names(group: Group) -> list[str]:
    return [member.name for member in await group.members()]


async def test_members_are_listed_from_joining_to_leaving_with_what_they_say() -> None:
    group = Group(atoll.store("memory://"), "workers")
    async with group.join("api-1", about="http://10.0.0.7") as mine:
        assert mine.name == "api-1" and mine.present
        async with group.join("api-2"):
            first, second = await group.members()
            assert (first.name, first.about, second.name) == ("api-1", "http://10.0.0.7", "api-2")
            assert first.since <= second.since
        assert await names(group) == ["api-1"]
    assert await names(group) == [] and await keys(group.store) == []
    assert not mine.present
    async with group.join():
        assert "pid" in (await names(group))[0]


async def test_a_watcher_hears_of_the_present_members() -> None:
    group, seen = Group(atoll.store("memory://?observe=coalesced"), "workers"), []

    async def watch() -> None:
        async for members in group.watch():
            seen.append([member.name for member in members])

    watching = asyncio.create_task(watch())
    await until(lambda: seen == [[]])
    async with group.join("a"):
        await until(lambda: seen[-1] == ["a"])
        async with group.join("b"):
            await until(lambda: seen[-1] == ["a", "b"])
        await until(lambda: seen[-1] == ["a"])
    await until(lambda: seen[-1] == [])
    watching.cancel()
    assert all(one != other for one, other in pairwise(seen))


@simulated(seeds=20 * LONG)
async def test_the_dead_are_gone_with_their_lease_and_the_frozen_come_back(world: World) -> None:
    async def be(name: str) -> None:
        async with Group(world.store(knobs=WEAK), "x", ttl_s=10).join(name):
            await asyncio.sleep(3600)

    group = Group(world.store(knobs=WEAK), "x")
    for name in ("a", "b", "c"):
        world.process(name).run(be(name))
    async with asyncio.timeout(30):
        while sorted(await names(group)) != ["a", "b", "c"]:
            await asyncio.sleep(0.1)
    world.kill("a")
    world.process("b").freeze(40)
    async with asyncio.timeout(20):
        while await names(group) != ["c"]:
            await asyncio.sleep(0.1)
    async with asyncio.timeout(60):
        while await names(group) != ["c", "b"]:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("storm", STORMS)
def test_a_member_is_listed_once_and_leaves_nothing_behind_when(storm: str) -> None:
    @simulated(seeds=10 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        async def be(name: str) -> None:
            for _ in range(4):
                try:
                    async with Group(world.store(knobs=WEAK), "x", ttl_s=10).join(name) as mine:
                        await asyncio.sleep(20)
                        async with asyncio.timeout(60):
                            while not mine.present:
                                await asyncio.sleep(0.5)
                except (OutcomeUnknown, NotSent):
                    pass

        await asyncio.gather(*[world.process(n).run(be(n)) for n in ("a", "b", "c")])
        await emptied(world, "group/")

    run()


@simulated(seeds=10)
async def test_one_whose_lease_is_taken_away_joins_again_and_is_listed_once(world: World) -> None:
    store = world.store(knobs=WEAK)
    assert store.leasing is not None
    async with Group(store, "x", ttl_s=10).join("a") as mine:
        for _ in range(3):
            (entry,) = (await store.range("group/")).entries
            assert entry.lease is not None
            await store.leasing.revoke(entry.lease)
            await asyncio.sleep(12)
            assert mine.present and await names(Group(store, "x")) == ["a"]
    assert await keys(store) == []


async def test_a_member_cut_off_at_leaving_does_not_hang() -> None:
    @simulated(seeds=1)
    async def run(world: World) -> None:
        async def be() -> float:
            membership = Group(world.store(), "x", ttl_s=10).join("a")
            await membership.__aenter__()
            world.cut("a")
            began = world.clock.loop_now()
            await membership.__aexit__(None, None, None)
            return world.clock.loop_now() - began

        assert await world.process("a").run(be()) <= 12
        async with asyncio.timeout(30):
            while await names(Group(world.store(), "x")):
                await asyncio.sleep(0.5)

    await asyncio.to_thread(run)


async def test_ten_thousand_members_are_listed_in_the_order_of_joining() -> None:
    import msgspec

    store = atoll.store("memory://")
    for n in range(10_000):
        lamp = Lamp(name=f"m{n}", about="", since=0.0, nonce=f"{n * 7919 % 10_000:032d}")
        await store.transact(put(f"group/x/member/{lamp.nonce}", msgspec.json.encode(lamp)))
    group = Group(store, "x")
    assert await names(group) == [f"m{n}" for n in range(10_000)]
    async for members in group.watch():
        assert len(members) == 10_000
        break


async def test_scribble_in_a_members_key_is_passed_over() -> None:
    group = Group(atoll.store("memory://"), "x")
    await group.store.transact(put("group/x/member/zzz", b"scribble"))
    async with group.join("a") as mine:
        assert await names(group) == ["a"]
        with pytest.raises(ConfigurationError, match="one join for one block"):
            await mine.__aenter__()
