"""The lock workload: many want one lock, write under its guard, and some are frozen past their lease.

The writes are what counts: a frozen holder wakes up and believes. Whether its write gets through is the
whole question.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from atoll.errors import AtollError, Interrupted, NotApplied, OutcomeUnknown
from atoll.ports.store import Guard, Store, put
from atoll.verify import lock_history
from atoll.verify.history import Holding, Type
from atoll.verify.scenario import Claim, Hardship, Worker, Workload
from atoll.verify.workloads.keys import value


async def lock(worker: Worker) -> None:
    """Acquire, write a few times under the guard, let go; again."""
    from atoll.blocks.lock import Lock

    name = f"{worker.prefix}lock"
    while worker.working():
        wish = worker.book.begin(worker.process, "acquired", name)
        mine: tuple[Guard, Holding] | None = None
        try:
            async with Lock(worker.handle, name, ttl_s=worker.ttl_s, wait_s=5) as held:
                holding = Holding(name, held.token.epoch, held.token.revision)
                worker.book.end(wish, Type.OK, holding)
                mine = (held, holding)
                # One that will be frozen holds on for longer, or it would mostly be frozen waiting.
                for _ in range(worker.dice.randrange(1, 4) * (6 if worker.fragile else 1)):
                    await guarded(worker, held, holding)
                    await asyncio.sleep(worker.dice.uniform(0, 0.004))
        except (NotApplied, OutcomeUnknown, Interrupted) as error:
            if wish.ended is None:
                worker.book.end(wish, Type.FAIL, error=type(error).__name__)
            if isinstance(error, Interrupted) and mine is not None:
                # What a thread that nobody can stop would still send.
                with suppress(NotApplied, OutcomeUnknown):
                    await guarded(worker, *mine)
        await asyncio.sleep(0)


async def guarded(worker: Worker, held: Guard, holding: Holding) -> None:
    """One write that only the holder may make."""
    store: Store = worker.handle
    call = worker.book.begin(worker.process, "guarded", holding)
    try:
        answer = await store.transact(put(f"{worker.prefix}resource", value()), guard=Blind(held))
    except AtollError as error:
        failed = isinstance(error, NotApplied | Interrupted)
        worker.book.end(call, Type.FAIL if failed else Type.INFO, error=type(error).__name__)
        raise
    except BaseException as error:
        worker.book.end(call, Type.INFO, error=type(error).__name__)
        raise
    worker.book.end(call, Type.OK, answer, revision=answer.revision)


class Blind:
    """A guard whose holder does not look at its own clock: only the store can refuse it."""

    def __init__(self, held: Guard) -> None:
        self.owner_key = held.owner_key
        self.token = held.token

    def check(self) -> None:
        """Say nothing, as a frozen process that has just woken up would."""


LOCK = Workload(
    "lock",
    "store",
    Claim("stale writes accepted", "Once a newer holder has written, an older one's write is refused."),
    lock,
    lambda history, claims: lock_history.judge(history),
    (Hardship.PROCESSES, Hardship.PAUSE, Hardship.KILL),
)
