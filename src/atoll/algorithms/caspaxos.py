"""CASPaxos: a register that is changed by functions, agreed on by a majority, without a log and a leader.

A page kept in three offices. Who wants to change it asks two offices for the page and for their word to
listen to nobody older, works out the new page from the newest one they have, and has it filed in two offices.
There is no list of past changes: the page itself is what is agreed on, again and again.

Source: Rystsov, CASPaxos: Replicated State Machines without logs (2018), sections 2.1 to 2.3.
Departure: the one-round-trip optimisation (2.2.1) is left out. Deletion writes a tombstone that stays; the
paper's collection of tombstones (3.1) needs every acceptor and is not done. Who adds or replaces an acceptor
reads and rewrites every key with all that remain, which is the paper's rescan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from atoll.algorithms.backoff import full_jitter
from atoll.algorithms.paxos import (
    ZERO,
    Accept,
    Accepted,
    Ballot,
    Dice,
    Elapsed,
    Overtaken,
    Prepare,
    Promised,
    Received,
    Send,
    majority,
    newest,
)

V = TypeVar("V")

Change = Callable[[V | None], V]
"""From the present state (None: never written) to the next. The identity is a read."""


@dataclass(frozen=True, slots=True)
class Quorums:
    """Who is asked, and how many must agree, in each half. Any two of the two halves must share a member."""

    prepare: tuple[str, ...]
    prepare_needs: int
    accept: tuple[str, ...]
    accept_needs: int

    def __post_init__(self) -> None:
        everybody = len({*self.prepare, *self.accept})
        assert self.prepare_needs + self.accept_needs > everybody, self

    @staticmethod
    def of(acceptors: Sequence[str]) -> Quorums:
        """A majority in both halves."""
        names = tuple(acceptors)
        return Quorums(names, majority(len(names)), names, majority(len(names)))

    @staticmethod
    def all_of(acceptors: Sequence[str]) -> Quorums:
        """Everybody in both halves: what a rescan needs."""
        names = tuple(acceptors)
        return Quorums(names, len(names), names, len(names))


def growth(acceptors: Sequence[str], new: str) -> tuple[Quorums, Quorums]:
    """How an odd number of acceptors takes in one more: the settings of each stage, for all proposers.

    All proposers go over to the first; then every key is read through them (a rescan); then all proposers go
    over to the second. Until the first stage is everywhere, no rescan; until the rescan is done, no second.
    """
    assert len(acceptors) % 2 == 1 and new not in acceptors, (acceptors, new)
    old, everybody = tuple(acceptors), (*acceptors, new)
    most = majority(len(everybody))
    return Quorums(old, majority(len(old)), everybody, most), Quorums(
        everybody, majority(len(old)) + 1, everybody, most
    )


class Counter:
    """One proposer's ballots. `me`: the name of this life of it."""

    def __init__(self, me: str) -> None:
        self.me, self.round = me, 0

    def next(self) -> Ballot:
        """Higher than every one seen here, and never the same twice."""
        self.round += 1
        return Ballot(self.round, self.me)

    def saw(self, ballot: Ballot) -> None:
        """Somebody is further: go on from there."""
        self.round = max(self.round, ballot.round)


@dataclass(frozen=True, slots=True)
class Failed:
    """An acceptor gives no answer to `message`. `certain`: it certainly did nothing about it."""

    sender: str
    message: Prepare | Accept[object]
    certain: bool


@dataclass(frozen=True, slots=True)
class Changed(Generic[V]):
    """The new state is agreed on."""

    value: V


Event = Elapsed | Received[V] | Failed
Effect = Send[V] | Changed[V]


class Phase(Enum):
    """Where a change stands."""

    RESTING = "resting"
    PREPARING = "preparing"
    ACCEPTING = "accepting"
    OVER = "over"


@dataclass(slots=True)
class Attempt(Generic[V]):
    """A state that was sent to be accepted. `possible`: the acceptors that may have it."""

    ballot: Ballot
    value: V
    possible: set[str] = field(default_factory=set)


