"""Transactions: one change over several databases, all of it or nothing.

Each database signs that it can still do either; then one line in the state store makes it so for all. Whoever
lives carries it out, so a process that dies in the middle leaves nothing that nobody finishes.

Promise: every database commits or none; when the block is left without an error the decision is durable, and
an error other than OutcomeUnknown says that nothing happened. Rows written are nobody else's until then.
What can break it: a reader may meet one database after the commit and another before it, for as long as it
takes to carry the decision there; what was only read is not held; a database restored from a backup.
Proved by: tests/blocks/test_transaction_kill.py, tests/algorithms/test_two_phase.py, make demo
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.algorithms.two_phase import Answer, Coordinator, Event, Finish, NotRecorded, Prepare, Record, Voted
from atoll.blocks import decision
from atoll.blocks.presence import Presence, Presences
from atoll.blocks.recovery import Doubt, Recovery
from atoll.blocks.session import in_background
from atoll.errors import ConfigurationError, Conflict, NotApplied, NotSent, OutcomeUnknown
from atoll.ports.joined import Database
from atoll.ports.observer import TransactionDecided, emit
from atoll.ports.participant import Branch, Finished, Outcome, Participant, Vote
from atoll.ports.store import Store

log = logging.getLogger("atoll.transaction")

T = TypeVar("T")

APP_BYTES_MAX = 24
CEILING_S = 30.0
"""How long preparing and deciding may take together, where no nearer deadline is in force."""
SETTLE_S = 2.0
"""How long the caller waits for phase two after the decision; the rest goes on without the caller."""
ATTEMPTS = 8
"""How often phase two asks a database again before recovery takes over."""


class Transaction:
    """An open transaction over several databases; `moves.begin()` gives it."""

    def __init__(
        self, id: str, databases: dict[str, Database], open_branch: Callable[[Database], Any]
    ) -> None:
        self.id = id
        """What `moves.outcome(id)` and `atoll transactions` ask by."""
        self.branches: dict[str, Branch] = {}
        self._databases = databases
        self._open_branch = open_branch
        self._entry = asyncio.Lock()
        self.over = False

    def __repr__(self) -> str:
        return f"<Transaction {self.id} over {', '.join(self.branches) or 'no database yet'}>"

    async def join(self, database: Database) -> Any:
        """Take `database` into the transaction: its own connection or session, to work on.

        Join databases in one order everywhere, by name for instance; who waits too long for another
        transaction gets Conflict. Joined twice, it is the same one.
        """
        if self.over:
            raise ConfigurationError(
                f"{self.id} has ended; its block was left. Begin another with moves.begin()."
            )
        known = self._databases.get(database.name)
        if known is not database:
            raise ConfigurationError(
                f"{database!r} is not one of the databases these Transactions were made with "
                f"({', '.join(self._databases)}). Name it there: Transactions(state, orders, stock)."
            )
        async with self._entry:
            if database.name not in self.branches:
                self.branches[database.name] = await self._open_branch(database)
            return self.branches[database.name].tx


class Transactions:
    """Transactions over `databases`, their decisions kept in `state`.

    `app` names them among those of others in the same store and databases. `grace_s`: how long a live
    coordinator is left alone, and the lease by which a dead one is told. `decision_retention_s`: how long
    decisions are kept, for a database that comes back late. `best_effort`: accept a store that may forget.
    """

    def __init__(
        self,
        state: Store,
        *databases: Database,
        app: str = "app",
        grace_s: float = 5.0,
        decision_retention_s: float = 7 * 86400.0,
        best_effort: bool = False,
    ) -> None:
        _refuse_misfits(databases, app, grace_s, decision_retention_s)
        self.state = state
        self.app = app
        self.databases = {database.name: database for database in sorted(databases, key=lambda d: d.name)}
        self._best_effort = best_effort
        self._presences = Presences(state, grace_s)
        self._recovery = Recovery(
            state,
            self.databases,
            self._presences,
            prefix=f"{app}/",
            grace_s=grace_s,
            retention_s=decision_retention_s,
        )

    def __repr__(self) -> str:
        return f"<Transactions {self.app} over {', '.join(self.databases)}, decisions in {self.state!r}>"

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """A transaction: `async with moves.begin() as tx: a = await tx.join(orders)`.

        Leaving the block commits everywhere; an error or cancellation inside it undoes everything. Raises
        Conflict (or another NotApplied) when it was not committed, OutcomeUnknown(id) when that is not known.
        """
        presence = await self._ready()
        id = presence.next_id(self.app, await self.state.epoch())

        async def open_branch(database: Database) -> Branch:
            return await self._participant(database).begin(id)

        tx = Transaction(id, self.databases, open_branch)
        presence.active.add(id)
        left = False
        try:
            try:
                yield tx
            finally:
                tx.over = True
            left = True
            await _to_its_end(_Ending(self, tx, presence).commit())
        finally:
            if not left:
                await _to_its_end(_abort(tx.branches.values()), quiet=sys.exc_info()[1])
                presence.active.discard(id)

    async def run(self, body: Callable[[Transaction], Awaitable[T]], *, attempts: int = 5) -> T:
        """`await body(tx)` in a transaction, again after Conflict, at most `attempts` times in all."""
        for attempt in range(1, attempts):
            try:
                return await self._once(body)
            except Conflict as error:
                log.debug("attempt %d of %d met a conflict: %s", attempt, attempts, error)
            chance = clock.chance().random()
            await asyncio.sleep(full_jitter(attempt, chance, first_s=0.01, ceiling_s=0.5, floor_s=0.001))
        return await self._once(body)

    async def _once(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self.begin() as tx:
            return await body(tx)

    async def outcome(self, id: str) -> Outcome | None:
        """How the transaction `id` ended; None: not decided yet, ask again.

        Good for as long as decisions are kept; an older or invented id reads as aborted.
        """
        await self.state.open()
        mine = self._presences.mine().get(decision.instance_of(id), set())
        if id in mine:
            return None
        # Before the decision: a branch is gone only after it.
        doubts = [doubt for doubt in await self._recovery.in_doubt(id) if doubt.id == id]
        found = await decision.lookup(self.state, id)
        if found is not None:
            return Outcome(found[0].outcome)
        return None if doubts else Outcome.ABORT

    async def in_doubt(self) -> list[Doubt]:
        """The transactions that some database still waits to hear of, the oldest first."""
        await self.state.open()
        return await self._recovery.in_doubt(f"{self.app}/")

    async def recover(self) -> None:
        """Finish, for ever, what dead coordinators left; run it in each instance: `atoll.background(...)`."""
        self._refuse_weak(await self.state.open())
        await self._recovery.run()

    async def _ready(self) -> Presence:
        self._refuse_weak(await self.state.open())
        presence = self._presences.here()
        await presence.show()
        return presence

    def _refuse_weak(self, claims: Any) -> None:
        if not self._best_effort:
            decision.refuse_weak(self.state, claims)

    def _participant(self, database: Database) -> Participant:
        participant = database.participant
        if participant is None:
            raise ConfigurationError(
                f"{database!r} cannot promise a commit before its decision, so it cannot take part. In "
                'this release a SQLite file opened by its URL can: atoll.database("sqlite:///orders.db").'
            )
        return participant


class _Ending:
    """The end of one transaction: obeys the coordinator's effects."""

    def __init__(self, moves: Transactions, tx: Transaction, presence: Presence) -> None:
        self._moves = moves
        self._tx = tx
        self._presence = presence
        self._due = clock.call_deadline(CEILING_S)
        self._failures: list[Exception] = []
        self._finishing: list[asyncio.Task[None]] = []
        self._recording = False

    async def commit(self) -> None:
        """Prepare, decide, tell; phase two goes on without the caller if it must."""
        try:
            answer = await self._conclude()
        except BaseException:
            in_background(self._forget())
            raise
        if answer.decision == "abort":
            self._finishing.append(in_background(_abort(self._tx.branches.values())))
        in_background(self._forget())
        await self._tell(answer)

    async def _conclude(self) -> Answer:
        machine = Coordinator(sorted(self._tx.branches), parallel=await self._parallel())
        effects = machine.start()
        answer: Answer | None = None
        while effects:
            events: list[Event] = []
            if asked := [effect.database for effect in effects if isinstance(effect, Prepare)]:
                events += await asyncio.gather(*(self._prepare(name) for name in asked))
            for effect in effects:
                if isinstance(effect, Record):
                    events.append(await self._record(effect))
                elif isinstance(effect, Answer):
                    answer = effect
                elif isinstance(effect, Finish):
                    self._finishing.append(in_background(self._finish(effect)))
            effects = [following for event in events for following in machine.step(event)]
        assert answer is not None
        return answer

    async def _parallel(self) -> bool:
        parties = [self._moves._participant(self._moves.databases[name]) for name in self._tx.branches]
        return all([(await party.open()).parallel_prepare for party in parties])

    async def _prepare(self, name: str) -> Voted:
        try:
            if clock.loop_now() >= self._due:
                raise NotSent(f"{self._tx.id} met its deadline before {name} was asked. Nothing happened.")
            vote = await self._tx.branches[name].prepare()
        except Exception as error:
            self._failures.append(error)
            return Voted(name, None)
        return Voted(name, "prepared" if vote is Vote.PREPARED else "read_only")

    async def _record(self, effect: Record) -> Event:
        self._recording = True
        record = decision.Record(
            outcome="commit", databases=effect.databases, at=clock.wall_now(), by=self._presence.instance
        )
        try:
            return await decision.record_commit(self._moves.state, self._tx.id, record, self._due)
        except ConfigurationError as error:  # refused before anything was sent
            self._failures.append(error)
            return NotRecorded()

    async def _finish(self, effect: Finish) -> None:
        """One database in phase two; what fails here is left to recovery."""
        name, outcome = effect.database, Outcome(effect.decision)
        participant = self._moves._participant(self._moves.databases[name])
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if await participant.finish(self._tx.id, outcome) is not Finished.BUSY:
                    return
            except Exception as error:
                log.debug("%s: %s on %s, attempt %d: %r", self._tx.id, outcome.value, name, attempt, error)
            chance = clock.chance().random()
            await asyncio.sleep(full_jitter(attempt, chance, first_s=0.02, ceiling_s=1.0, floor_s=0.005))
        log.warning("%s is not finished on %s; recovery will do it", self._tx.id, name)

    async def _tell(self, answer: Answer) -> None:
        tx = self._tx
        if answer.decision is not None and tx.branches:
            emit(
                TransactionDecided(
                    at=clock.wall_now(),
                    name=tx.id,
                    outcome=answer.decision,
                    by="coordinator",
                    databases=tuple(sorted(tx.branches)),
                )
            )
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=SETTLE_S)
        if answer.decision == "abort":
            raise self._why()
        if answer.decision is None:
            raise OutcomeUnknown(
                f"the decision on {tx.id} was sent and not answered in time: it may be committed or not. Ask "
                f"moves.outcome({tx.id!r}), or type: atoll transactions show {tx.id}",
                id=tx.id,
            )

    async def _forget(self) -> None:
        """When phase two is over, or was given up, recovery may look at what is left."""
        if self._finishing:
            await asyncio.wait(self._finishing)
        if not self._recording:
            await _abort(self._tx.branches.values())
        self._presence.active.discard(self._tx.id)

    def _why(self) -> Exception:
        """The error for a transaction that was certainly not committed."""
        for failure in self._failures:
            if not isinstance(failure, OutcomeUnknown):
                return failure
        if self._failures:
            error = NotApplied(f"{self._tx.id} was undone: a database gave no answer when asked to prepare.")
            error.__cause__ = self._failures[0]
            return error
        return Conflict(f"{self._tx.id} was not decided in time and another instance aborted it. Begin anew.")


