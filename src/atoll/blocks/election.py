"""Election: one process at a time does the work; when it is gone, another goes on.

A night watch with one lantern. Whoever has it walks the round; when its oil runs out the next in line
lights a new one, whether or not the old watchman has noticed yet. So the lantern has a number, and doors
open only to the newest.

Promise: one leader in the store at a time; its function is cancelled when its lease is over, and runs
elsewhere; tokens rise from term to term.
What can break it: without fence or guard, a frozen leader acts late.
Proved by: atoll verify --workload lock (the same recipe), tests/blocks/test_election.py
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar, TypeVarTuple

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.blocks.holding import Holding, asking, mark, own, refuse_reentry
from atoll.blocks.lock import Holder, checked_name, known
from atoll.blocks.ownership import Keys, look, read_owner
from atoll.errors import ConfigurationError, LeaderLost, NotApplied, OutcomeUnknown, Taken
from atoll.ports.observer import Event, LeaderElected, LeaderEnded, emit
from atoll.ports.store import Store, Token

log = logging.getLogger("atoll.election")

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")


def _cancels() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


class Term(Holding):
    """A term of office: what the leader's function is given. Goes where a `guard` is asked for."""

    kind: ClassVar[str] = "election"
    error: ClassVar[type[LeaderLost]] = LeaderLost

    def _was_lost(self, reason: str) -> Event:
        return LeaderEnded(
            at=clock.wall_now(), name=self.name, owner=self.owner, token=str(self.token), reason=reason
        )

    def _was_left(self, held_s: float) -> Event:
        log.info("%s: %s leads no more, after %.3g s", self.name, self.owner, held_s)
        return LeaderEnded(
            at=clock.wall_now(),
            name=self.name,
            owner=self.owner,
            token=str(self.token),
            reason=f"handed over after {held_s:.3g} s",
        )


class Election:
    """Chooses a leader by name among all processes that campaign on one store.

    `ttl_s`: after a crash another leads within about this. `owner`: how others read who leads.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        ttl_s: float = 15.0,
        best_effort: bool = False,
        owner: str | None = None,
    ) -> None:
        checked_name("election", name)
        if not 0 < ttl_s < math.inf:
            raise ConfigurationError(f"found ttl_s={ttl_s}; expected seconds greater than 0, 15 is usual.")
        self.store, self.name = store, name
        self.ttl_s, self.best_effort, self.owner = ttl_s, best_effort, owner

    def __repr__(self) -> str:
        return f"<Election {self.name!r} on {self.store!r}>"

    async def lead(
        self, function: Callable[[Term, *Arguments], Awaitable[AnswerT]], *arguments: *Arguments
    ) -> AnswerT:
        """Campaign for ever; while leading run `function(term, *arguments)`, and answer what it answers.

        When the term is lost the function is cancelled and the campaign begins anew. When this is
        cancelled, so is the function, and leadership is handed over at once.
        """
        failures, cancels = 0, _cancels()
        while True:
            try:
                term = await self._campaign()
            except Taken:
                raise  # the deadline in force has passed
            except (NotApplied, OutcomeUnknown) as error:
                failures += 1
                if failures == 1:
                    log.warning("%s: cannot campaign, trying on: %s", self.name, error)
                wait_s = full_jitter(
                    failures,
                    clock.chance().random(),
                    first_s=0.1,
                    ceiling_s=max(0.1, self.ttl_s / 3),
                    floor_s=0.02,
                )
                await asyncio.sleep(wait_s)
                continue
            failures = 0
            try:
                return await self._serve(term, function, *arguments)
            except LeaderLost as lost:
                if not term.lost or _cancels() > cancels:  # or its function hid that we were cancelled
                    raise
                if lost.__cause__ is not None and isinstance(lost.__cause__, Exception):
                    log.warning("%s: the lost leader's function raised %r", self.name, lost.__cause__)

    async def leader(self) -> Holder | None:
        """Who leads now and who waits to; None if nobody does either. One read."""
        view = await look(self.store, Keys.of(Term.kind, self.name))
        if view.owner is None and not view.queue:
            return None
        owner = read_owner(view.owner) if view.owner else None
        first = read_owner(view.queue[0]) if view.queue else None
        return Holder(
            name=self.name,
            owner=owner.owner if owner else None,
            token=Token(await self.store.epoch(), view.owner.revision) if view.owner else None,
            since=known(owner.since) if owner else None,
            lease_left_s=None,
            waiting=len(view.queue),
            first_waiting=first.owner if first else None,
            first_since=known(first.since) if first else None,
        )

    async def _campaign(self) -> Term:
        refuse_reentry(self.store, Term.kind, self.name, asking())
        term = await own(
            Term,
            self.store,
            self.name,
            ttl_s=self.ttl_s,
            wait_s=None,
            owner=self.owner,
            best_effort=self.best_effort,
        )
        log.info("%s: %s leads, token %s", self.name, term.owner, term.token)
        emit(LeaderElected(at=clock.wall_now(), name=self.name, owner=term.owner, token=str(term.token)))
        return term

    async def _serve(
        self, term: Term, function: Callable[[Term, *Arguments], Awaitable[AnswerT]], *arguments: *Arguments
    ) -> AnswerT:
        who = asking()
        mark(term, self.store, who, True)
        try:
            answer = await function(term, *arguments)
        except BaseException as error:
            mark(term, self.store, who, False)
            await term.close(error)
            raise
        mark(term, self.store, who, False)
        await term.close(None)
        return answer
