"""The election workload: several campaign, the leader writes under its term and hands over, some freeze.

A ship with one wheel. Whoever steers writes the course into the log under the number of the watch; a helmsman
who slept through the change of watch may pick up the pen, but the log must not take the line.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from atoll.errors import Interrupted, NotApplied, OutcomeUnknown
from atoll.ports.store import Guard
from atoll.verify import lock_history
from atoll.verify.history import Holding, Type
from atoll.verify.scenario import Claim, Hardship, Worker, Workload
from atoll.verify.workloads.lock import guarded

TURN_S = 2.0
"""How long one campaign lasts at most, so that a client looks up now and then."""


async def campaign(worker: Worker) -> None:
    """Stand for election again and again; lead for a moment, then hand over."""
    from atoll.blocks.election import Election, Term

    name = f"{worker.prefix}lead"
    election = Election(worker.handle, name, ttl_s=worker.ttl_s, owner=worker.process)

    async def lead(term: Term) -> None:
        holding = Holding(name, term.token.epoch, term.token.revision)
        worker.book.end(wishes[-1], Type.OK, holding)
        mine.append((term, holding))
        try:
            for _ in range(worker.dice.randrange(1, 5) * (6 if worker.fragile else 1)):
                await guarded(worker, term, holding)
                await asyncio.sleep(worker.dice.uniform(0, 0.004))
        except asyncio.CancelledError:  # a lost term: the same call campaigns for the next one
            wishes.append(worker.book.begin(worker.process, "acquired", name))
            raise

    while worker.working():
        wishes = [worker.book.begin(worker.process, "acquired", name)]
        mine: list[tuple[Guard, Holding]] = []
        error = ""
        try:
            async with asyncio.timeout(TURN_S):
                await election.lead(lead)
        except (NotApplied, OutcomeUnknown, Interrupted, TimeoutError) as failure:
            error = type(failure).__name__
        if wishes[-1].ended is None:
            worker.book.end(wishes[-1], Type.FAIL, error=error)
        for term, holding in mine[:-1]:  # what a thread of a lost term would still send
            with suppress(NotApplied, OutcomeUnknown, Interrupted):
                await guarded(worker, term, holding)
        await asyncio.sleep(0)


ELECTION = Workload(
    "election",
    "store",
    Claim("one leader's word counts", "Terms only rise, and the word of an older term is refused."),
    campaign,
    lambda history, claims: lock_history.judge(history),
    (Hardship.PROCESSES, Hardship.PAUSE, Hardship.KILL),
)
