"""Conformance of a Broker's counting: an attempt stays counted, unless it is taken back.

A ticket is stamped when it is handed out. Who was called away, and did not fail, may have the stamp
undone; who comes too late may not, for by then it is another's.
"""

from __future__ import annotations

from atoll.ports.broker import Settled
from atoll.verify.conformance import Cases, NotTested, case, expect, place
from atoll.verify.conformance_rack import LEASE_S, Make, leased, message, one, put, settled

CASES: Cases = []


@case(CASES)
async def an_attempt_is_taken_back_when_it_shall_not_count(make: Make) -> None:
    async with make() as broker:
        if not (await broker.open()).uncounts:
            raise NotTested("an attempt stays counted")
        queue = place()
        await put(broker, queue, message())
        receipts = []
        for _ in range(3):
            taken = await one(broker, queue)
            expect(taken.attempt == 1, f"given back uncounted, it came as attempt {taken.attempt}")
            expect(taken.receipt not in receipts, "two hand-outs have one receipt")
            for _ in range(2):
                answer = await broker.give_back(queue, taken.receipt, counted=False)
                await settled([answer], Settled.ACKED)
            receipts.append(taken.receipt)
        taken = await one(broker, queue)
        for old in receipts:
            await settled(await broker.acknowledge(queue, [old]), Settled.LATE)
            await broker.give_back(queue, old, counted=False)
        await broker.give_back(queue, taken.receipt)
        taken = await one(broker, queue)
        expect(taken.attempt == 2, f"given back counted, it came as attempt {taken.attempt}")


@case(CASES)
async def who_is_late_takes_no_attempt_back(make: Make) -> None:
    async with make() as broker:
        leased(broker)
        queue = place()
        await put(broker, queue, message())
        first = await one(broker, queue, lease_s=LEASE_S)
        second = await one(broker, queue)
        await settled([await broker.give_back(queue, first.receipt, counted=False)], Settled.LATE)
        await broker.give_back(queue, second.receipt)
        third = await one(broker, queue)
        expect(third.attempt == 3, f"a late worker took an attempt back: it came as {third.attempt}, not 3")
