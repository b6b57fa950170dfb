"""Recovery: any instance finishes what a dead one left.

The night watchman's round: look into every room, and where a paper lies signed and undecided, look into the
book. If nothing stands there and its owner is gone, write "did not happen" first, and only then tidy up.

Promise: a transaction in doubt is finished by whoever lives, by the one decision in the state store; one
that may have had a decision which is no longer kept is left standing and shown.
What can break it: no instance that runs `recover()`.
Proved by: tests/blocks/test_transaction_kill.py, tests/algorithms/test_two_phase.py, make demo
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from atoll import clock
from atoll.algorithms.two_phase import Carry, Found, Park, Presume, Wait, forgettable, judge
from atoll.blocks import decision
from atoll.blocks.presence import Presences
from atoll.errors import AtollError, ConfigurationError, OutcomeUnknown
from atoll.ports.joined import Database
from atoll.ports.observer import TransactionDecided, TransactionTakenOver, emit
from atoll.ports.participant import Finished, InDoubt, Outcome
from atoll.ports.register import Applied
from atoll.ports.store import Store, absent, delete, unchanged

log = logging.getLogger("atoll.transaction")

ROUND_S = 1.0
PATIENCE = 6
"""A live coordinator may take this many times `grace_s` to decide."""
CLEAN_EVERY = 300
_PAGE = 500
_SAID_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A transaction that some database still waits to hear of. `decision`: None while there is none.

    `databases`: those that wait. `age_s`: since the first of them prepared. `locks`: what it holds, for
    people. `parked`: why nobody but a person may end it; empty otherwise.
    """

    id: str
    databases: tuple[str, ...]
    decision: Outcome | None
    age_s: float
    coordinator_lives: bool
    locks: str = ""
    parked: str = ""


@dataclass(frozen=True, slots=True)
class _Sight:
    """When this process first saw a branch, and a moment at which it was not there yet. Loop clock."""

    at: float
    after: float | None


@dataclass
class _Case:
    """One transaction as a round found it."""

    id: str
    branches: dict[str, InDoubt] = field(default_factory=dict)
    record: decision.Record | None = None
    revision: int = 0
    lives: bool = False
    sights: list[_Sight] = field(default_factory=list)

    @property
    def age_s(self) -> float:
        """By the wall clock, or since first seen here if that is longer: a clock set back hides none."""
        first = min(branch.prepared_at for branch in self.branches.values())
        return max(clock.wall_now() - first, *(clock.loop_now() - sight.at for sight in self.sights))

    @property
    def old_s(self) -> float:
        """The age by which its decision may have been forgotten.

        A wall clock set forward makes the young look old. Only a branch that came while we watched is known
        to be young; of one that was there before us we believe the greater age, since what may have had a
        decision must never be presumed aborted.
        """
        if any(sight.after is None for sight in self.sights):
            return self.age_s
        return max(clock.loop_now() - sight.after for sight in self.sights if sight.after is not None)


