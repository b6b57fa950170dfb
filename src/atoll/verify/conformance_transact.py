"""Conformance of a Store's verbs: get, put_if, delete_if, transact, limits.

Every sentence of the port turned into a question, asked of the engine as a stranger would: by its
answers alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from atoll import clock
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Store, absent, created, delete, equals, put, unchanged
from atoll.verify.conformance import Cases, NotTested, case, expect, expect_raises, place

Make = Callable[[], Store]
CASES: Cases = []


def applied(answer: Applied | Unmet) -> Applied:
    """The answer of a transaction that must have happened."""
    expect(isinstance(answer, Applied), f"a transaction whose comparisons hold was not applied: {answer}")
    return cast(Applied, answer)


def unmet(answer: Applied | Unmet) -> Unmet:
    """The answer of a transaction that must not have happened."""
    expect(isinstance(answer, Unmet), f"a transaction was applied though a comparison fails: {answer}")
    return cast(Unmet, answer)


async def written(store: Store, key: str, value: bytes, *, lease: str | None = None) -> Entry:
    """Put without conditions; the entry as the store answers it."""
    answer = applied(await store.transact(put(key, value, lease=lease)))
    expect(len(answer.results) == 1 and answer.results[0], f"a put of {key!r} answered {answer.results}")
    return cast(Entry, answer.results[0])


async def room(store: Store, operations: int) -> None:
    """NotTested unless so many compares and operations fit into one transaction."""
    most = (await store.open()).operations_max
    if most < operations:
        raise NotTested(f"it needs {operations} compares and operations at once; operations_max is {most}")


async def fill(store: Store, prefix: str, count: int) -> list[str]:
    """`count` keys below `prefix`, in as few transactions as the claims allow."""
    keys = [f"{prefix}{number:06d}" for number in range(count)]
    step = min((await store.open()).operations_max, 1000)
    for at in range(0, count, step):
        applied(await store.transact(*(put(key, b"x") for key in keys[at : at + step])))
    return keys


@case(CASES)
async def a_put_answers_the_entry_as_it_stands(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        first = await written(store, key, b"1")
        expect(first == Entry(key, b"1", first.revision, first.revision), f"a first put answered {first}")
        second = await written(store, key, b"2")
        expect(second.revision > first.revision, "an overwrite did not raise the revision")
        expect(second.create_revision == first.create_revision, "an overwrite changed the create_revision")
        got = await store.get(key)
        expect(got.entry == second, f"get answered {got.entry} after {second} was written")
        expect(got.revision >= second.revision, "get answered a revision older than the write before it")


@case(CASES)
async def a_miss_carries_the_revision_too(make: Make) -> None:
    async with make() as store:
        at = place()
        entry = await written(store, at + "there", b"")
        got = await store.get(at + "missing")
        expect(got.entry is None, f"a key never written has {got.entry}")
        expect(got.revision >= entry.revision, "a miss answered a revision older than the write before it")


@case(CASES)
async def a_recreated_key_lives_a_new_life(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        first = await written(store, key, b"1")
        gone = applied(await store.transact(delete(key)))
        expect(gone.results == (first,), f"a delete answered {gone.results}, not the entry it removed")
        again = await written(store, key, b"1")
        expect(again.create_revision == again.revision, "a recreated key kept its old create_revision")
        expect(again.revision > gone.revision > first.revision, "the revisions do not rise")
        unmet(await store.transact(put(key, b"2"), compare=[created(key, first.create_revision)]))


@case(CASES)
async def put_if_and_delete_if_compare_the_revision(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        expect(isinstance(await store.delete_if(key, 7), Unmet), "delete_if removed a key that was not there")
        expect(isinstance(await store.put_if(key, b"1", 7), Unmet), "put_if wrote over a revision never seen")
        first = applied(await store.put_if(key, b"1", 0))
        refused = unmet(await store.put_if(key, b"2", 0))
        seen = refused.entries.get(key)
        expect(seen and seen.value == b"1", f"Unmet of put_if shows {refused.entries}")
        second = applied(await store.put_if(key, b"2", first.revision))
        unmet(await store.put_if(key, b"3", first.revision))
        unmet(await store.delete_if(key, first.revision))
        applied(await store.delete_if(key, second.revision))
        expect((await store.get(key)).entry is None, "delete_if left the key")


@case(CASES)
async def values_are_any_bytes(make: Make) -> None:
    async with make() as store:
        at, most = place(), min((await store.open()).value_bytes_max, 1 << 20)
        for value in (b"", b"\0", bytes(range(256)), b"\xff\xfe", b"'\"\\;%", b"v" * most):
            await written(store, at + "k", value)
            entry = (await store.get(at + "k")).entry
            expect(entry and entry.value == value, f"a value of {len(value)} bytes came back otherwise")


@case(CASES)
async def what_was_answered_is_there(make: Make) -> None:
    async with make() as store:
        at = place()
        for number in range(50):
            key = f"{at}{number}"
            entry = await written(store, key, b"v")
            got, ranged = await store.get(key), await store.range(key)
            expect(got.entry == entry, f"write {number} was answered and is not there: {got.entry}")
            expect(ranged.entries == (entry,), f"write {number} is missing from a range: {ranged.entries}")


@case(CASES)
async def nothing_is_written_twice_or_lost_by_many_writers(make: Make) -> None:
    async with make() as store:
        key = place() + "counter"

        async def add_ten() -> None:
            done = 0
            while done < 10:
                entry = (await store.get(key)).entry
                number = int(entry.value) if entry else 0
                answer = await store.put_if(key, b"%d" % (number + 1), entry.revision if entry else 0)
                done += isinstance(answer, Applied)

        await asyncio.gather(*(add_ten() for _ in range(8)))
        entry = (await store.get(key)).entry
        expect(entry and entry.value == b"80", f"80 compared increments left {entry}")


@case(CASES)
async def a_revision_names_one_transaction(make: Make) -> None:
    async with make() as store:
        at = place()
        answers = await asyncio.gather(*(store.transact(put(f"{at}{n}", b"")) for n in range(40)))
        revisions = [applied(answer).revision for answer in answers]
        expect(len(set(revisions)) == 40, f"40 transactions share revisions: {sorted(revisions)}")
        await room(store, 3)
        both = applied(await store.transact(put(at + "a", b""), put(at + "b", b""), delete(at + "0")))
        expect(both.revision > max(revisions), "a later transaction has no greater revision")
        shown = {entry.revision for entry in both.results[:2] if entry}
        expect(shown == {both.revision}, f"one transaction wrote at {shown}, and answered {both.revision}")


@case(CASES)
async def a_transaction_happens_whole_or_not_at_all(make: Make) -> None:
    async with make() as store:
        at = place()
        await room(store, 5)
        await written(store, at + "old", b"1")
        answer = unmet(
            await store.transact(
                put(at + "new", b""),
                delete(at + "old"),
                compare=[absent(at + "new"), equals(at + "old", b"2"), absent(at + "third")],
            )
        )
        expect(
            set(answer.entries) == {at + "new", at + "old", at + "third"},
            f"Unmet shows {sorted(answer.entries)}; expected every compared key",
        )
        old = answer.entries[at + "old"]
        expect(
            old and old.value == b"1" and answer.entries[at + "new"] is None, f"Unmet shows {answer.entries}"
        )
        left = (await store.range(at)).entries
        expect([entry.key for entry in left] == [at + "old"], f"a transaction not applied left {left}")


@case(CASES)
async def results_come_in_the_order_of_the_operations(make: Make) -> None:
    async with make() as store:
        at = place()
        await room(store, 3)
        old = await written(store, at + "z", b"old")
        answer = applied(await store.transact(delete(at + "z"), put(at + "b", b"1"), delete(at + "none")))
        expect(len(answer.results) == 3, f"three operations answered {answer.results}")
        removed, made, none = answer.results
        expect(removed == old and none is None, f"the deletes answered {removed} and {none}")
        expect(made == Entry(at + "b", b"1", answer.revision, answer.revision), f"the put answered {made}")


@case(CASES)
async def each_comparison_says_what_it_says(make: Make) -> None:
    async with make() as store:
        at = place()
        await room(store, 7)
        first = await written(store, at + "k", b"1")
        entry = await written(store, at + "k", b"2")
        true = [
            absent(at + "none"),
            unchanged(at + "k", entry.revision),
            created(at + "k", first.revision),
            equals(at + "k", b"2"),
            created(at + "none", 0),
        ]
        false = [
            absent(at + "k"),
            unchanged(at + "k", first.revision),
            unchanged(at + "none", entry.revision),
            created(at + "k", entry.revision),
            equals(at + "k", b"1"),
            equals(at + "none", b""),
        ]
        applied(await store.transact(compare=true))
        for comparison in false:
            expect(
                isinstance(await store.transact(put(at + "w", b""), compare=[*true, comparison]), Unmet),
                f"{comparison} holds of {entry}",
            )
        expect((await store.get(at + "w")).entry is None, "a failed comparison let the write through")


@case(CASES)
async def a_transaction_without_operations_only_looks(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        entry = await written(store, key, b"")
        looked = applied(await store.transact(compare=[unchanged(key, entry.revision)]))
        expect(looked.results == () and looked.revision >= entry.revision, f"looking answered {looked}")
        unmet(await store.transact(compare=[absent(key)]))
        expect((await store.get(key)).entry == entry, "looking changed the entry")


@case(CASES)
async def a_key_is_written_once_in_a_transaction(make: Make) -> None:
    async with make() as store:
        at = place()
        for pair in ([put(at, b"1"), put(at, b"2")], [put(at, b"1"), delete(at)]):
            await expect_raises(ConfigurationError, store.transact(*pair), "a key twice in one transaction")
        expect((await store.range(at)).entries == (), "a refused transaction wrote something")


@case(CASES)
async def a_request_id_makes_a_retry_exact(make: Make) -> None:
    async with make() as store:
        if (await store.open()).dedupe_window_s == 0:
            raise NotTested("dedupe_window_s is 0")
        at, id = place(), clock.unique_id()
        before = await store.transact(put(at + "k", b"1"), compare=[equals(at + "go", b"")], request_id=id)
        unmet(before)
        await written(store, at + "go", b"")
        first = applied(await store.transact(put(at + "k", b"1"), compare=[absent(at + "k")], request_id=id))
        expect(not first.replayed, "a request that was not applied before is answered as a replay")
        await written(store, at + "k", b"2")
        again = applied(await store.transact(put(at + "k", b"1"), compare=[absent(at + "k")], request_id=id))
        expect(again == Applied(first.revision, (), replayed=True), f"the retry of {first} answered {again}")
        entry = (await store.get(at + "k")).entry
        expect(entry and entry.value == b"2", f"a retry was applied a second time: {entry}")


@case(CASES)
async def one_request_id_at_once_is_applied_once(make: Make) -> None:
    async with make() as store:
        if (await store.open()).dedupe_window_s == 0:
            raise NotTested("dedupe_window_s is 0")
        key, id = place() + "k", clock.unique_id()
        answers = await asyncio.gather(*(store.transact(put(key, b"1"), request_id=id) for _ in range(5)))
        fresh = [answer for answer in answers if not applied(answer).replayed]
        expect(len(fresh) == 1, f"one request_id was applied {len(fresh)} times")
        expect(len({answer.revision for answer in answers}) == 1, f"its retries answered {answers}")


@case(CASES)
async def limits_are_kept_exactly(make: Make) -> None:
    async with make() as store:
        claims, at = await store.open(), place()
        key = at + "k" * (claims.key_bytes_max - len(at))
        await written(store, key, b"longest")
        await expect_raises(LimitReached, store.transact(put(key + "k", b"")), "a key too long")
        wide = at + "é" * ((claims.key_bytes_max - len(at)) // 2 + 1)
        await expect_raises(LimitReached, store.transact(put(wide, b"")), "a key too long in bytes")
        if claims.value_bytes_max <= 64 << 20:
            call = store.transact(put(at + "v", bytes(claims.value_bytes_max + 1)))
            await expect_raises(LimitReached, call, "a value too long")
        if claims.operations_max <= 100_000:
            many = [put(f"{at}{number}", b"") for number in range(claims.operations_max)]
            over = store.transact(*many, compare=[absent(at + "0")])
            await expect_raises(LimitReached, over, "too many compares and operations")
            expect((await store.get(at + "0")).entry is None, "a transaction over the limit wrote something")
            applied(await store.transact(*many))


@case(CASES)
async def an_empty_key_is_refused(make: Make) -> None:
    async with make() as store:
        await expect_raises(ConfigurationError, store.transact(put("", b"")), "an empty key")


@case(CASES)
async def the_epoch_is_one_or_more(make: Make) -> None:
    async with make() as store:
        expect(await store.epoch() >= 1, "the epoch is below 1")


@case(CASES)
async def a_handle_is_inert_and_opens_by_itself(make: Make) -> None:
    store = make()
    expect(store.url and "://" in repr(store), f"repr shows {store!r}; expected the url in it")
    key = place() + "k"
    entry = await written(store, key, b"")
    expect(await store.open() == await store.open(), "opening twice answers other claims")
    await store.close()
    await store.close()
    expect(isinstance((await store.get(key)).revision, int), f"{entry} was written; after close, get fails")
    await store.close()


@case(CASES)
async def a_handle_works_from_another_event_loop(make: Make) -> None:
    async with make() as store:
        at = place()
        mine = await written(store, at + "mine", b"")

        async def there() -> Entry:
            expect((await store.get(at + "mine")).entry == mine, "another event loop does not see a write")
            return await written(store, at + "theirs", b"")

        theirs = await asyncio.to_thread(lambda: asyncio.run(there()))
        expect(
            (await store.get(at + "theirs")).entry == theirs, "a write from another event loop is not seen"
        )
