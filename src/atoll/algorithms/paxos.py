"""Paxos for one value: proposers, acceptors and learners who agree once, whoever of them is late or dead.

A jury that may choose one sentence, by post. Who wants to propose first asks a majority to hear nobody with a
lower number, and is told what they have already signed. If anybody has signed, the proposer must propose that
very sentence again; so once a majority has signed, no later number can bring another one.

Source: Lamport, Paxos Made Simple (2001), section 2.
Departure: an acceptor answers when its write is durable (`Write`, then `Written`); it says no (`Overtaken`)
where the paper lets it be silent; proposers wait a random time before they try again, in place of the paper's
distinguished proposer. A proposer's name belongs to one life of it, so it need not remember its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from atoll.algorithms.backoff import full_jitter

V = TypeVar("V")


class Ballot(NamedTuple):
    """A proposal's number: unique, because no two proposers share a name and none uses a round twice."""

    round: int
    proposer: str


ZERO = Ballot(0, "")
"""Below every ballot in use."""


class Dice(Protocol):
    """Chance, handed in: `random.Random` is one."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Cell(Generic[V]):
    """All that an acceptor must never forget."""

    promised: Ballot = ZERO
    accepted: Ballot = ZERO
    value: V | None = None


# -- what they say to each other -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Hear nobody below `ballot` any more, and tell me what you have accepted."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Promised(Generic[V]):
    """I shall not. `accepted` is ZERO, and `value` None, where I have accepted nothing."""

    ballot: Ballot
    accepted: Ballot
    value: V | None


@dataclass(frozen=True, slots=True)
class Accept(Generic[V]):
    """Accept `value` under `ballot`."""

    ballot: Ballot
    value: V


@dataclass(frozen=True, slots=True)
class Accepted(Generic[V]):
    """I have."""

    ballot: Ballot
    value: V


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Not under `ballot`: I have promised `promised`. Nothing of mine changed."""

    ballot: Ballot
    promised: Ballot


Message = Prepare | Promised[V] | Accept[V] | Accepted[V] | Overtaken


# -- events and effects ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Elapsed:
    """`deadline` has come."""


@dataclass(frozen=True, slots=True)
class Received(Generic[V]):
    """A message arrived. It may be late, doubled, or from a life before."""

    sender: str
    message: Message[V]


@dataclass(frozen=True, slots=True)
class Written:
    """All writes up to `seq` would survive a power cut."""

    seq: int


Event = Elapsed | Received[V] | Written


@dataclass(frozen=True, slots=True)
class Send(Generic[V]):
    """A message; it may be lost, doubled, late."""

    to: str
    message: Message[V]


@dataclass(frozen=True, slots=True)
class Write(Generic[V]):
    """Make the cell durable in place of the one before; answered by `Written(seq)`."""

    seq: int
    cell: Cell[V]


@dataclass(frozen=True, slots=True)
class Chosen(Generic[V]):
    """This is the value, for ever."""

    value: V


Effect = Send[V] | Write[V] | Chosen[V]


# -- the rules -------------------------------------------------------------------------------------------


def majority(count: int) -> int:
    """The least number of members of which any two groups share one."""
    return count // 2 + 1


def promise(cell: Cell[V], ballot: Ballot) -> tuple[Cell[V], Promised[V] | Overtaken]:
    """What an acceptor makes of a Prepare: its cell, to be durable before the answer is sent."""
    if ballot < cell.promised:
        return cell, Overtaken(ballot, cell.promised)
    return replace(cell, promised=ballot), Promised(ballot, cell.accepted, cell.value)


def accept(cell: Cell[V], ballot: Ballot, value: V) -> tuple[Cell[V], Accepted[V] | Overtaken]:
    """What an acceptor makes of an Accept: its cell, to be durable before the answer is sent."""
    if ballot < cell.promised:
        return cell, Overtaken(ballot, cell.promised)
    return Cell(ballot, ballot, value), Accepted(ballot, value)


def newest(promises: Sequence[Promised[V]]) -> Promised[V]:
    """The promise that tells of the highest accepted ballot; its value binds whoever asked."""
    return max(promises, key=lambda one: one.accepted)


