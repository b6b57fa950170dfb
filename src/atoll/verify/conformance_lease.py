"""Conformance of a Store's leases: never early, late within the claim, gone at once.

A parking meter, a stopwatch, and several cars on one ticket. The times are those of the lease clock,
counted to the engine's disadvantage on both sides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from atoll import clock
from atoll.errors import ConfigurationError, LeaseOver
from atoll.ports.store import Granted, Leasing, Store, delete, put
from atoll.verify.conformance import (
    Cases,
    NotTested,
    case,
    eventually,
    expect,
    expect_raises,
    place,
    reading,
)
from atoll.verify.conformance_observe import Picture, historic, told
from atoll.verify.conformance_transact import applied, written

Make = Callable[[], Store]
CASES: Cases = []
WISH_S = 0.3


def leasing(store: Store) -> Leasing:
    """The ability, or NotTested."""
    if store.leasing is None:
        raise NotTested("there are no leases")
    return store.leasing


async def granted(store: Store, wish_s: float = WISH_S) -> Granted:
    grant = await leasing(store).grant(wish_s)
    least = (await store.open()).ttl_min_s
    expect(
        grant.ttl_s > 0 and grant.ttl_s >= least, f"granted {grant.ttl_s} s; the claim says {least} at least"
    )
    return grant


async def gone_by(store: Store, key: str, until: float) -> None:
    """Wait until `key` is gone, at most until the lease clock shows `until`."""
    while clock.lease_now() < until and (await store.get(key)).entry is not None:  # noqa: ASYNC110
        await asyncio.sleep(min(0.05, max(until - clock.lease_now(), 0.001)))


@case(CASES)
async def a_lease_stands_as_long_as_it_was_granted_for(make: Make) -> None:
    async with make() as store:
        claims, key = await store.open(), place() + "k"
        leasing(store)
        if not claims.never_early:
            raise NotTested("it may end early")
        sent = clock.lease_now()
        lease = await granted(store)
        entry = await written(store, key, b"", lease=lease.lease)
        expect(entry.lease == lease.lease, f"an entry under lease {lease.lease} shows {entry.lease}")
        looks = 0
        while True:
            got = await store.get(key)
            if clock.lease_now() >= sent + lease.ttl_s:
                break
            expect(got.entry == entry, f"gone {sent + lease.ttl_s - clock.lease_now():.3f} s before its time")
            looks += 1
            await asyncio.sleep(0.005)
        expect(looks > 0, "nobody looked before the end, so nothing was tested")


@case(CASES)
async def a_lease_that_nobody_renews_ends_in_time(make: Make) -> None:
    async with make() as store:
        claims, key = await store.open(), place() + "k"
        lease = await granted(store)
        answered = clock.lease_now()
        await written(store, key, b"", lease=lease.lease)
        await gone_by(store, key, answered + lease.ttl_s + claims.expiry_late_max_s)
        got = await store.get(key)
        expect(got.entry is None, f"still there {claims.expiry_late_max_s} s after its end")


@case(CASES)
async def renewing_keeps_a_lease_and_its_end_is_final(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        started = clock.lease_now()
        lease = await granted(store)
        await written(store, key, b"", lease=lease.lease)
        sent = started
        while clock.lease_now() < started + 2 * lease.ttl_s:
            before, sent = sent, clock.lease_now()
            if sent > before + lease.ttl_s * 0.9:
                raise NotTested("this machine was too busy to renew in time")
            again = await leasing(store).keep_alive(lease.lease)
            expect(abs(again - lease.ttl_s) < 1e-6 or again > 0, f"a renewal answered {again} s")
            await asyncio.sleep(lease.ttl_s / 5)
        got = await store.get(key)
        if clock.lease_now() < sent + lease.ttl_s:
            expect(got.entry is not None, "a renewed lease ended at its first time")
        claims = await store.open()
        await gone_by(store, key, clock.lease_now() + lease.ttl_s + claims.expiry_late_max_s)
        await expect_raises(LeaseOver, leasing(store).keep_alive(lease.lease), "a lease that is over")
        expect((await store.get(key)).entry is None, "renewing a lease that is over brought its key back")


@case(CASES)
async def a_lease_unknown_or_revoked_is_over(make: Make) -> None:
    async with make() as store:
        key = place() + "k"
        lease = await granted(store, 30)
        await leasing(store).revoke(lease.lease)
        await expect_raises(LeaseOver, leasing(store).keep_alive(lease.lease), "a revoked lease renewed")
        late = store.transact(put(key, b"", lease=lease.lease))
        await expect_raises(LeaseOver, late, "a put under a revoked lease")
        expect((await store.get(key)).entry is None, "a put under a revoked lease was written")
        await expect_raises(ConfigurationError, leasing(store).grant(0), "a lease of 0 s")


@case(CASES)
async def a_put_under_an_ended_lease_writes_nothing(make: Make) -> None:
    async with make() as store:
        at = place()
        lease = await granted(store)
        answered = clock.lease_now()
        claims = await store.open()
        await written(store, at + "witness", b"", lease=lease.lease)
        await gone_by(store, at + "witness", answered + lease.ttl_s + claims.expiry_late_max_s)
        late = store.transact(put(at + "a", b""), put(at + "b", b"", lease=lease.lease))
        await expect_raises(LeaseOver, late, "a put under an ended lease")
        expect((await store.range(at)).entries == (), "a transaction under an ended lease wrote something")


@case(CASES)
async def revoking_removes_the_keys_and_may_be_repeated(make: Make) -> None:
    async with make() as store:
        at = place()
        lease, other = await granted(store, 30), await granted(store, 30)
        applied(await store.transact(*(put(f"{at}mine/{n}", b"", lease=lease.lease) for n in range(3))))
        await written(store, at + "theirs", b"", lease=other.lease)
        await written(store, at + "free", b"")
        await leasing(store).revoke(lease.lease)
        left = [entry.key.removeprefix(at) for entry in (await store.range(at)).entries]
        expect(left == ["free", "theirs"], f"after one lease was revoked there is {left}")
        before = (await store.get(at + "free")).revision
        await leasing(store).revoke(lease.lease)
        expect((await store.range(at + "t")).entries, "revoking twice took another lease's key")
        expect((await store.get(at + "free")).revision >= before, "the revision went back")
        await leasing(store).revoke(other.lease)


@case(CASES)
async def a_key_follows_its_last_put(make: Make) -> None:
    async with make() as store:
        at = place()
        first, second = await granted(store, 30), await granted(store, 30)
        await written(store, at + "freed", b"", lease=first.lease)
        freed = await written(store, at + "freed", b"")
        expect(freed.lease is None, f"a put without a lease kept lease {freed.lease}")
        await written(store, at + "moved", b"", lease=first.lease)
        await written(store, at + "moved", b"", lease=second.lease)
        await written(store, at + "again", b"", lease=first.lease)
        applied(await store.transact(delete(at + "again")))
        await written(store, at + "again", b"")
        await leasing(store).revoke(first.lease)
        left = {entry.key.removeprefix(at) for entry in (await store.range(at)).entries}
        expect(left == {"freed", "moved", "again"}, f"the old lease took keys with it; left is {left}")
        await leasing(store).revoke(second.lease)
        left = {entry.key.removeprefix(at) for entry in (await store.range(at)).entries}
        expect(left == {"freed", "again"}, f"the new lease did not take its key; left is {left}")


@case(CASES)
async def one_transaction_has_one_lease(make: Make) -> None:
    async with make() as store:
        at = place()
        first, second = await granted(store, 30), await granted(store, 30)
        both = store.transact(put(at + "a", b"", lease=first.lease), put(at + "b", b"", lease=second.lease))
        await expect_raises(ConfigurationError, both, "two leases in one transaction")
        expect((await store.range(at)).entries == (), "a refused transaction wrote something")
        applied(await store.transact(put(at + "a", b"", lease=first.lease), put(at + "b", b"")))
        await leasing(store).revoke(first.lease)
        await leasing(store).revoke(second.lease)


@case(CASES)
async def the_keys_of_a_lease_go_in_one_transaction(make: Make) -> None:
    async with make() as store:
        at = place()
        history = historic(store)
        start = await history.now()
        lease = await granted(store)
        keys = [f"{at}{number}" for number in range(5)]
        await written(store, keys[0], b"", lease=lease.lease)
        applied(await store.transact(*(put(key, b"", lease=lease.lease) for key in keys[1:])))

        async def gone() -> bool:
            count = len((await store.range(at)).entries)
            expect(count in (0, 5), f"{count} of 5 keys of an ended lease are there")
            return count == 0

        await eventually(gone, "the end of a lease")
        end = await written(store, at + "end", b"")
        async with reading(history.changes(at, start)) as items:
            changes = await told(items, end.revision)
        ended = [change for change in changes if change.removed]
        expect(len(ended) == 1, f"the end of a lease was {len(ended)} transactions: {ended}")
        expect(set(ended[0].removed) == set(keys), f"the end of a lease removed {ended[0].removed}")
        expect(changes[1].at.revision < ended[0].at.revision < end.revision, "its revision is out of order")


@case(CASES)
async def no_reader_sees_half_of_an_ended_lease(make: Make) -> None:
    async with make() as store:
        at = place()
        lease = await granted(store)
        most = min((await store.open()).operations_max, 50)
        applied(await store.transact(*(put(f"{at}{n}", b"", lease=lease.lease) for n in range(most))))

        async def gone() -> bool:
            count = len((await store.range(at)).entries)
            expect(count in (0, most), f"{count} of {most} keys of an ended lease are there")
            return count == 0

        await eventually(gone, "the end of a lease")


@case(CASES)
async def an_observer_hears_of_an_end_though_nobody_calls(make: Make) -> None:
    async with make() as store:
        at = place()
        lease = await granted(store)
        applied(
            await store.transact(put(at + "a", b"", lease=lease.lease), put(at + "b", b"", lease=lease.lease))
        )
        async with reading(store.observe(at)) as items:
            picture = Picture(items)
            await picture.step("the first observation")
            await picture.until(lambda known: not known, "the end of a lease, told without any other call")
            expect((await store.range(at)).entries == (), "told as removed, and still there")
