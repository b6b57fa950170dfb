"""The queue workload: some put messages, some take and acknowledge them, some die in between.

What is put must be done or still be there; what was acknowledged must never come again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from atoll import clock
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.ports.broker import Broker, Message
from atoll.verify import delivery
from atoll.verify.scenario import Claim, Hardship, Worker, Workload


async def work(worker: Worker) -> None:
    """Put and take side by side."""
    await asyncio.gather(fill(worker), empty(worker))


async def fill(worker: Worker) -> None:
    """Put batches of one to four messages, faster than they are taken while there are few."""
    broker: Broker = worker.handle
    while worker.working():
        ids = [clock.unique_id()[:20] for _ in range(worker.dice.randrange(1, 5))]
        with suppress(NotApplied, OutcomeUnknown):
            await broker.put(worker.prefix, [Message(id=id, body=b"work") for id in ids])
        await asyncio.sleep(worker.dice.uniform(0, 0.01))


async def empty(worker: Worker) -> None:
    """Take, work a moment, acknowledge; sometimes too late, sometimes not at all."""
    broker: Broker = worker.handle
    lease_s = worker.ttl_s / 2
    while worker.working():
        with suppress(NotApplied, OutcomeUnknown):
            for taken in await broker.take(worker.prefix, 4, lease_s=lease_s, wait_s=0.1):
                fate = worker.dice.random()
                if fate < 0.02:
                    await broker.give_back(worker.prefix, taken.receipt)
                elif fate < 0.03:
                    continue
                elif fate < 0.04:
                    await asyncio.sleep(lease_s * 1.2)
                    await broker.acknowledge(worker.prefix, [taken.receipt])
                else:
                    await broker.acknowledge(worker.prefix, [taken.receipt])
        await asyncio.sleep(0)


async def drain(worker: Worker) -> None:
    """Take and acknowledge all that is left, until the queue is empty: the last look."""
    broker: Broker = worker.handle
    while worker.working():
        with suppress(NotApplied, OutcomeUnknown):
            taken = await broker.take(worker.prefix, 50, lease_s=worker.ttl_s, wait_s=0.2)
            if taken:
                await broker.acknowledge(worker.prefix, [t.receipt for t in taken])
            elif broker.inspecting is None:
                return
            else:
                depth = [d for d in await broker.inspecting.depths() if d.queue == worker.prefix]
                if not depth or not (depth[0].ready or depth[0].leased or depth[0].delayed):
                    worker.book.note(worker.process, "empty", worker.prefix, None)
                    return


QUEUE = Workload(
    "queue",
    "broker",
    Claim("messages done", "What was put is done or still there; what was acknowledged never comes again."),
    work,
    lambda history, claims: delivery.judge(history),
    (Hardship.PROCESSES, Hardship.KILL, Hardship.PAUSE, Hardship.REPLY_LOST),
    drain,
)
