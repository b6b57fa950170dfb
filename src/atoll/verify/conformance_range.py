"""Conformance of a Store's ranges: order, edges, pages, one snapshot.

A dictionary whose pages you count, whose order you check letter by letter, and which somebody keeps
rewriting while you read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from atoll.errors import ConfigurationError
from atoll.ports.store import Store, put
from atoll.verify.conformance import Cases, case, expect, expect_raises, place
from atoll.verify.conformance_transact import applied, fill, written

Make = Callable[[], Store]
CASES: Cases = []

# One key each, as words; then what words cannot hold.
TRICKY = (
    *"a A a/b a/b/c a-b a0 aa ab b B z Z ~ % _ * ? [a] \\ ' é e\u0301 ß ss ı i I Ä ñ 漢 😀".split(),
    *("a ", " a", "\x7f", "\t", '"', "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff"),
    *("\U00010000", "\U0010ffff"),
)


@case(CASES)
async def keys_are_ordered_bytewise_and_none_are_confused(make: Make) -> None:
    async with make() as store:
        at = place()
        for key in TRICKY:
            await written(store, at + key, key.encode())
        ranged = await store.range(at)
        found = [entry.key.removeprefix(at) for entry in ranged.entries]
        expect(set(found) == set(TRICKY), f"keys were confused: {set(TRICKY) ^ set(found)}")
        expect(found == sorted(TRICKY, key=str.encode), f"not in bytewise order: {found}")
        expect(
            all(e.value.decode() == e.key.removeprefix(at) for e in ranged.entries), "values were confused"
        )


@case(CASES)
async def a_prefix_means_itself(make: Make) -> None:
    async with make() as store:
        at = place()
        for key in TRICKY:
            await written(store, at + key, b"")
        for prefix in TRICKY:
            found = [entry.key.removeprefix(at) for entry in (await store.range(at + prefix)).entries]
            mine = sorted((key for key in TRICKY if key.startswith(prefix)), key=str.encode)
            expect(found == mine, f"the prefix {prefix!r} found {found}; expected {mine}")


@case(CASES)
async def a_range_includes_its_start_and_not_its_end(make: Make) -> None:
    async with make() as store:
        at = place()
        for key in "abcd":
            await written(store, at + key, b"")
        for start, end, mine in (
            ("b", "d", "bc"),
            ("aa", "c", "b"),
            ("b", "b", ""),
            ("c", "a", ""),
            ("d", "z", "d"),
        ):
            found = (await store.range(start=at + start, end=at + end)).entries
            names = "".join(entry.key.removeprefix(at) for entry in found)
            expect(names == mine, f"{start!r} <= key < {end!r} found {names!r}; expected {mine!r}")


@case(CASES)
async def pages_join_without_a_gap(make: Make) -> None:
    async with make() as store:
        at = place()
        keys = await fill(store, at, 25)
        whole = await store.range(at, limit=25)
        expect(
            [e.key for e in whole.entries] == keys and not whole.more, f"limit 25 of 25: more={whole.more}"
        )
        expect((await store.range(at, limit=24)).more, "limit 24 of 25 says there is no more")
        found: list[str] = []
        start = at
        while True:
            page = await store.range(start=start, end=at + "\U0010ffff", limit=10)
            expect(len(page.entries) <= 10, f"limit 10 answered {len(page.entries)} entries")
            found += [entry.key for entry in page.entries]
            if not page.more:
                break
            start = page.entries[-1].key + "\0"
        expect(found == keys, f"three pages gave {len(found)} of 25 keys")
        await expect_raises(ConfigurationError, store.range(at, limit=0), "a limit of 0")


@case(CASES)
async def ten_thousand_children_are_listed(make: Make) -> None:
    async with make() as store:
        at = place()
        keys = await fill(store, at, 10_000)
        ranged = await store.range(at, limit=10_000)
        expect(
            [entry.key for entry in ranged.entries] == keys, f"{len(ranged.entries)} of 10,000 were listed"
        )
        expect(not ranged.more, "the list is whole and says there is more")
        expect((await store.range(at)).more, "the default limit of 1000 does not say that there is more")


@case(CASES)
async def a_range_is_one_snapshot(make: Make) -> None:
    async with make() as store:
        at = place()
        await fill(store, at + "m/", 300)
        first, last = at + "a", at + "z"
        start = applied(await store.transact(put(first, b"0"), put(last, b"0"))).revision
        done = False

        async def keep_writing() -> None:
            number = 0
            while not done:
                number += 1
                applied(await store.transact(put(first, b"%d" % number), put(last, b"%d" % number)))

        writer = asyncio.create_task(keep_writing())
        try:
            newest = 0
            for looked in range(4000):
                if looked >= 40 and newest > start:
                    break  # a slow disk may need more looks until a write has happened beside them
                ranged = await store.range(at)
                ends = (ranged.entries[0], ranged.entries[-1])
                expect(ends[0].value == ends[1].value, f"a range is torn: it shows {ends}")
                expect(
                    max(e.revision for e in ranged.entries) <= ranged.revision,
                    f"newer than its revision: {ends}",
                )
                expect(ranged.revision >= newest, "a later range is of an older revision")
                newest = ranged.revision
        finally:
            done = True
            await writer
        expect(ranged.entries[0].value != b"0", "no write happened beside the ranges, so nothing was tested")


@case(CASES)
async def an_empty_range_carries_the_revision(make: Make) -> None:
    async with make() as store:
        entry = await written(store, place() + "k", b"")
        ranged = await store.range(place())
        expect(ranged.entries == () and not ranged.more, f"an empty prefix holds {ranged.entries}")
        expect(ranged.revision >= entry.revision, "an empty range is older than the write before it")
