"""Conformance of a Tier: it may lose a copy, and must never keep a stale one.

`make()` gives a handle on a tier; the cases keep to keys of their own. Since a tier may forget at any
time, a missing copy is no violation unless it misses every time; a stale copy always is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from atoll import clock
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.tier import Hit, Miss, Tier
from atoll.verify.conformance import (
    Cases,
    NotTested,
    Violation,
    case,
    expect,
    expect_raises,
    place,
    sleep_until,
)

Make = Callable[[], Tier]
CASES: Cases = []
TRIES = 20
TTL_S = 30.0


async def look(tier: Tier, key: str) -> Hit | Miss:
    found = await tier.get_many([key])
    expect(set(found) == {key}, f"asked for {key!r}, told {sorted(found)}")
    return found[key]


async def slip(tier: Tier, key: str) -> str:
    """The claim slip of a miss; the copy must not be there."""
    found = await look(tier, key)
    if isinstance(found, Miss):
        return found.token
    raise Violation(f"{key!r} should not be there and is: {found}")


async def tried(attempt: Callable[[], Awaitable[bool]], sentence: str) -> None:
    """Once in TRIES must succeed: the tier may forget, but not always."""
    for _ in range(TRIES):
        if await attempt():
            return
    expect(False, f"{sentence}: not once in {TRIES} tries")


@case(CASES)
async def a_filled_copy_is_found(make: Make) -> None:
    async with make() as tier:

        async def attempt() -> bool:
            key, value = place(), b"\0\xff" + clock.unique_id().encode()
            if not await tier.fill(key, await slip(tier, key), value, TTL_S):
                return False
            found = await look(tier, key)
            if isinstance(found, Hit):
                expect(found.value == value, f"filled with {value!r}, found {found.value!r}")
                expect(0 <= found.age_s < 60, f"a copy just filled is {found.age_s} s old")
            return isinstance(found, Hit)

        await tried(attempt, "a copy just filled is found")


@case(CASES)
async def an_invalidation_wins_over_a_fill(make: Make) -> None:
    async with make() as tier:
        for filled_before in (False, True):
            key = place()
            token = await slip(tier, key)
            if filled_before:
                await tier.fill(key, token, b"old", TTL_S)
            await tier.invalidate_many([key])
            expect(isinstance(await look(tier, key), Miss), "an invalidated copy is still there")
            kept = await tier.fill(key, token, b"stale", TTL_S)
            expect(kept is False, "a slip written before the invalidation filled")
            expect(isinstance(await look(tier, key), Miss), "a stale copy is on the shelf")


@case(CASES)
async def a_slip_after_the_invalidation_fills(make: Make) -> None:
    async with make() as tier:

        async def attempt() -> bool:
            key = place()
            old = await slip(tier, key)
            await tier.invalidate_many([key])
            new = await slip(tier, key)
            expect(old != new, "the slip of before an invalidation was given again after it")
            filled = await tier.fill(key, new, b"new", TTL_S)
            expect(not await tier.fill(key, old, b"stale", TTL_S), "an old slip filled after a new one")
            found = await look(tier, key)
            expect(isinstance(found, Miss) or found.value == b"new", f"a stale copy is there: {found}")
            return filled and isinstance(found, Hit)

        await tried(attempt, "a new slip fills")


@case(CASES)
async def an_invalidation_reaches_many_and_only_those(make: Make) -> None:
    async with make() as tier:

        async def attempt() -> bool:
            at = place()
            keys = [f"{at}{number}" for number in range(6)]
            misses = await tier.get_many(keys)
            for key, found in misses.items():
                if isinstance(found, Miss):
                    await tier.fill(key, found.token, key.encode(), TTL_S)
            await tier.invalidate_many([*keys[:3], at + "never there"])
            left = await tier.get_many(keys)
            expect(all(isinstance(left[k], Miss) for k in keys[:3]), "an invalidated copy is there")
            return all(isinstance(left[k], Hit) for k in keys[3:])

        await tried(attempt, "copies beside the invalidated ones stay")


@case(CASES)
async def a_slip_is_for_one_key(make: Make) -> None:
    async with make() as tier:
        mine, other = place(), place()
        token = await slip(tier, mine)
        await slip(tier, other)
        expect(not await tier.fill(other, token, b"", TTL_S), "one key's slip filled another key")
        expect(not await tier.fill(mine, "made up", b"", TTL_S), "a slip never written filled")
        expect(not await tier.fill(place(), "", b"", TTL_S), "no slip at all filled")


@case(CASES)
async def a_copy_is_gone_after_its_time(make: Make) -> None:
    async with make() as tier:
        key = place()
        await tier.fill(key, await slip(tier, key), b"v", 0.1)
        filled = clock.lease_now()
        await sleep_until(filled + 0.1 + 0.05)
        expect(isinstance(await look(tier, key), Miss), "a copy outlived its ttl_s")
        await expect_raises(ConfigurationError, tier.fill(key, "x", b"", 0), "a ttl of 0 s")


@case(CASES)
async def versions_rise_with_each_fill(make: Make) -> None:
    async with make() as tier:
        key, versions = place(), [0]
        for number in range(TRIES):
            await tier.invalidate_many([key])
            await tier.fill(key, await slip(tier, key), b"%d" % number, TTL_S)
            found = await look(tier, key)
            if isinstance(found, Hit):
                expect(found.value == b"%d" % number, f"fill {number} shows {found}")
                expect(found.version > versions[-1], f"version {found.version} after {versions[-1]}")
                versions.append(found.version)
        expect(len(versions) > 2, "hardly a fill was kept, so nothing was tested")


@case(CASES)
async def many_loaders_never_leave_a_stale_copy(make: Make) -> None:
    async with make() as tier:
        key, original, hits = place(), 0, 0

        async def change() -> None:
            nonlocal original
            for _ in range(50):
                original += 1
                await tier.invalidate_many([key])
                await asyncio.sleep(0)

        async def load() -> None:
            nonlocal hits
            for _ in range(100):
                before = original
                found = await look(tier, key)
                if isinstance(found, Miss):
                    read = original
                    await asyncio.sleep(0)
                    await tier.fill(key, found.token, b"%d" % read, TTL_S)
                else:
                    hits += 1
                    expect(
                        int(found.value) >= before - 1, f"{found.value!r} is told after {before} was written"
                    )

        await asyncio.gather(change(), *(load() for _ in range(4)))
        found = await look(tier, key)
        expect(isinstance(found, Miss) or int(found.value) == original, f"at rest {found}; it is {original}")


@case(CASES)
async def the_limit_of_a_value_is_kept(make: Make) -> None:
    async with make() as tier:
        most, key = (await tier.open()).value_bytes_max, place()
        if most > 64 << 20:
            raise NotTested("its values may be larger than a test should make")
        long = tier.fill(key, await slip(tier, key), b"x" * (most + 1), TTL_S)
        await expect_raises(LimitReached, long, "a copy too long")
        expect(isinstance(await look(tier, key), Miss), "a copy too long was kept")


@case(CASES)
async def it_holds_no_more_than_it_claims(make: Make) -> None:
    async with make() as tier:
        claims, at = await tier.open(), place()
        if claims.bytes_max is None or claims.bytes_max > 10_000_000:
            raise NotTested("it holds more than a test should fill")
        size = min(claims.value_bytes_max, max(claims.bytes_max // 20, 1))
        keys = [f"{at}{number}" for number in range(2 * claims.bytes_max // size)]
        for key in keys:
            await tier.fill(key, await slip(tier, key), b"x" * size, TTL_S)
        found = await tier.get_many(keys)
        held = sum(len(hit.value) for hit in found.values() if isinstance(hit, Hit))
        expect(held <= claims.bytes_max, f"it claims {claims.bytes_max} bytes and holds {held}")


@case(CASES)
async def a_counter_counts_and_is_forgotten(make: Make) -> None:
    async with make() as tier:
        if not (await tier.open()).counts:
            raise NotTested("increment is not atomic")
        key = place()
        sums = await asyncio.gather(*(tier.increment(key, 2, TTL_S) for _ in range(20)))
        expect(sorted(sums) == list(range(2, 41, 2)), f"20 increments by 2 answered {sorted(sums)}")
        expect(await tier.increment(key, -5, TTL_S) == 35, "an increment by -5 did not subtract")
        expect(await tier.increment(place(), 1, TTL_S) == 1, "a new counter does not start at 0")
        short = place()
        await tier.increment(short, 1, 0.2)
        made = clock.lease_now()
        await asyncio.sleep(0.1)
        await tier.increment(short, 1, 0.2)
        await sleep_until(made + 0.2 + 0.05)
        expect(await tier.increment(short, 1, 0.2) == 1, "a counter outlived the ttl_s it was made with")


@case(CASES)
async def a_handle_is_inert_and_opens_by_itself(make: Make) -> None:
    tier = make()
    expect(tier.url and "://" in repr(tier), f"repr shows {tier!r}; expected the url in it")
    await look(tier, place())
    expect(await tier.open() == await tier.open(), "opening twice answers other claims")
    await tier.close()
    await tier.close()
    await look(tier, place())
    await tier.close()


@case(CASES)
async def a_handle_works_from_another_event_loop(make: Make) -> None:
    async with make() as tier:
        key = place()
        token = await slip(tier, key)
        await asyncio.to_thread(lambda: asyncio.run(tier.invalidate_many([key])))
        expect(not await tier.fill(key, token, b"", TTL_S), "another event loop's invalidation was lost")
