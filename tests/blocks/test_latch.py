"""A latch opens when it was counted down, exactly, and stays open."""

from __future__ import annotations

import asyncio

import pytest
from recipe_weather import LONG, STORMS, WEAK

import atoll
from atoll import ConfigurationError, NotReady, NotSent, OutcomeUnknown
from atoll.blocks import Latch
from atoll.testing import Duplicated, ReplyLost, RequestLost, Weather, World, simulated, through


@pytest.mark.parametrize("storm", STORMS)
def test_it_opens_after_the_last_count_and_not_before_when(storm: str) -> None:
    @simulated(seeds=12 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        sure = perhaps = 0

        async def count() -> None:
            nonlocal sure, perhaps
            latch = Latch(world.store(knobs=WEAK), "x", count=6)
            while True:
                try:
                    await latch.count_down()
                    sure += 1
                    return
                except OutcomeUnknown:
                    perhaps += 1
                except NotSent:
                    pass

        async def wait() -> None:
            latch = Latch(world.store(knobs=WEAK), "x", count=6)
            while True:
                try:
                    await latch.wait()
                    break
                except (OutcomeUnknown, NotSent):
                    pass
            assert sure + perhaps + counting >= 6, "it opened too early"

        counting = 0
        waiting = [world.process(f"w{n}").run(wait()) for n in range(3)]
        for n in range(6):
            await asyncio.sleep(0.05)
            assert perhaps or not any(task.done() for task in waiting)
            counting = 1
            await world.process(f"p{n}").run(count())
            counting = 0
        async with asyncio.timeout(120):
            await asyncio.gather(*waiting)

    run()


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
async def test_a_count_whose_answer_is_lost_is_counted_once(fault: type) -> None:
    for nth in range(1, 4):
        store = atoll.store("memory://")
        latch = Latch(through(store, fault("transact", "get", nth=nth)), "x", count=3)
        assert [await latch.count_down() for _ in range(5)] == [2, 1, 0, 0, 0]
        await latch.wait(wait_s=0)


async def test_an_open_latch_stays_open_until_it_is_reset() -> None:
    latch = Latch(atoll.store("memory://"), "x", count=2)
    with pytest.raises(NotReady, match="2 of 2 are missing before x opens"):
        await latch.wait(wait_s=0)
    assert await latch.count_down(5) == 0
    await latch.wait(wait_s=0)
    await latch.reset()
    with pytest.raises(NotReady):
        await latch.wait(wait_s=0.02)
    assert await latch.left() == 2


async def test_who_waits_is_woken_by_the_last_count() -> None:
    store = atoll.store("memory://?observe=coalesced&observe_late_s=0.01")
    waiting = [asyncio.create_task(Latch(store, "x", count=2).wait(10)) for _ in range(20)]
    await asyncio.sleep(0)
    await Latch(store, "x", count=2).count_down()
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await Latch(store, "x", count=2).count_down()
    await asyncio.gather(*waiting)


async def test_the_same_latch_with_another_count_is_refused() -> None:
    store = atoll.store("memory://")
    await Latch(store, "x", count=2).count_down()
    for latch in (Latch(store, "x", count=3),):
        with pytest.raises(ConfigurationError, match="begun with count=2, found count=3"):
            await latch.count_down()
        with pytest.raises(ConfigurationError, match="reset"):
            await latch.wait()
    with pytest.raises(ConfigurationError, match="1 or more"):
        Latch(store, "x", count=0)
    with pytest.raises(ConfigurationError, match="1 or more"):
        await Latch(store, "x", count=2).count_down(0)


class Forgets(Latch):
    """Negative control: counts by presence; what a dead process counted is gone with its lease."""

    async def count_down(self, number: int = 1) -> int:
        assert self.store.leasing is not None
        lease = (await self.store.leasing.grant(5)).lease
        left = await self.left() - number
        text = f'{{"value":{left},"changes":1,"of":{self.count}}}'.encode()
        await self.store.transact(atoll.put(self._key, text, lease=lease))
        return left


@pytest.mark.parametrize(("kind", "opens"), [(Latch, True), (Forgets, False)])
def test_a_count_outlives_who_counted(kind: type[Latch], opens: bool) -> None:
    @simulated(seeds=3, weather=Weather())
    async def run(world: World) -> None:
        await world.process("a").run(kind(world.store(), "x", count=2).count_down())
        world.kill("a")
        await asyncio.sleep(30)
        await world.process("b").run(kind(world.store(), "x", count=2).count_down())
        assert (await Latch(world.store(), "x", count=2).left() == 0) is opens

    run()
