"""Two-phase commit with presumed abort: the coordinator, and what a stranger makes of its remains.

A wedding: each is asked "will you?", a yes binds, and only when all have said yes is the couple pronounced
married, in a book. After that it is so, whoever faints. If the registrar dies before writing, somebody else
writes "did not happen" in the same book first, and only then sends the guests home.

Source: Mohan, Lindsay and Obermarck, Transaction Management in the R* Distributed Database Management
System (1986), section 3.2, presumed abort with the read-only vote.
Departure: one record in a store shared by all, written only where none stands, is the decision of
coordinator and recovery alike; so recovery needs no answer from the coordinator, and both may run at once.
Records are kept for a time, for a database that comes back late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Decision = Literal["commit", "abort"]


@dataclass(frozen=True, slots=True)
class Voted:
    """A database answered. None: no, or no answer, so it may be prepared or not."""

    database: str
    vote: Literal["prepared", "read_only"] | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The book says so: we wrote it, or found it written."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class NotRecorded:
    """Our commit is certainly not in the book and never will be."""


@dataclass(frozen=True, slots=True)
class NotKnown:
    """Time is up, and our commit may be in the book or not."""


Event = Voted | Recorded | NotRecorded | NotKnown


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask this database for its vote."""

    database: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write "commit" in the book, where nothing stands; answered by Recorded, NotRecorded or NotKnown."""

    databases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Carry the decision to this database; again, until it is done."""

    database: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the caller. None: not known."""

    decision: Decision | None


Effect = Prepare | Record | Finish | Answer


class Phase(Enum):
    """Where the coordinator is."""

    VOTING = "voting"
    RECORDING = "recording"
    OVER = "over"


@dataclass
class Coordinator:
    """One transaction's coordinator. `parallel`: all are asked at once, else in the order given.

    An abort that it decides itself needs no record; databases never asked are rolled back by who opened them.
    """

    databases: Sequence[str]
    parallel: bool = True
    phase: Phase = Phase.VOTING
    _left: list[str] = field(default_factory=list)
    _asked: set[str] = field(default_factory=set)
    _prepared: list[str] = field(default_factory=list)
    _doubtful: list[str] = field(default_factory=list)

    def start(self) -> list[Effect]:
        """The first questions; without any database the answer at once."""
        self._left = list(self.databases)
        return self._go_on()

    def step(self, event: Event) -> list[Effect]:
        """What to do after `event`, in this order."""
        match event, self.phase:
            case Voted(), Phase.VOTING:
                return self._count(event)
            case Recorded(decision), Phase.RECORDING:
                return self._end(decision)
            case NotRecorded(), Phase.RECORDING:
                return self._end("abort")
            case NotKnown(), Phase.RECORDING:
                self.phase = Phase.OVER  # whoever recovers reads the book; we may not guess
                return [Answer(None)]
        raise AssertionError(f"{event} in {self.phase}")

    def _count(self, event: Voted) -> list[Effect]:
        self._asked.discard(event.database)
        if event.vote == "prepared":
            self._prepared.append(event.database)
        elif event.vote is None:
            self._doubtful.append(event.database)
            self._left.clear()
        return self._go_on()

    def _go_on(self) -> list[Effect]:
        now = self._left if self.parallel else self._left[: 0 if self._asked else 1]
        if now:
            self._left = self._left[len(now) :]
            self._asked.update(now)
            return [Prepare(name) for name in now]
        if self._asked:
            return []
        if self._doubtful:
            return self._end("abort")
        if not self._prepared:
            return self._end("commit")
        self.phase = Phase.RECORDING
        return [Record(tuple(sorted(self._prepared)))]

    def _end(self, decision: Decision) -> list[Effect]:
        """Told first, then carried out. An abort of ours needs no record: nobody else ever writes commit."""
        self.phase = Phase.OVER
        involved = [*self._prepared, *self._doubtful]
        return [Answer(decision), *(Finish(name, decision) for name in involved)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a stranger finds of a transaction in doubt. Ages in seconds."""

    decision: Decision | None
    age_s: float
    coordinator_lives: bool
    same_epoch: bool = True
    """The book was not restored or moved since the transaction began: a missing line was never written."""
    old_s: float | None = None
    """The age by which its line may have been forgotten; None: `age_s`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Its coordinator will see to it."""


@dataclass(frozen=True, slots=True)
class Presume:
    """Write "abort" in the book where nothing stands, look again, then carry out what stands there."""


@dataclass(frozen=True, slots=True)
class Carry:
    """Carry out the decision."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Park:
    """Leave it to a person: a decision may have been forgotten. `reason`: for people."""

    reason: str


def judge(
    found: Found, *, grace_s: float, patience_s: float, retention_s: float
) -> Wait | Presume | Carry | Park:
    """What to do about a transaction in doubt.

    A live coordinator gets `grace_s` to carry out its decision and `patience_s` to make it; a dead one none.
    """
    if found.decision is not None:
        hurry = not found.coordinator_lives or found.age_s >= grace_s
        return Carry(found.decision) if hurry else Wait()
    if found.coordinator_lives and found.age_s < patience_s:
        return Wait()
    if not found.same_epoch:
        return Park("the store was restored or moved since, so its decision may have been lost")
    if (found.age_s if found.old_s is None else found.old_s) >= retention_s:
        return Park("it is older than the time for which decisions are kept")
    return Presume()


def forgettable(*, age_s: float, retention_s: float, in_doubt: bool) -> bool:
    """Whether a record may be removed: old enough, and no database still waits for it."""
    return age_s >= retention_s and not in_doubt