class Recovery:
    """The rounds of one Transactions. `databases` by name."""

    def __init__(
        self,
        store: Store,
        databases: Mapping[str, Database],
        presences: Presences,
        *,
        prefix: str,
        grace_s: float,
        retention_s: float,
    ) -> None:
        self._store = store
        self._databases = databases
        self._presences = presences
        self._prefix = prefix
        self._grace_s = grace_s
        self._retention_s = retention_s
        self._said: set[str] = set()
        self._sights: dict[tuple[str, str], _Sight] = {}
        self._looks: dict[str, tuple[float, float]] = {}
        """When each database was last asked, by the loop clock and by the wall clock."""

    async def run(self) -> None:
        """Rounds for ever, about one a second; what fails is said once and tried again."""
        failed = ""
        rounds = 0
        try:
            while True:
                try:
                    await self._presences.here().show()
                    await self.round()
                    if rounds % CLEAN_EVERY == 0:
                        await self.clean()
                    rounds += 1
                    failed = ""
                except (AtollError, TimeoutError) as error:
                    if (said := type(error).__name__) != failed:
                        log.warning("recovery is held up, and goes on trying: %s", error)
                    failed = said
                await asyncio.sleep(ROUND_S * (0.5 + clock.chance().random()))
        finally:
            self._presences.here().hide()

    async def round(self) -> int:
        """Look at everything once; answers how many transactions were finished."""
        finished = 0
        for case in await self._cases(self._prefix, whole=False):
            try:
                finished += await self._see_to(case)
            except AtollError as error:
                self._say_once(case.id, "%s stays in doubt for now: %s", case.id, error)
        return finished

    async def in_doubt(self, prefix: str) -> list[Doubt]:
        """What waits, the oldest first."""
        doubts = []
        epoch = await self._store.epoch()
        for case in await self._cases(prefix):
            step = self._judge(case, epoch)
            doubts.append(
                Doubt(
                    id=case.id,
                    databases=tuple(sorted(case.branches)),
                    decision=Outcome(case.record.outcome) if case.record else None,
                    age_s=case.age_s,
                    coordinator_lives=case.lives,
                    locks="; ".join(f"{name}: {b.locks}" for name, b in sorted(case.branches.items())),
                    parked=step.reason if isinstance(step, Park) else "",
                )
            )
        return sorted(doubts, key=lambda doubt: -doubt.age_s)

    async def _cases(self, prefix: str, *, whole: bool = True) -> list[_Case]:
        """`whole`: fail if a database or a decision cannot be read; else go on with the others."""
        cases: dict[str, _Case] = {}
        for name, branches in (await self._branches(prefix, whole=whole)).items():
            for branch in branches:
                case = cases.setdefault(branch.id, _Case(branch.id))
                case.branches[name] = branch
                unseen = _Sight(clock.loop_now(), None)
                case.sights.append(self._sights.get((name, branch.id), unseen))
        if cases:
            living = await self._living()
            mine = self._presences.mine()
            for case in tuple(cases.values()):
                try:
                    found = await decision.lookup(self._store, case.id)
                except ConfigurationError as error:
                    if whole:
                        raise
                    self._say_once(case.id, "%s stays in doubt: %s", case.id, error)
                    del cases[case.id]
                    continue
                if found is not None:
                    case.record, case.revision = found
                instance = decision.instance_of(case.id)
                case.lives = case.id in mine[instance] if instance in mine else instance in living
        return list(cases.values())

    async def _branches(self, prefix: str, *, whole: bool = True) -> dict[str, list[InDoubt]]:
        answer = {}
        for name, database in self._databases.items():
            if (participant := database.participant) is None:
                continue
            sent = clock.loop_now(), clock.wall_now()
            try:
                answer[name] = list(await participant.in_doubt(prefix))
                if prefix == self._prefix:
                    self._note(name, answer[name], sent)
            except AtollError as error:
                self._looks.pop(name, None)  # it may be another file by the next look
                if whole:
                    raise
                self._say_once(f"database {name}", "%s cannot be asked what it waits for: %s", name, error)
            else:
                self._said.discard(f"database {name}")
        return answer

    def _note(self, name: str, branches: list[InDoubt], sent: tuple[float, float]) -> None:
        """Keep when each branch was first seen. One older than the look before it was restored."""
        before = self._looks.get(name)
        for branch in branches:
            came = before is not None and branch.prepared_at >= before[1]
            after = before[0] if before is not None and came else None
            self._sights.setdefault((name, branch.id), _Sight(clock.loop_now(), after))
        here = {branch.id for branch in branches}
        for key in [key for key in self._sights if key[0] == name and key[1] not in here]:
            del self._sights[key]
        self._looks[name] = sent

    async def _living(self) -> set[str]:
        living, start = set(), decision.COORDINATORS
        end = decision.COORDINATORS[:-1] + "0"  # the character after the slash
        while True:
            page = await self._store.range(start=start, end=end, limit=_PAGE)
            living |= {entry.key.removeprefix(decision.COORDINATORS) for entry in page.entries}
            if not page.more:
                return living
            start = page.entries[-1].key + "\0"

    def _judge(self, case: _Case, epoch: int) -> Wait | Presume | Carry | Park:
        found = Found(
            decision=case.record.outcome if case.record else None,
            age_s=case.age_s,
            coordinator_lives=case.lives,
            same_epoch=decision.epoch_of(case.id) == epoch,
            old_s=case.old_s,
        )
        return judge(
            found, grace_s=self._grace_s, patience_s=PATIENCE * self._grace_s, retention_s=self._retention_s
        )

    async def _see_to(self, case: _Case) -> bool:
        """One transaction; True when it is finished everywhere."""
        step = self._judge(case, await self._store.epoch())
        match step:
            case Wait():
                return False
            case Park(reason):
                self._say_once(case.id, "%s is left for a person to decide: %s", case.id, reason)
                return False
            case Presume():
                if not await self._presume(case):
                    return False
            case Carry():
                if not case.lives and not await self._take(case):
                    return False
        return await self._carry(case)

    async def _presume(self, case: _Case) -> bool:
        """Write "abort" where nothing stands. False: something stands there now; the next round reads it."""
        me, now = self._presences.here().instance, clock.wall_now()
        record = decision.Record(
            outcome="abort", databases=tuple(sorted(case.branches)), at=now, by=me, taken_by=me, taken_at=now
        )
        try:
            answer = await self._store.transact(
                decision.line(case.id, record), compare=[absent(decision.key_of(case.id))]
            )
        except OutcomeUnknown:
            return False
        if not isinstance(answer, Applied):
            return False
        case.record, case.revision = record, answer.revision
        emit(
            TransactionDecided(
                at=now, name=case.id, outcome="abort", by="recovery", databases=record.databases
            )
        )
        return True

    async def _take(self, case: _Case) -> bool:
        """Put our name to the finishing of a dead one's transaction, by compare-and-set: one does it."""
        assert case.record is not None
        me, now = self._presences.here().instance, clock.wall_now()
        taker = case.record.taken_by
        if taker == me:
            return True
        if taker in await self._living() and 0 <= now - case.record.taken_at < 3 * self._grace_s:
            return False
        record = msgspec.structs.replace(case.record, taken_by=me, taken_at=now)
        key = decision.key_of(case.id)
        try:
            answer = await self._store.transact(
                decision.line(case.id, record), compare=[unchanged(key, case.revision)]
            )
        except OutcomeUnknown:
            return False
        if isinstance(answer, Applied):
            case.record, case.revision = record, answer.revision
            return True
        return False

    async def _carry(self, case: _Case) -> bool:
        assert case.record is not None
        outcome = Outcome(case.record.outcome)
        done = [await self._finish(name, case.id, outcome) for name in sorted(case.branches)]
        if not all(done):
            return False
        self._said.discard(case.id)
        if not case.lives:
            waited_s = case.age_s
            log.info(
                "%s: %s by recovery on %s, after %.1f s in doubt",
                case.id,
                outcome.value,
                ", ".join(sorted(case.branches)),
                waited_s,
            )
            emit(
                TransactionTakenOver(
                    at=clock.wall_now(), name=case.id, outcome=outcome.value, in_doubt_s=waited_s
                )
            )
        return True

    async def _finish(self, name: str, id: str, outcome: Outcome) -> bool:
        """False: ask again in the next round."""
        participant = self._databases[name].participant
        assert participant is not None
        try:
            return await participant.finish(id, outcome) is not Finished.BUSY
        except AtollError as error:
            self._say_once(id, "%s cannot be finished on %s yet: %s", id, name, error)
            return False

    async def clean(self) -> int:
        """Remove decisions that are old and that no database waits for; answers how many."""
        removed, start = 0, decision.DECISIONS + self._prefix
        end = start[:-1] + "0"
        while True:
            page = await self._store.range(start=start, end=end, limit=_PAGE)
            waiting = {
                branch.id for branches in (await self._branches(self._prefix)).values() for branch in branches
            }
            for entry in page.entries:
                record, id = decision.read(entry), entry.key.removeprefix(decision.DECISIONS)
                unseen = id in waiting or not set(record.databases) <= set(self._databases)
                age_s = clock.wall_now() - record.at
                if forgettable(age_s=age_s, retention_s=self._retention_s, in_doubt=unseen):
                    await self._store.transact(
                        delete(entry.key), compare=[unchanged(entry.key, entry.revision)]
                    )
                    removed += 1
            if not page.more:
                return removed
            start = page.entries[-1].key + "\0"

    def _say_once(self, id: str, message: str, *words: object) -> None:
        if id not in self._said and len(self._said) < _SAID_MAX:
            self._said.add(id)
            log.warning(message, *words)
