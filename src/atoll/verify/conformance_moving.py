"""Conformance of what moves a store: the note that stops writers, the epoch that rises, what is said of it.

A removal firm's test: the old flat is locked before the first box is carried, and the new one's numbers go on
above the old one's. An engine without `moving` or `examining` is set aside, never counted as passed.

The cases freeze and bump the whole store: run them on one that nobody else uses at the time.
"""

from __future__ import annotations

from atoll.errors import AtollError, EpochChanged, ReadOnly, Refused
from atoll.ports.examining import Weight
from atoll.ports.store import Moving, Store, Token, absent, put
from atoll.verify.conformance import (
    Cases,
    NotTested,
    case,
    eventually,
    expect,
    expect_raises,
    following,
    place,
    reading,
)
from atoll.verify.conformance_guard import Held
from atoll.verify.conformance_lease import leasing
from atoll.verify.conformance_transact import Make, applied, unmet, written

CASES: Cases = []


def moving(store: Store) -> Moving:
    """The ability, or the reason why the case says nothing."""
    if store.moving is None:
        raise NotTested("the store cannot be moved")
    return store.moving


@case(CASES)
async def a_frozen_store_takes_no_writes_until_it_thaws(make: Make) -> None:
    async with make() as store:
        able, at = moving(store), place()
        await written(store, at + "k", b"before")
        await able.freeze("moved to the blue book")
        try:
            note = await able.frozen()
            expect(note == "moved to the blue book", f"frozen() answered {note!r}")
            error = await expect_raises(ReadOnly, store.transact(put(at + "k", b"1")), "a write while frozen")
            expect("moved to the blue book" in str(error), f"the sentence does not quote the note: {error}")
            entry = (await store.get(at + "k")).entry
            expect(entry and entry.value == b"before", f"a refused write left {entry}")
            await expect_raises(
                ReadOnly, store.put_if(at + "k", b"2", entry.revision if entry else 0), "put_if while frozen"
            )
            judged = await store.transact(compare=[absent(at + "nothing")])
            expect(applied(judged).revision >= 0, "a transaction that writes nothing is judged while frozen")
            unmet(await store.transact(compare=[absent(at + "k")]))
        finally:
            await able.freeze(None)
        expect(await able.frozen() is None, "the note is still there after freeze(None)")
        applied(await store.transact(put(at + "k", b"after")))


@case(CASES)
async def a_frozen_store_still_ends_leases(make: Make) -> None:
    async with make() as store:
        able, at = moving(store), place()
        short, given = await leasing(store).grant(0.3), await leasing(store).grant(60)
        applied(await store.transact(put(at + "short", b"", lease=short.lease)))
        applied(await store.transact(put(at + "given", b"", lease=given.lease)))
        await able.freeze("moved")
        try:
            await leasing(store).revoke(given.lease)
            expect((await store.get(at + "given")).entry is None, "a revoked lease's key stands while frozen")

            async def gone() -> bool:
                return (await store.get(at + "short")).entry is None

            await eventually(gone, "a lease that is over while the store is frozen loses its keys")
        finally:
            await able.freeze(None)


@case(CASES)
async def what_was_applied_before_is_still_answered_while_frozen(make: Make) -> None:
    async with make() as store:
        able, at = moving(store), place()
        if (await store.open()).dedupe_window_s < 5:
            raise NotTested("request ids are not remembered")
        first = applied(await store.transact(put(at + "k", b"1"), request_id=at))
        await able.freeze("moved")
        try:
            again = applied(await store.transact(put(at + "k", b"1"), request_id=at))
        finally:
            await able.freeze(None)
        expect(again.replayed, "a retry of what was applied is not known as one while frozen")
        expect(
            again.revision == first.revision, f"answered {again.revision}, was applied as {first.revision}"
        )


