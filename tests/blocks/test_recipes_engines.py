"""Every recipe goes through on every store that is here, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from recipe_uses import NAME, RECIPES, left_behind
from recipe_weather import keys

import atoll
from atoll.blocks import Counter, ReadWriteLock, Semaphore
from atoll.ports.store import Store

OPTIONS = {"redis": "?prefix=recipes", "valkey": "?prefix=recipes"}
PRODUCTS = ["sqlite", "postgresql", "etcd", "redis", "zookeeper", "mysql", "raft"]
SETTINGS: dict[str, dict[str, Any]] = {"zookeeper": {"tick_ms": 200}, "raft": {"nodes": 3}}
KINDS = [
    "lock", "election", "semaphore", "read_write", "barrier", "double_barrier", "latch", "counter", "group",
    "config",
]  # fmt: skip


def opened(product: str, shared: Any, folder: Path) -> tuple[Store, Store]:
    """Two handles on one store."""
    if product == "sqlite":
        url = f"sqlite:///{folder}/state.db"
    else:
        url = shared(product, **SETTINGS.get(product, {})).url
    return tuple(atoll.store(f"{url}{OPTIONS.get(product, '')}") for _ in range(2))  # type: ignore[return-value]


async def mine(store: Store) -> list[str]:
    return [key for kind in KINDS for key in await keys(store, f"{kind}/{NAME}/")]


@pytest.mark.parametrize("product", PRODUCTS)
async def test_each_recipe_goes_through_on(product: str, shared: Any, tmp_path: Path) -> None:
    store, other = opened(product, shared, tmp_path)
    async with store, other, asyncio.timeout(90):
        for use in RECIPES.values():
            for _ in range(2):
                await use(store, other)
        while left_behind(await mine(store)):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_crowd_is_kept_apart_and_counted_on(product: str, shared: Any, tmp_path: Path) -> None:
    store, other = opened(product, shared, tmp_path)
    reading = writing = inside = 0

    async def one(n: int) -> None:
        nonlocal reading, writing, inside
        where = (store, other)[n % 2]
        async with Semaphore(where, NAME, permits=3):
            inside += 1
            await asyncio.sleep(0.005)
            assert inside <= 3
            inside -= 1
        lock = ReadWriteLock(where, NAME)
        if n % 3:
            async with lock.read():
                reading += 1
                await asyncio.sleep(0.002)
                assert writing == 0
                reading -= 1
        else:
            async with lock.write():
                writing += 1
                await asyncio.sleep(0.002)
                assert writing == 1 and reading == 0
                writing -= 1
        await Counter(where, f"{NAME} crowd").add(2)

    async with store, other, asyncio.timeout(90):
        before = await Counter(store, f"{NAME} crowd").get()
        await asyncio.gather(*[one(n) for n in range(18)])
        assert await Counter(other, f"{NAME} crowd").get() == before + 36
        async with Semaphore(store, NAME, permits=2), Semaphore(other, NAME, permits=2):
            with pytest.raises(atoll.Taken, match="all 2 permits of recipe are out"):
                async with Semaphore(store, NAME, permits=2, wait_s=0):
                    pass
        assert left_behind(await mine(store)) == []
