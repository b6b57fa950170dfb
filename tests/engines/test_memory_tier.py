"""The memory tier: what falls off the shelf, and which slips are forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll.urls
from atoll.engines.memory import MemoryTier, TierKnobs
from atoll.errors import LimitReached, OutcomeUnknown
from atoll.ports.tier import Hit, Miss
from atoll.verify import virtual_time


def tier(**knobs: Any) -> MemoryTier:
    return MemoryTier(knobs=TierKnobs(**knobs))


async def slip(of: Any, key: str) -> str:
    found = (await of.get_many([key]))[key]
    assert isinstance(found, Miss)
    return found.token


async def fill(of: Any, key: str, value: bytes = b"v") -> bool:
    return bool(await of.fill(key, await slip(of, key), value, 1000))


async def test_the_longest_unread_copy_falls_off_first() -> None:
    mine = tier(bytes_max=300)
    for key in ("a", "b"):
        assert await fill(mine, key, b"x" * 99)
    await mine.get_many(["a"])
    await fill(mine, "c", b"x" * 99)
    await fill(mine, "d", b"x" * 99)
    found = await mine.get_many(["a", "b", "c", "d"])
    assert {key for key, hit in found.items() if isinstance(hit, Hit)} == {"a", "c", "d"}
    assert mine.world.bytes == 300


async def test_a_copy_larger_than_the_shelf_is_refused() -> None:
    with pytest.raises(LimitReached):
        await fill(tier(bytes_max=50), "k", b"x" * 51)


def test_a_slip_kept_too_long_is_refused() -> None:
    async def body() -> None:
        mine = tier(token_ttl_s=10)
        token = await slip(mine, "k")
        await asyncio.sleep(11)
        assert not await mine.fill("k", token, b"", 60)

    virtual_time.run(body)


async def test_slips_beyond_their_bound_are_forgotten_and_refused() -> None:
    mine = tier(tokens_max=2)
    first = await slip(mine, "a")
    await mine.get_many(["b", "c"])
    assert not await mine.fill("a", first, b"", 60)
    assert len(mine.world.slips) == 2


async def test_counters_beyond_their_bound_are_forgotten() -> None:
    mine = tier(counters_max=2)
    for key, ttl_s in (("a", 9.0), ("b", 5.0), ("c", 7.0)):
        await mine.increment(key, 1, ttl_s)
    assert set(mine.world.counters) == {"a", "c"}


async def test_copies_filled_by_one_slip_twice_are_both_lawful() -> None:
    mine = tier()
    token = await slip(mine, "k")
    assert await mine.fill("k", token, b"1", 60) and await mine.fill("k", token, b"2", 60)
    hit = (await mine.get_many(["k"]))["k"]
    assert isinstance(hit, Hit) and hit.value == b"2"


async def test_it_forgets_as_often_as_the_knob_says() -> None:
    mine = tier(forget=0.5)
    hits = 0
    for number in range(200):
        await fill(mine, f"{number}")
        hits += isinstance((await mine.get_many([f"{number}"]))[f"{number}"], Hit)
    assert 50 < hits < 150


async def test_an_invalidation_whose_reply_is_lost_was_done() -> None:
    mine, weak = (atoll.urls.tier(f"memory://lost-invalidation{loss}") for loss in ("", "?reply_loss=1"))
    await fill(mine, "k")
    with pytest.raises(OutcomeUnknown):
        await weak.invalidate_many(["k"])
    assert isinstance((await mine.get_many(["k"]))["k"], Miss)