class Acceptor(Generic[V]):
    """One juror. `cell`: what was durable when it last stopped. `learners` hear of what it accepts."""

    def __init__(self, *, cell: Cell[V] | None = None, learners: Sequence[str] = ()) -> None:
        self.cell: Cell[V] = cell or Cell()
        self.learners = tuple(learners)
        self._seq = self._durable = 0
        self._waiting: list[tuple[int, list[Effect[V]]]] = []

    def step(self, event: Event[V], now: float) -> list[Effect[V]]:
        """What to do about it. `now` is not used: an acceptor is never in a hurry."""
        match event:
            case Received(sender, Prepare(ballot)):
                return self._answer(sender, *promise(self.cell, ballot))
            case Received(sender, Accept(ballot, value)):
                return self._answer(sender, *accept(self.cell, ballot, value))
            case Written(seq):
                return self._written(seq)
        return []

    def _answer(self, sender: str, cell: Cell[V], reply: Message[V]) -> list[Effect[V]]:
        others = [name for name in self.learners if name != sender] if isinstance(reply, Accepted) else []
        sends: list[Effect[V]] = [Send(name, reply) for name in (sender, *others)]
        effects: list[Effect[V]] = []
        if cell != self.cell:
            self.cell, self._seq = cell, self._seq + 1
            effects = [Write(self._seq, cell)]
        if self._durable == self._seq or isinstance(reply, Overtaken):
            return [*effects, *sends]
        self._waiting.append((self._seq, sends))
        return effects

    def _written(self, seq: int) -> list[Effect[V]]:
        self._durable = max(self._durable, seq)
        ready = [sends for mine, sends in self._waiting if mine <= self._durable]
        self._waiting = [pair for pair in self._waiting if pair[0] > self._durable]
        return [send for sends in ready for send in sends]


class Learner(Generic[V]):
    """Counts who accepted what; a majority under one ballot is a choice."""

    def __init__(self, acceptors: Sequence[str]) -> None:
        self.acceptors = tuple(acceptors)
        self.quorum = majority(len(self.acceptors))
        self.value: V | None = None
        self._by: dict[Ballot, set[str]] = {}

    def step(self, event: Event[V], now: float) -> list[Effect[V]]:
        """`Chosen`, once."""
        match event:
            case Received(sender, Accepted(ballot, value)) if sender in self.acceptors:
                by = self._by.setdefault(ballot, set())
                by.add(sender)
                if len(by) >= self.quorum and self.value is None:
                    self.value = value
                    return [Chosen(value)]
        return []


class Proposer(Generic[V]):
    """Somebody with a value to propose; it ends with the value that was chosen, its own or another's.

    `me`: the name of this life of it, never used by another. Step it with `Elapsed()` at `deadline`.
    """

    def __init__(
        self,
        me: str,
        acceptors: Sequence[str],
        value: V,
        *,
        dice: Dice,
        patience_s: float = 0.1,
        now: float = 0.0,
    ) -> None:
        self.me, self.acceptors, self.value = me, tuple(acceptors), value
        self.quorum = majority(len(self.acceptors))
        self.ballot = ZERO
        self.deadline: float | None = now
        self._dice, self._patience_s = dice, patience_s
        self._highest = 0
        self._attempt = 0
        self._promises: dict[str, Promised[V]] | None = None
        self._learner: Learner[V] = Learner(self.acceptors)

    def step(self, event: Event[V], now: float) -> list[Effect[V]]:
        """What to do about it."""
        if self.deadline is None:
            return []
        match event:
            case Elapsed() if now >= self.deadline:
                return self._prepare(now)
            case Received(sender, Promised(ballot) as message) if ballot == self.ballot:
                return self._promised(sender, message)
            case Received(_, Accepted(ballot)) if ballot == self.ballot:
                return self._accepted(event, now)
            case Received(_, Overtaken(ballot, promised)):
                self._highest = max(self._highest, promised.round)
                if ballot == self.ballot:
                    self._promises = None
        return []

    def _prepare(self, now: float) -> list[Effect[V]]:
        self._attempt += 1
        self.ballot = self.next_ballot()
        self._promises = {}
        wait = full_jitter(self._attempt, self._dice.random(), first_s=self._patience_s, ceiling_s=10.0)
        self.deadline = now + self._patience_s + wait
        return [Send(name, Prepare(self.ballot)) for name in self.acceptors]

    def next_ballot(self) -> Ballot:
        """Higher than every one heard of, and never the same twice."""
        self._highest += 1
        return Ballot(self._highest, self.me)

    def _promised(self, sender: str, message: Promised[V]) -> list[Effect[V]]:
        if self._promises is None or sender not in self.acceptors:
            return []
        self._promises[sender] = message
        if len(self._promises) < self.quorum:
            return []
        value = self.bound(list(self._promises.values()))
        self._promises = None
        return [Send(name, Accept(self.ballot, value)) for name in self.acceptors]

    def bound(self, promises: list[Promised[V]]) -> V:
        """What may be proposed: the value of the highest ballot accepted by one of them, else one's own."""
        found = newest(promises)
        if found.accepted == ZERO:
            return self.value
        assert found.value is not None
        return found.value

    def _accepted(self, event: Event[V], now: float) -> list[Effect[V]]:
        effects = self._learner.step(event, now)
        if effects:
            self.deadline = None
        return effects
