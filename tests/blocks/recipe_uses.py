"""One whole use of each recipe, in a crowd: what the tests of all recipes drive, on any store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from atoll import Election, Lock, Term
from atoll.blocks import (
    Barrier,
    Config,
    Counter,
    DoubleBarrier,
    Group,
    Latch,
    ReadWriteLock,
    Semaphore,
)
from atoll.ports.store import Store

NAME = "recipe"

Use = Callable[[Store, Store], Awaitable[None]]
"""One whole use of a recipe through the first store, in a crowd through the second, which is sound."""


async def crowded(use: Callable[[], Awaitable[object]], *others: Awaitable[object]) -> None:
    """`use` while the others are under way; they are ended with it."""
    tasks = [asyncio.ensure_future(other) for other in others]
    try:
        await asyncio.sleep(0.01)
        await use()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))


async def lock(store: Store, sound: Store) -> None:
    async def hold() -> None:
        async with Lock(sound, NAME):
            await asyncio.sleep(0.05)

    async def use() -> None:
        async with Lock(store, NAME, reentrant=True), Lock(store, NAME, reentrant=True):
            await asyncio.sleep(0)

    await crowded(use, hold())


async def semaphore(store: Store, sound: Store) -> None:
    async def hold() -> None:
        async with Semaphore(sound, NAME, permits=2):
            await asyncio.sleep(0.05)

    async def use() -> None:
        async with Semaphore(store, NAME, permits=2) as permit:
            permit.check()

    await crowded(use, hold(), hold(), hold())


async def reading(store: Store, sound: Store) -> None:
    async def hold() -> None:
        async with ReadWriteLock(sound, NAME).write():
            await asyncio.sleep(0.05)

    async def use() -> None:
        async with ReadWriteLock(store, NAME).read() as held:
            held.check()

    await crowded(use, hold())


async def writing(store: Store, sound: Store) -> None:
    async def hold() -> None:
        async with ReadWriteLock(sound, NAME).read():
            await asyncio.sleep(0.05)

    async def use() -> None:
        async with ReadWriteLock(store, NAME).write() as held:
            held.check()

    await crowded(use, hold(), hold())


async def barrier(store: Store, sound: Store) -> None:
    async def others() -> None:
        while True:
            await Barrier(sound, NAME, parties=2).wait()

    await crowded(Barrier(store, NAME, parties=2).wait, others())


async def double_barrier(store: Store, sound: Store) -> None:
    async def others() -> None:
        while True:
            async with DoubleBarrier(sound, NAME, parties=2):
                await asyncio.sleep(0)

    async def use() -> None:
        async with DoubleBarrier(store, NAME, parties=2):
            await asyncio.sleep(0)

    await crowded(use, others())


async def latch(store: Store, sound: Store) -> None:
    async def other() -> None:
        await asyncio.sleep(0.05)
        await Latch(sound, NAME, count=2).count_down()

    async def use() -> None:
        mine = Latch(store, NAME, count=2)
        await mine.count_down()
        await mine.wait()

    await Latch(sound, NAME, count=2).reset()
    await crowded(use, other())


async def counter(store: Store, sound: Store) -> None:
    before = await Counter(sound, NAME).get()
    assert await Counter(store, NAME).add(5) >= before + 5


async def group(store: Store, sound: Store) -> None:
    async with Group(store, NAME).join("me"):
        assert "me" in [member.name for member in await Group(sound, NAME).members()]


async def config(store: Store, sound: Store) -> None:
    mine = Config(store, NAME, int, versions_max=3)
    number = await mine.set(7)
    await mine.roll_back(number)
    async for value in mine.watch():
        assert value == 7
        break


async def election(store: Store, sound: Store) -> None:
    async def serve(term: Term) -> None:
        leader = await Election(store, NAME).leader()
        assert leader is not None
        await (term.hand_over("other") if leader.waiting else term.resign())

    async def other(term: Term) -> None:
        await asyncio.sleep(0.05)

    async def campaign() -> None:
        while True:
            await Election(sound, NAME, owner="other").lead(other)

    await crowded(lambda: Election(store, NAME, owner="mine").lead(serve), campaign())


RECIPES: dict[str, Use] = {
    "lock": lock,
    "semaphore": semaphore,
    "reading": reading,
    "writing": writing,
    "barrier": barrier,
    "double_barrier": double_barrier,
    "latch": latch,
    "counter": counter,
    "group": group,
    "config": config,
    "election": election,
}
STAYS = {
    "lock/recipe/line", "election/recipe/line", "election/recipe/heir", "latch/recipe/left",
    "barrier/recipe/came", "barrier/recipe/generation", "double_barrier/recipe/came",
    "double_barrier/recipe/generation", "counter/recipe/value", "config/recipe/current",
}  # fmt: skip
"""Written for good, or a sign that the next one takes down."""


def left_behind(there: list[str]) -> list[str]:
    return [key for key in there if key not in STAYS and not key.startswith("config/recipe/version/")]
