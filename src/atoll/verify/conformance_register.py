"""Conformance of a Register: one key at a time, compared and set, and told to whoever watches.

The smaller driving test. Every store takes it too, because every store is a register.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from atoll.errors import AtollError, ConfigurationError, LimitReached
from atoll.ports.register import ABSENT, Applied, Entry, Register, Unmet
from atoll.verify.conformance import Cases, case, expect, expect_raises, following, place, reading
from atoll.verify.conformance_observe import Picture

Make = Callable[[], Register]
CASES: Cases = []
ODD = ("a//b", "x y", "z.ü=*>", "q/", "/r", "ключ", "100%")


async def kept(register: Register, key: str, value: bytes, revision: int = ABSENT) -> Entry:
    """Write where the comparison holds; the entry as it is answered."""
    answer = await register.put_if(key, value, revision)
    expect(isinstance(answer, Applied), f"put_if of {key!r} at its own revision {revision} answered {answer}")
    entry = cast(Applied, answer).results[0]
    expect(entry is not None and entry.value == value and entry.key == key, f"it answered {entry}")
    return cast(Entry, entry)


@case(CASES)
async def a_put_compares_the_revision(make: Make) -> None:
    async with make() as register:
        key = place() + "k"
        entry = await kept(register, key, b"1")
        expect((await register.get(key)).entry == entry, "get shows another entry than put_if answered")
        refused = await register.put_if(key, b"2", ABSENT)
        expect(isinstance(refused, Unmet), f"a key that is there was created again: {refused}")
        expect(cast(Unmet, refused).entries[key] == entry, f"Unmet does not show the entry: {refused}")
        later = await kept(register, key, b"2", entry.revision)
        expect(later.revision > entry.revision, "the revision did not rise")
        expect(later.create_revision == entry.create_revision, "an overwrite began a new life")
        stale = await register.put_if(key, b"3", entry.revision)
        expect(isinstance(stale, Unmet), f"an old revision overwrote a newer value: {stale}")


@case(CASES)
async def a_delete_compares_the_revision(make: Make) -> None:
    async with make() as register:
        key = place() + "k"
        entry = await kept(register, key, b"1")
        expect(
            isinstance(await register.delete_if(key, entry.revision + 1), Unmet), "a wrong revision removed"
        )
        gone = await register.delete_if(key, entry.revision)
        expect(isinstance(gone, Applied) and gone.results == (entry,), f"it answered {gone}, not the entry")
        expect((await register.get(key)).entry is None, "a removed key is still there")
        expect(isinstance(await register.delete_if(key, entry.revision), Unmet), "it was removed twice")
        again = await kept(register, key, b"2")
        expect(again.create_revision > entry.create_revision, "a new life has the old create_revision")


@case(CASES)
async def a_miss_carries_a_revision(make: Make) -> None:
    async with make() as register:
        at = place()
        entry = await kept(register, at + "a", b"1")
        miss = await register.get(at + "b")
        expect(miss.entry is None, f"a key that never was is {miss.entry}")
        expect(
            miss.revision >= entry.revision, f"a miss at {miss.revision}, after a write at {entry.revision}"
        )


@case(CASES)
async def odd_keys_and_values_are_kept_as_they_are(make: Make) -> None:
    async with make() as register:
        at = place()
        for number, odd in enumerate(ODD):
            value = bytes([number, 0, 255]) * 3
            entry = await kept(register, at + odd, value)
            expect((await register.get(at + odd)).entry == entry, f"{odd!r} was not read back equal")
        await kept(register, at + "empty", b"")


@case(CASES)
async def one_of_many_creators_wins(make: Make) -> None:
    async with make() as register:
        key = place() + "k"
        answers = await asyncio.gather(*(register.put_if(key, b"%d" % n, ABSENT) for n in range(12)))
        won = [answer for answer in answers if isinstance(answer, Applied)]
        expect(len(won) == 1, f"{len(won)} of 12 created the same key")
        expect(
            (await register.get(key)).entry == won[0].results[0], "it holds another value than the winner's"
        )


@case(CASES)
async def no_addition_of_many_is_lost(make: Make) -> None:
    async with make() as register:
        key = place() + "sum"
        await kept(register, key, b"0")

        async def add() -> None:
            while True:
                entry = (await register.get(key)).entry
                assert entry is not None
                value = b"%d" % (int(entry.value) + 1)
                if isinstance(await register.put_if(key, value, entry.revision), Applied):
                    return

        await asyncio.gather(*(add() for _ in range(8)))
        entry = (await register.get(key)).entry
        expect(entry is not None and entry.value == b"8", f"8 were added, it shows {entry}")


@case(CASES)
async def an_observer_sees_the_state_and_then_the_changes(make: Make) -> None:
    async with make() as register:
        at = place()
        first = await kept(register, at + "a", b"1")
        await kept(register, place() + "other", b"1")
        async with reading(register.observe(at)) as items:
            picture = Picture(items)
            item = await picture.step("the first observation")
            expect(item.reset and item.changed == (first,), f"the first observation is {item}")
            entry = await kept(register, at + "k", b"1")
            await picture.until(lambda known: known.get(at + "k") == entry, "a new key")
            entry = await kept(register, at + "k", b"2", entry.revision)
            await picture.until(lambda known: known.get(at + "k") == entry, "an overwrite")
            await register.delete_if(at + "k", entry.revision)
            await picture.until(lambda known: at + "k" not in known, "a removal")
            entry = await kept(register, at + "k", b"3")
            await picture.until(lambda known: known.get(at + "k") == entry, "a new life")
            expect(all(key.startswith(at) for key in picture.known), f"it shows {sorted(picture.known)}")


@case(CASES)
async def an_observer_of_nothing_is_told_so_at_once(make: Make) -> None:
    async with make() as register, reading(register.observe(place())) as items:
        first = await following(items, "the first observation of nothing")
        expect(first.reset and first.changed == (), f"observing nothing shows {first}")


@case(CASES)
async def a_prefix_may_end_within_a_name(make: Make) -> None:
    async with make() as register:
        at = place()
        await kept(register, at + "order/11", b"1")
        await kept(register, at + "order/2", b"2")
        async with reading(register.observe(at + "order/1")) as items:
            first = await following(items, "the first observation")
            expect([e.key for e in first.changed] == [at + "order/11"], f"it shows {first.changed}")


@case(CASES)
async def limits_are_said(make: Make) -> None:
    async with make() as register:
        claims = await register.open()
        at = place()
        long = at + "k" * claims.key_bytes_max
        await expect_raises(LimitReached, register.put_if(long, b"", ABSENT), "a key over the limit")
        big = b"x" * (claims.value_bytes_max + 1)
        await expect_raises(LimitReached, register.put_if(at + "v", big, ABSENT), "a value over the limit")
        await expect_raises(ConfigurationError, register.get(""), "an empty key")
        await kept(register, at + "most", b"x" * min(claims.value_bytes_max, 1 << 20))


@case(CASES)
async def a_closed_handle_ends_its_watch_and_opens_again(make: Make) -> None:
    register = make()
    try:
        async with reading(register.observe(place())) as items:
            await following(items, "the first observation")
            waiting = asyncio.ensure_future(following(items, "the end of the watch"))
            await asyncio.sleep(0)
            await register.close()
            await expect_raises(AtollError, waiting, "a watch on a closed handle")
        await kept(register, place() + "k", b"1")
    finally:
        await register.close()
