"""The tier in a file: it may forget, and never tells what was invalidated; not after a reboot either."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

import pytest

from atoll import clock
from atoll.engines.sqlite.tier import SqliteTier, TierOptions
from atoll.errors import FormatRefused
from atoll.ports.tier import Hit, Miss


class AnotherBoot(clock.RealClock):
    """The machine after a reboot."""

    @property
    def boot_id(self) -> str:
        return "another boot"


async def slip(tier: SqliteTier, key: str) -> str:
    found = (await tier.get_many([key]))[key]
    assert isinstance(found, Miss)
    return found.token


async def has(tier: SqliteTier, key: str) -> bool:
    return isinstance((await tier.get_many([key]))[key], Hit)


async def test_an_invalidation_in_another_process_wins_over_a_fill_here(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    async with SqliteTier(path) as tier:
        held, other = await slip(tier, "price"), await slip(tier, "stock")
        child = multiprocessing.get_context("spawn").Process(target=invalidate, args=(str(path), "price"))
        child.start()
        await asyncio.to_thread(child.join, 30)
        assert child.exitcode == 0
        assert not await tier.fill("price", held, b"stale", 30)
        assert await tier.fill("stock", other, b"copy", 30)
        assert await tier.fill("price", await slip(tier, "price"), b"new", 30)


def invalidate(path: str, key: str) -> None:
    async def body() -> None:
        async with SqliteTier(path) as tier:
            await tier.invalidate_many([key])

    asyncio.run(body())


async def test_after_a_reboot_no_copy_slip_or_counter_of_before_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    async with SqliteTier(path) as tier:
        assert await tier.fill("a", await slip(tier, "a"), b"copy", 3600)
        held = await slip(tier, "b")
        await tier.increment("n", 5, 3600)
    with clock.use(AnotherBoot()):
        async with SqliteTier(path) as tier:
            assert not await has(tier, "a")
            assert not await tier.fill("b", held, b"stale", 30)
            assert await tier.increment("n", 1, 30) == 1


async def test_what_is_read_stays_and_what_is_not_read_is_evicted(tmp_path: Path) -> None:
    async with SqliteTier(tmp_path / "cache.db", options=TierOptions(bytes_max=10_000)) as tier:
        for number in range(40):
            assert await tier.fill(f"k{number}", await slip(tier, f"k{number}"), b"x" * 900, 3600)
            assert await has(tier, "k0"), f"evicted though just read, at {number}"
        assert not await has(tier, "k5")
        assert await has(tier, "k39")


async def test_forgotten_invalidations_refuse_the_slips_as_old_as_they_are(tmp_path: Path) -> None:
    async with SqliteTier(tmp_path / "cache.db", options=TierOptions(entries_max=10)) as tier:
        held = await slip(tier, "price")
        await tier.invalidate_many(["price"])
        for number in range(40):
            await tier.invalidate_many([f"other{number}"])
        assert not await tier.fill("price", held, b"stale", 30)
        assert await tier.fill("price", await slip(tier, "price"), b"new", 30)


async def test_a_future_format_is_refused(tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "cache.db"
    async with SqliteTier(path):
        pass
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE atoll_format SET number = 99 WHERE part = 'tier'")
    connection.close()
    with pytest.raises(FormatRefused, match="99"):
        await SqliteTier(path).get_many(["a"])
