"""Election: one process at a time does the work; when it is gone, another goes on.

A night watch with one lantern. Whoever has it walks the round; when its oil runs out the next in line
lights a new one, whether or not the old watchman has noticed yet. So the lantern has a number, and doors
open only to the newest.

Promise: one leader in the store at a time; its function is cancelled when its lease is over, and runs
elsewhere; tokens rise from term to term; who was named by the leader comes next.
What can break it: without fence or guard, a frozen leader acts late.
Proved by: atoll verify --workload lock (the same recipe), tests/blocks/test_election.py,
tests/blocks/test_election_hand_over.py, tests/blocks/test_election_watch.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import ClassVar, TypeVar, TypeVarTuple

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.blocks.holding import Exclusive, asking
from atoll.blocks.lock import Holder, checked_name, checked_times, known
from atoll.blocks.ownership import Keys, look, read_owner
from atoll.blocks.session import again
from atoll.blocks.taking import mark, own, refuse_reentry
from atoll.blocks.watching import states
from atoll.errors import EpochUncertain, LeaderLost, NotApplied, NotReady, OutcomeUnknown, Taken
from atoll.ports.observer import Event, LeaderElected, LeaderEnded, emit
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Store, Token, created, delete, put, unchanged

log = logging.getLogger("atoll.election")

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")


def _cancels() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


class Term(Exclusive):
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

    _heir: Entry | None = None  # the place in line of who is to come next

    async def resign(self) -> None:
        """Step down; whoever is first in line leads next.

        Called by the function that leads: leadership is given up when this returns, `check` raises, and
        `lead` answers what the function then answers. Called from elsewhere: the function is cancelled,
        leadership is given up when it has ended, and `lead` campaigns again, at the end of the line.
        """
        await self._step_down("it resigned")

    async def hand_over(self, candidate: str) -> None:
        """Step down as by `resign`, in favour of who waits in line under this owner's name.

        "api-2" means also "api-2, pid 812"; of several the first in line. Raises NotReady when nobody of
        that name waits: then this leader still leads.
        """
        self.check()
        view = await again(lambda: look(self._won.store, self._keys))
        for entry in view.queue:
            if candidate in ((name := read_owner(entry).owner), name.partition(", pid ")[0]):
                self._heir = entry
                return await self._step_down(f"it handed over to {name}")
        waiting = ", ".join(read_owner(entry).owner for entry in view.queue[:10]) or "nobody"
        raise NotReady(
            f"{candidate!r} does not wait to lead {self.name}; waiting: {waiting}. Nothing has changed: "
            "name one of them, or resign()."
        )

    @property
    def _keys(self) -> Keys:
        return Keys.of(self.kind, self.name)

    async def _step_down(self, why: str) -> None:
        self.check()
        if asking() is not self._asker:
            self._reason, self._owing = why, True
            log.info("%s: %s is asked to step down: %s", self.name, self.owner, why)
            self._stop(why)
            return
        heir, self._heir = self._heir, None
        try:
            if heir is not None:
                await self._pass_on(heir)
        except NotApplied:
            raise  # nothing has changed: it still leads
        except BaseException:
            if self._reason is None:  # it may have happened: nobody is to believe in this term any more
                self._closed = True
                await self._give_up()
            raise
        self._closed = True
        await self._give_up()

    async def _release(self) -> None:
        heir, self._heir = self._heir, None
        try:
            if heir is not None:
                await self._pass_on(heir)
        except NotApplied as error:
            log.info("%s", error)
        finally:
            await super()._release()

    async def _pass_on(self, heir: Entry) -> None:
        """One transaction: the owner's key is gone, and the heir named, if it still stands in line."""
        keys, won, nonce = self._keys, self._won, read_owner(heir).nonce
        mine, theirs = unchanged(keys.owner, won.token.revision), created(heir.key, heir.create_revision)

        async def once() -> Applied | Unmet:
            return await won.store.transact(
                delete(keys.owner), put(keys.heir, nonce.encode()), compare=[mine, theirs]
            )

        answer = await again(once)
        if isinstance(answer, Applied):
            return
        if mine.holds(answer.entries[keys.owner]):
            raise NotReady(
                f"{read_owner(heir).owner} has just left the line of {self.name}. Nothing has changed: "
                "name another, or resign()."
            )
        view = await again(lambda: look(won.store, keys))
        named = view.heir is not None and view.heir.value == nonce.encode()
        if not named and read_owner(view.owner).nonce != nonce:  # else the first answer was lost
            raise self.error(self._loss())


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
        checked_times(ttl_s, None)
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
            except (Taken, EpochUncertain):
                raise  # the deadline in force has passed; the store waits for its operator
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
        view = await again(lambda: look(self.store, Keys.of(Term.kind, self.name)))
        if view.owner is None and not view.queue:
            return None
        owner = read_owner(view.owner) if view.owner else None
        first = read_owner(view.queue[0]) if view.queue else None
        return Holder(
            name=self.name,
            owner=owner.owner if owner else None,
            token=Token(await again(self.store.epoch), view.owner.revision) if view.owner else None,
            since=known(owner.since) if owner else None,
            lease_left_s=None,
            waiting=len(view.queue),
            first_waiting=first.owner if first else None,
            first_since=known(first.since) if first else None,
        )

    async def watch(self) -> AsyncGenerator[Holder | None]:
        """Who leads, now and at each change; None while nobody does. Observers need not campaign.

        Terms that come and go between two looks are not told. It ends only when its reader stops; a store
        that does not answer is asked again. Raises EpochUncertain.
        """
        told: tuple[Token | None] | None = None
        owner = Keys.of(Term.kind, self.name).owner
        async with aclosing(states(self.store, owner)) as news:
            async for _ in news:
                leader = await self._leader_at_last()
                led = leader if leader is not None and leader.owner is not None else None
                now = (led.token if led is not None else None,)
                if now != told:
                    told = now
                    yield led

    async def _leader_at_last(self) -> Holder | None:
        failures = 0
        while True:
            try:
                return await self.leader()
            except EpochUncertain:
                raise
            except (NotApplied, OutcomeUnknown) as error:
                failures += 1
                log.debug("%s: cannot see who leads, looking again: %s", self.name, error)
                chance = clock.chance().random()
                await asyncio.sleep(full_jitter(failures, chance, first_s=0.1, ceiling_s=2.0, floor_s=0.02))

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
        mark(term, self.store, True)
        try:
            answer = await function(term, *arguments)
        except BaseException as error:
            mark(term, self.store, False)
            await term.close(error)
            raise
        mark(term, self.store, False)
        await term.close(None)
        return answer
