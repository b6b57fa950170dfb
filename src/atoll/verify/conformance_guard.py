"""Conformance of a Store's guards: only the owner writes, judged inside the transaction."""

from __future__ import annotations

import asyncio

from atoll.errors import Refused
from atoll.ports.store import Token, absent, delete, put
from atoll.verify.conformance import Cases, Violation, case, expect, expect_raises, place
from atoll.verify.conformance_transact import Make, applied, unmet, written

CASES: Cases = []


class Held:
    """A guard as a lock would give it."""

    def __init__(self, owner_key: str, token: Token) -> None:
        self.owner_key = owner_key
        self.token = token

    def check(self) -> None:
        return None


@case(CASES)
async def a_guard_lets_only_the_owner_write(make: Make) -> None:
    async with make() as store:
        at, epoch = place(), await store.epoch()
        owner = await written(store, at + "owner", b'{"owner": "api-2", "since": 1.0}')
        held = Held(at + "owner", Token(epoch, owner.revision))
        applied(await store.transact(put(at + "k", b"1"), guard=held))
        unmet(await store.transact(put(at + "k", b"2"), compare=[absent(at + "k")], guard=held))
        elsewhere = Held(at + "owner", Token(epoch + 1, owner.revision))
        await expect_raises(Refused, store.transact(put(at + "k", b"2"), guard=elsewhere), "another epoch")
        await written(store, at + "owner", b'{"owner": "api-3", "since": 2.0}')
        late = store.transact(put(at + "k", b"3"), guard=held)
        error = await expect_raises(Refused, late, "a guard whose owner key was written again")
        expect(at + "owner" in str(error), f"the sentence does not name the owner key: {error}")
        applied(await store.transact(delete(at + "owner")))
        await expect_raises(Refused, store.transact(put(at + "k", b"4"), guard=held), "an owner gone")
        entry = (await store.get(at + "k")).entry
        expect(entry and entry.value == b"1", f"a refused transaction wrote {entry}")


@case(CASES)
async def a_guard_is_judged_inside_the_transaction(make: Make) -> None:
    async with make() as store:
        at, epoch = place(), await store.epoch()

        async def write_until_refused(held: Held, number: int) -> int:
            last = 0
            for _ in range(number):
                await asyncio.sleep(0)
            try:
                for _ in range(1_000):
                    last = applied(await store.transact(put(f"{at}{number}", b""), guard=held)).revision
            except Refused:
                return last
            raise Violation("a guard whose owner key was written again lets every write through")

        for _ in range(8):
            owner = await written(store, at + "owner", b"one")
            held = Held(at + "owner", Token(epoch, owner.revision))
            writers = [asyncio.create_task(write_until_refused(held, number)) for number in range(4)]
            await asyncio.sleep(0.002)
            takeover = await written(store, at + "owner", b"another")
            newest = max(await asyncio.gather(*writers))
            expect(
                newest < takeover.revision,
                f"a guarded write was applied as {newest}, after the takeover as {takeover.revision}",
            )