async def _abort(branches: Any) -> None:
    async def undo(branch: Branch) -> None:
        try:
            await branch.abort()
        except Exception as error:
            log.warning("%s is not undone yet, recovery will do it: %r", branch.id, error)

    await asyncio.gather(*(undo(branch) for branch in branches))


async def _to_its_end(work: Coroutine[Any, Any, None], quiet: BaseException | None = None) -> None:
    """Await `work` although cancelled meanwhile: half an end would leave rows held. Then cancel is cancel."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and quiet is None:
        if (failure := task.exception()) is not None:
            log.info("cancelled while a transaction ended with %r", failure)
        raise cancelled
    task.result()


def _refuse_misfits(databases: Sequence[Database], app: str, grace_s: float, retention_s: float) -> None:
    names = [database.name for database in databases]
    if double := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(
            f"two databases are called {', '.join(sorted(double))}; decisions go by name. Rename one: "
            'atoll.database(..., name="stock").'
        )
    if not re.fullmatch(rf"[A-Za-z0-9_.]{{1,{APP_BYTES_MAX}}}", app):
        raise ConfigurationError(
            f"found app={app!r}; expected 1 to {APP_BYTES_MAX} letters, digits, dots or underscores."
        )
    if not 0 < grace_s <= retention_s / 100:
        raise ConfigurationError(
            f"found grace_s={grace_s:g}, decision_retention_s={retention_s:g}; decisions are kept at least "
            "a hundred times as long as a coordinator is waited for."
        )