class Proposal(Generic[V]):
    """One change of one key, tried with rising ballots until a quorum has it.

    `change` is called once for each attempt, with what that attempt found; an earlier attempt of the same
    proposal may be part of it, so the change must know its own. Step it with `Elapsed()` at `deadline`.
    """

    def __init__(
        self,
        counter: Counter,
        quorums: Quorums,
        change: Change[V],
        *,
        dice: Dice,
        now: float,
        first_s: float = 0.01,
        ceiling_s: float = 0.2,
        patience_s: float = 3.0,
    ) -> None:
        self.counter, self.quorums, self.change = counter, quorums, change
        self.phase = Phase.RESTING
        self.ballot = ZERO
        self.deadline: float | None = now
        self.attempts: list[Attempt[V]] = []
        self._dice, self._first_s, self._ceiling_s = dice, first_s, ceiling_s
        self._patience_s = patience_s
        self._tries = 0
        self._began = now
        self._yes: dict[str, Promised[V] | Accepted[V]] = {}
        self._no: set[str] = set()

    def in_doubt(self) -> list[V]:
        """States that were sent and may be, or may become, agreed on.

        Right where a message is delivered at most once: a doubled Accept may be accepted and refused.
        """
        return [one.value for one in self.attempts if one.possible]

    def step(self, event: Event[V], now: float) -> list[Effect[V]]:
        """What to do about it. What `change` raises is raised here, and the proposal is over."""
        match event:
            case Elapsed() if self.deadline is not None and now >= self.deadline:
                return self._prepare(now) if self.phase is Phase.RESTING else self._rest(now)
            case Received(sender, Promised(ballot) as message):
                if self._current(ballot, Phase.PREPARING, sender, self.quorums.prepare):
                    self._yes[sender] = message
                    return self._accept(now)
            case Received(sender, Accepted(ballot) as message):
                if self._current(ballot, Phase.ACCEPTING, sender, self.quorums.accept):
                    self._yes[sender] = message
                    return self._finish()
            case Received(sender, Overtaken(ballot, promised)):
                self.counter.saw(promised)
                self._refused(sender, ballot)
                self._hurry(ballot, now)
                return self._missed(sender, ballot, now)
            case Failed(sender, message, certain):
                if certain and isinstance(message, Accept):
                    self._refused(sender, message.ballot)
                asked = Phase.ACCEPTING if isinstance(message, Accept) else Phase.PREPARING
                return self._missed(sender, message.ballot, now) if asked is self.phase else []
        return []

    def _current(self, ballot: Ballot, phase: Phase, sender: str, asked: tuple[str, ...]) -> bool:
        return ballot == self.ballot and self.phase is phase and sender in asked

    def _prepare(self, now: float) -> list[Effect[V]]:
        self._tries += 1
        self.ballot, self.phase = self.counter.next(), Phase.PREPARING
        self._yes, self._no = {}, set()
        self._began, self.deadline = now, now + self._patience_s
        return [Send(name, Prepare(self.ballot)) for name in self.quorums.prepare]

    def _accept(self, now: float) -> list[Effect[V]]:
        if len(self._yes) < self.quorums.prepare_needs:
            return []
        promises = [one for one in self._yes.values() if isinstance(one, Promised)]
        self.phase, self.deadline = Phase.OVER, None
        value = self.change(newest(promises).value)
        self.phase, self._began, self.deadline = Phase.ACCEPTING, now, now + self._patience_s
        self._yes, self._no = {}, set()
        self.attempts.append(Attempt(self.ballot, value, set(self.quorums.accept)))
        return [Send(name, Accept(self.ballot, value)) for name in self.quorums.accept]

    def _finish(self) -> list[Effect[V]]:
        if len(self._yes) < self.quorums.accept_needs:
            return []
        self.phase, self.deadline = Phase.OVER, None
        return [Changed(self.attempts[-1].value)]

    def _missed(self, sender: str, ballot: Ballot, now: float) -> list[Effect[V]]:
        if ballot != self.ballot or self.phase not in (Phase.PREPARING, Phase.ACCEPTING):
            return []
        asked, needs = (
            (self.quorums.prepare, self.quorums.prepare_needs)
            if self.phase is Phase.PREPARING
            else (self.quorums.accept, self.quorums.accept_needs)
        )
        self._no.add(sender)
        return self._rest(now) if len(asked) - len(self._no) < needs else []

    def _hurry(self, ballot: Ballot, now: float) -> None:
        """A rival is about: who has not answered is waited for only twice as long as this answer took."""
        if ballot == self.ballot and self.deadline is not None and self.phase is not Phase.RESTING:
            self.deadline = min(self.deadline, now + max(2 * (now - self._began), self._first_s))

    def _rest(self, now: float) -> list[Effect[V]]:
        """This ballot is lost; the next after a while, so that rivals do not overtake each other for ever.

        The while is measured by what an answer takes here: a pause far below it separates nobody.
        """
        self.phase = Phase.RESTING
        first = max(self._first_s, min(now - self._began, self._ceiling_s))
        most = max(self._ceiling_s, 4 * first)
        self.deadline = now + full_jitter(self._tries, self._dice.random(), first_s=first, ceiling_s=most)
        return []

    def _refused(self, sender: str, ballot: Ballot) -> None:
        for one in self.attempts:
            if one.ballot == ballot:
                one.possible.discard(sender)
