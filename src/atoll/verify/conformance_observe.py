"""Conformance of a Store's news: `observe`, and `history` where there is one.

Two people in front of one board: one writes, the other reports. The report may skip, if it says so in
its claims; it may never end up with another picture than the board.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping

from atoll import clock
from atoll.errors import Compacted, EpochChanged
from atoll.ports.register import Entry, Observation
from atoll.ports.store import Bookmark, Change, History, Observing, Store, delete, put
from atoll.verify.conformance import Cases, NotTested, case, expect, expect_raises, following, place, reading
from atoll.verify.conformance_transact import applied, written

Make = Callable[[], Store]
CASES: Cases = []


class Picture:
    """What an observer knows, kept by the rules of the port."""

    def __init__(self, observations: AsyncIterator[Observation]) -> None:
        self.observations = observations
        self.known: dict[str, Entry] = {}
        self.revision = -1
        self.items: list[Observation] = []

    async def step(self, sentence: str) -> Observation:
        item = await following(self.observations, sentence)
        first = self.revision < 0
        expect(item.reset or not first, f"the first observation is no reset: {item}")
        expect(item.revision >= self.revision, f"revision {item.revision} was told after {self.revision}")
        if item.reset:
            self.known.clear()
        self.known.update({entry.key: entry for entry in item.changed})
        for key in item.removed:
            self.known.pop(key, None)
        self.revision = item.revision
        self.items.append(item)
        return item

    async def until(self, wanted: Callable[[Mapping[str, Entry]], bool], sentence: str) -> None:
        while not wanted(self.known):
            await self.step(sentence)


@case(CASES)
async def the_first_observation_is_the_whole_state(make: Make) -> None:
    async with make() as store:
        at = place()
        mine = [await written(store, at + name, b"1") for name in "ab"]
        await written(store, place() + "other", b"1")
        async with reading(store.observe(at)) as items:
            first = await following(items, "the first observation")
            expect(first.reset and first.removed == (), f"the first observation is {first}")
            expect(
                sorted(first.changed, key=lambda e: e.key) == mine, f"it shows {first.changed}, not {mine}"
            )
            expect(first.revision >= mine[-1].revision, "it is older than what was answered before")
        async with reading(store.observe(place())) as items:
            empty = await following(items, "the first observation of nothing")
            expect(empty.reset and empty.changed == (), f"observing nothing shows {empty}")


@case(CASES)
async def an_observer_sees_puts_overwrites_and_deletes(make: Make) -> None:
    async with make() as store:
        at = place()
        async with reading(store.observe(at)) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            entry = await written(store, at + "k", b"1")
            await picture.until(lambda known: known.get(at + "k") == entry, "a put")
            again = await written(store, at + "k", b"2")
            await picture.until(lambda known: known.get(at + "k") == again, "an overwrite")
            applied(await store.transact(delete(at + "k")))
            await picture.until(lambda known: not known, "a delete")


@case(CASES)
async def an_observer_hears_of_its_prefix_only(make: Make) -> None:
    async with make() as store:
        at = place()
        async with reading(store.observe(at + "a/")) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            applied(await store.transact(put(at + "a", b""), put(at + "a0", b""), put(at + "b/1", b"")))
            applied(await store.transact(put(at + "a/1", b""), put(at + "b/2", b"")))
            await picture.until(lambda known: at + "a/1" in known, "a put below the prefix")
            expect(set(picture.known) == {at + "a/1"}, f"below a/ it saw {sorted(picture.known)}")


@case(CASES)
async def an_observed_key_is_itself_and_all_below(make: Make) -> None:
    async with make() as store:
        at = place()
        async with reading(store.observe(at + "k")) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            await written(store, at + "k", b"")
            await picture.until(lambda known: at + "k" in known, "the observed key itself")


@case(CASES)
async def a_key_recreated_shows_its_new_life(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        old = await written(store, key, b"same")
        async with reading(store.observe(key)) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            applied(await store.transact(delete(key)))
            new = await written(store, key, b"same")
            expect(new.create_revision > old.create_revision, f"{new} lives on as {old}")
            await picture.until(
                lambda known: key in known and known[key].create_revision == new.create_revision,
                "the new life",
            )


@case(CASES)
async def an_observer_ends_up_with_the_picture_that_is_there(make: Make) -> None:
    async with make() as store:
        at, dice = place(), random.Random(7)
        async with reading(store.observe(at)) as items:
            picture = Picture(items)
            await picture.step("the first observation")

            async def write() -> None:
                for number in range(60):
                    keys = dice.sample("abcdefgh", dice.randint(1, 3))
                    await store.transact(
                        *(
                            put(at + k, b"%d" % number) if dice.random() < 0.6 else delete(at + k)
                            for k in keys
                        )
                    )
                await written(store, at + "zzz", b"end")

            await asyncio.gather(
                write(), picture.until(lambda known: at + "zzz" in known, "the last write of many")
            )
        there = {entry.key: entry for entry in (await store.range(at)).entries}
        expect(picture.known == there, f"it shows {picture.known}; there is {there}")


@case(CASES)
async def a_prompt_observer_hears_every_transaction_whole(make: Make) -> None:
    async with make() as store:
        if (await store.open()).observe is not Observing.PROMPT:
            raise NotTested("news may be coalesced")
        at = place()
        async with reading(store.observe(at)) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            revisions = []
            for number in range(10):
                pair = [put(at + "a", b"%d" % number), put(at + "b", b"%d" % number)]
                revisions.append(applied(await store.transact(*pair)).revision)
            revisions.append(applied(await store.transact(delete(at + "a"), delete(at + "b"))).revision)
            await picture.until(
                lambda known: not known and picture.revision >= revisions[-1], "the last delete"
            )
            told = [item for item in picture.items[1:] if not item.reset]
            expect([i.revision for i in told] == revisions, f"{revisions} happened; told were {told}")
            expect(
                all(len(item.changed) == 2 for item in told[:-1]), f"a transaction was told in parts: {told}"
            )
            expect(
                set(told[-1].removed) == {at + "a", at + "b"}, f"two deletes at once were told as {told[-1]}"
            )


@case(CASES)
async def many_observers_hear_the_same(make: Make) -> None:
    async with make() as store:
        at = place()

        async def watch() -> dict[str, Entry]:
            async with reading(store.observe(at)) as items:
                picture = Picture(items)
                await picture.until(lambda known: at + "end" in known, "the last write")
                return picture.known

        watching = [asyncio.create_task(watch()) for _ in range(10)]
        for number in range(10):
            await written(store, f"{at}{number}", b"")
        await written(store, at + "end", b"")
        pictures = await asyncio.gather(*watching)
        expect(
            all(len(known) == 11 for known in pictures), f"they saw {[len(k) for k in pictures]} of 11 keys"
        )


def historic(store: Store) -> History:
    """The ability, or NotTested."""
    if store.history is None:
        raise NotTested("there is no history")
    return store.history


async def told(items: AsyncIterator[Change], until: int) -> list[Change]:
    """The changes up to revision `until`, bookmarks left out."""
    found: list[Change] = []
    while True:
        change = await following(items, f"the change of revision {until}")
        if change.changed or change.removed:
            found.append(change)
        if change.at.revision >= until:
            return found


@case(CASES)
async def changes_are_one_item_per_transaction(make: Make) -> None:
    async with make() as store:
        history, at = historic(store), place()
        start = await history.now()
        first = applied(await store.transact(put(at + "a", b"1"), put(at + "b", b"1")))
        await written(store, place() + "other", b"")
        second = applied(await store.transact(delete(at + "a"), put(at + "b", b"2"), put(at + "c", b"1")))
        third = applied(await store.transact(delete(at + "b"), delete(at + "c")))
        async with reading(history.changes(at, start)) as items:
            past = await told(items, third.revision)
            expect(
                [c.at.revision for c in past] == [first.revision, second.revision, third.revision], f"{past}"
            )
            expect(past[0].changed == first.results and past[0].removed == (), f"the first is {past[0]}")
            expect(past[1].changed == second.results[1:] and past[1].removed == (at + "a",), f"{past[1]}")
            expect(past[2].changed == () and set(past[2].removed) == {at + "b", at + "c"}, f"{past[2]}")
            live = await written(store, at + "live", b"")
            found = await told(items, live.revision)
            expect(len(found) == 1 and found[0].changed == (live,), f"as it happens it told {found}")
        async with reading(history.changes(at, past[0].at)) as items:
            later = await told(items, third.revision)
            expect([c.at for c in later] == [c.at for c in past[1:]], f"after {past[0].at} it told {later}")


@case(CASES)
async def no_change_is_skipped_among_many(make: Make) -> None:
    async with make() as store:
        history, at = historic(store), place()
        start = await history.now()
        last = 0

        async def write(name: str) -> None:
            nonlocal last
            for number in range(50):
                entry = await written(store, at + name, b"%d" % number)
                last = max(last, entry.revision)

        await asyncio.gather(*(write(name) for name in "abc"))
        try:
            async with reading(history.changes(at, start)) as items:
                found = await told(items, last)
        except Compacted as reason:
            raise NotTested("its history is shorter than 150 transactions") from reason
        expect(len(found) == 150, f"150 transactions were told as {len(found)} changes")
        for name in "abc":
            seen = [int(e.value) for c in found for e in c.changed if e.key == at + name]
            expect(seen == list(range(50)), f"the writes to {name} were told as {seen}")


@case(CASES)
async def an_old_bookmark_is_compacted_or_complete(make: Make) -> None:
    async with make() as store:
        history, at = historic(store), place()
        for number in range(30):
            last = await written(store, at + "k", b"%d" % number)
        epoch = await store.epoch()
        try:
            async with reading(history.changes(at, Bookmark(epoch, 0))) as items:
                found = await told(items, last.revision)
            expect(len(found) == 30, f"from the beginning, 30 transactions were told as {len(found)}")
        except Compacted as error:
            expect(error.oldest > 1, f"compacted, though the oldest kept is {error.oldest}")
            async with reading(history.changes(at, Bookmark(epoch, error.oldest - 1))) as items:
                await told(items, last.revision)


@case(CASES)
async def a_bookmark_of_another_epoch_is_refused(make: Make) -> None:
    async with make() as store:
        history, at = historic(store), place()
        now = await history.now()
        expect(now.epoch == await store.epoch(), f"a bookmark {now} is not of the store's epoch")
        async with reading(history.changes(at, Bookmark(now.epoch + 1, now.revision))) as items:
            await expect_raises(EpochChanged, anext(items), "a bookmark of another epoch")


@case(CASES)
async def an_idle_observation_is_not_lost(make: Make) -> None:
    async with make() as store:
        if (await store.open()).liveness_s > 2:
            raise NotTested("its liveness_s is longer than a test should wait")
        at = place()
        async with reading(store.observe(at)) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            waiting = asyncio.create_task(picture.step("news after a silence"))
            await asyncio.wait([waiting], timeout=(await store.open()).liveness_s * 1.5)
            await written(store, f"{at}{clock.unique_id()}", b"")
            await waiting