@case(CASES)
async def a_bump_rises_above_its_own_and_what_is_asked(make: Make) -> None:
    async with make() as store:
        able, before = moving(store), await store.epoch()
        once = await able.bump()
        expect(once == before + 1 == await store.epoch(), f"bump() of {before} answered {once}")
        high = await able.bump(above=once + 10)
        expect(high == once + 11 == await store.epoch(), f"bump(above={once + 10}) answered {high}")
        low = await able.bump(above=1)
        expect(low == high + 1, f"bump(above=1) of {high} answered {low}")


@case(CASES)
async def a_bump_leaves_what_is_there_and_its_revisions(make: Make) -> None:
    async with make() as store:
        able, at = moving(store), place()
        entry = await written(store, at + "k", b"kept")
        await able.bump()
        after = (await store.get(at + "k")).entry
        expect(after == entry, f"after a bump {entry} reads as {after}")
        later = await written(store, at + "k", b"later")
        expect(later.revision > entry.revision, f"revision {later.revision} after {entry.revision}")


@case(CASES)
async def a_token_of_before_a_bump_is_refused(make: Make) -> None:
    async with make() as store:
        able, at, epoch = moving(store), place(), await store.epoch()
        owner = await written(store, at + "owner", b'{"owner": "api-2", "since": 1.0}')
        held = Held(at + "owner", Token(epoch, owner.revision))
        applied(await store.transact(put(at + "k", b"1"), guard=held))
        raised = await able.bump()
        await expect_raises(Refused, store.transact(put(at + "k", b"2"), guard=held), "a token of before")
        expect(Token(raised, 1) > held.token, f"epoch {raised} does not put tokens above {held.token}")


@case(CASES)
async def a_bookmark_of_before_a_bump_is_out_of_date(make: Make) -> None:
    async with make() as store:
        able, at = moving(store), place()
        if store.history is None:
            raise NotTested("no history")
        bookmark = await store.history.now()
        await able.bump()
        async with reading(store.history.changes(at, bookmark)) as changes:
            await expect_raises(
                EpochChanged, following(changes, "a bookmark of before"), "a bookmark of before"
            )


@case(CASES)
async def what_a_lease_has_left_is_told(make: Make) -> None:
    async with make() as store:
        given = await leasing(store).grant(30)
        left = await leasing(store).remaining(given.lease)
        if left is None:
            raise NotTested("the engine does not tell what a lease has left")
        expect(0 < left <= given.ttl_s + 1, f"a lease of {given.ttl_s} s just granted has {left} s left")
        await leasing(store).revoke(given.lease)
        over = await leasing(store).remaining(given.lease)
        expect(over is None, f"a revoked lease has {over} s left")
        expect(await leasing(store).remaining("0" * 16) is None, "a lease that never was has time left")


@case(CASES)
async def what_is_examined_is_said_in_sentences(make: Make) -> None:
    async with make() as store:
        if store.examining is None:
            raise NotTested("the store does not examine its server")
        found = await store.examining.examine()
        expect(found, "nothing was found")
        for finding in found:
            expect(finding.setting and finding.value, f"a finding without its setting or value: {finding}")
            expect(finding.cost.endswith("."), f"the cost is no sentence: {finding}")
            expect(
                finding.fix or finding.weight is not Weight.BREAKS,
                f"it breaks, and nobody says how to mend it: {finding}",
            )
        heaviest = [Weight.BREAKS, Weight.COSTS, Weight.NOTE, Weight.FINE]
        order = [heaviest.index(finding.weight) for finding in found]
        expect(order == sorted(order), "the heaviest does not come first")


@case(CASES)
async def examining_changes_nothing(make: Make) -> None:
    async with make() as store:
        if store.examining is None:
            raise NotTested("the store does not examine its server")
        at = place()
        entry = await written(store, at + "k", b"1")
        epoch = await store.epoch()
        await store.examining.examine()
        try:
            applied(await store.transact(put(at + "k", b"2")))
        except AtollError as error:
            expect(False, f"after it was examined the store refuses a write: {error}")
        expect(await store.epoch() == epoch, "examining raised the epoch")
        after = (await store.get(at + "k")).entry
        expect(after and after.create_revision == entry.create_revision, f"the key was made anew: {after}")
