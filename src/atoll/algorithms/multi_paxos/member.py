"""Member: one of those who agree on a log, slot by slot, by a leader who asked once for all slots.

A minute-taker elected by post. With one letter the winner asks the majority to hear nobody older, for every
line of the minutes that is not yet closed, and learns what was half written there. Those lines are closed
first, empty ones with a stroke; from then on each new line needs one round of signatures.

Source: van Renesse and Altinbuken, Paxos Made Moderately Complex (2015), sections 2 and 4;
Lamport, Paxos Made Simple (2001), section 3 (gaps are filled with no-ops, the window).
Departure: replica, leader and acceptor are one member; commanders and scouts are fields of it. A leader is
followed while it is heard, by a random patience, in place of the paper's timeouts. Decisions are not made
durable apart: they are learnt again from the others. The log is not compacted and members do not change; for
that there is `raft/`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from atoll.algorithms.multi_paxos.messages import (
    NOOP,
    Accept,
    Accepted,
    Apply,
    Ask,
    Beat,
    Decided,
    Durable,
    Effect,
    Event,
    Message,
    Placed,
    Prepare,
    Promised,
    Proposed,
    Received,
    Refused,
    Send,
    Settings,
    Slot,
    Vote,
    Write,
)
from atoll.algorithms.paxos import Ballot, Dice, Elapsed, Overtaken, Written, majority


class Member:
    """One member: acceptor, replica, and leader when its ballot is the highest.

    `me` names it for ever; its own promise is durable before it asks others for theirs.
    Effects are obeyed in order. Step it with `Elapsed()` at `deadline`.
    """

    def __init__(
        self,
        me: str,
        members: Sequence[str],
        *,
        dice: Dice,
        now: float,
        durable: Durable | None = None,
        settings: Settings | None = None,
    ) -> None:
        durable = durable or Durable()
        self.me, self.members = me, tuple(members)
        self.quorum = majority(len(self.members))
        self.settings = settings or Settings()
        self.promised = durable.promised
        self.accepted: dict[Slot, Vote] = dict(durable.accepted)
        self.log: list[bytes | None] = []
        self.ballot: Ballot | None = None
        """Its own, while it leads or stands; None while it follows."""
        self.leading = False
        self._dice = dice
        self._seq = self._durable = 0
        self._waiting: list[tuple[int, Send]] = []
        self._promises: dict[str, Promised] = {}
        self._low: Slot = 1
        self._open: dict[Slot, bytes | None] = {}
        self._votes: dict[Slot, set[str]] = {}
        self._early: dict[Slot, bytes | None] = {}
        self._queue: deque[tuple[int, bytes]] = deque()
        self._next: Slot = 1
        self.deadline = 0.0
        self._patient(now)

    @property
    def applied(self) -> Slot:
        """The last slot applied; slots begin at 1."""
        return len(self.log)

    def step(self, event: Event, now: float) -> list[Effect]:
        """What to do about it."""
        match event:
            case Elapsed():
                return self._elapsed(now) if now >= self.deadline else []
            case Proposed(id, command):
                return self._proposed(id, command)
            case Written(seq):
                self._durable = max(self._durable, seq)
                ready = [send for mine, send in self._waiting if mine <= self._durable]
                self._waiting = [pair for pair in self._waiting if pair[0] > self._durable]
                return [*ready]
            case Received(sender, message) if sender in self.members:
                return self._received(sender, message, now)
        return []

    def _received(self, sender: str, message: Message, now: float) -> list[Effect]:
        match message:
            case Prepare(ballot, low):
                return self._asked_to_promise(sender, ballot, low, now)
            case Accept(ballot, slot, value):
                return self._asked_to_accept(sender, ballot, (slot, value), now)
            case Promised(ballot) if ballot == self.ballot and not self.leading:
                self._promises[sender] = message
                return self._lead(now) if len(self._promises) >= self.quorum else []
            case Accepted(ballot, slot) if ballot == self.ballot and slot in self._open:
                self._votes[slot].add(sender)
                return self._count(slot)
            case Overtaken(ballot, promised) if ballot == self.ballot:
                return self._yield(promised, now)
            case Beat(ballot, decided) if ballot >= self.promised:
                followed = self._yield(ballot, now) if ballot.proposer != self.me else []
                asked = [Send(sender, Ask(self.applied + 1))] if decided > self.applied else []
                return [*followed, *asked]
            case Ask(low):
                values = tuple(self.log[low - 1 : low - 1 + self.settings.window])
                return [Send(sender, Decided(low, values))] if values else []
            case Decided(low, values):
                return self._learn({low + n: value for n, value in enumerate(values)})
        return []

    # -- acceptor ----------------------------------------------------------------------------------------

    def _asked_to_promise(self, sender: str, ballot: Ballot, low: Slot, now: float) -> list[Effect]:
        if ballot < self.promised:
            return [Send(sender, Overtaken(ballot, self.promised))]
        effects: list[Effect] = []
        if ballot > self.promised:
            self.promised = ballot
            if ballot.proposer != self.me:
                effects += self._yield(ballot, now)
            effects.append(self._write(None))
        told = tuple((slot, *vote) for slot, vote in sorted(self.accepted.items()) if slot >= low)
        return [*effects, *self._when_durable(Send(sender, Promised(ballot, told)))]

    def _asked_to_accept(
        self, sender: str, ballot: Ballot, vote: tuple[Slot, bytes | None], now: float
    ) -> list[Effect]:
        slot, value = vote
        if ballot < self.promised:
            return [Send(sender, Overtaken(ballot, self.promised))]
        effects: list[Effect] = []
        if ballot.proposer != self.me:
            effects += self._yield(ballot, now)
        if ballot > self.promised or self.accepted.get(slot) != (ballot, value):
            self.promised = ballot
            self.accepted[slot] = (ballot, value)
            effects.append(self._write((slot, ballot, value)))
        return [*effects, *self._when_durable(Send(sender, Accepted(ballot, slot)))]

    def _write(self, vote: tuple[Slot, Ballot, bytes | None] | None) -> Write:
        self._seq += 1
        return Write(self._seq, self.promised, vote)

    def _when_durable(self, send: Send) -> list[Effect]:
        if self._durable == self._seq:
            return [send]
        self._waiting.append((self._seq, send))
        return []

    # -- leader ------------------------------------------------------------------------------------------

    def _elapsed(self, now: float) -> list[Effect]:
        if not self.leading:
            return self._stand(now)
        assert self.ballot is not None
        self.deadline = now + self.settings.beat_s
        ballot = self.ballot
        again = [
            Send(name, Accept(ballot, slot, value))
            for slot, value in self._open.items()
            for name in self.members
            if name not in self._votes[slot]
        ]
        return [*(Send(n, Beat(ballot, self.applied)) for n in self.members if n != self.me), *again]

    def _stand(self, now: float) -> list[Effect]:
        self.ballot = Ballot(self.promised.round + 1, self.me)
        self.promised = self.ballot
        self._promises, self._low = {}, self.applied + 1
        self._patient(now)
        write = self._write(None)  # before anybody hears of it: a ballot must not be used again after a crash
        asks = [Send(name, Prepare(self.ballot, self._low)) for name in self.members]
        return [write, *(effect for ask in asks for effect in self._when_durable(ask))]

    def _lead(self, now: float) -> list[Effect]:
        """Phase 1 is over, for all slots: close what is open with what binds, and gaps with NOOP."""
        self.leading, self.deadline = True, now + self.settings.beat_s
        bound = self.binding(list(self._promises.values()))
        last = max(bound, default=self._low - 1)
        self._next = max(last, self.applied) + 1
        effects: list[Effect] = []
        for slot in range(self._low, last + 1):
            value = bound[slot][1] if slot in bound else NOOP
            if slot > self.applied:
                effects += self._offer(slot, value)
        return [*effects, *self._fill()]

    def binding(self, promises: list[Promised]) -> dict[Slot, Vote]:
        """By slot, the vote of the highest ballot among the promises: no other value may be offered there."""
        found: dict[Slot, Vote] = {}
        for promised in promises:
            for slot, ballot, value in promised.accepted:
                if slot not in found or ballot > found[slot][0]:
                    found[slot] = (ballot, value)
        return found

    def _offer(self, slot: Slot, value: bytes | None) -> list[Effect]:
        assert self.ballot is not None
        self._open[slot], self._votes[slot] = value, set()
        return [Send(name, Accept(self.ballot, slot, value)) for name in self.members]

    def _proposed(self, id: int, command: bytes) -> list[Effect]:
        if not self.leading or len(self._queue) >= self.settings.waiting_max:
            return [Refused(id, self.promised.proposer)]
        self._queue.append((id, command))
        return self._fill()

    def _fill(self) -> list[Effect]:
        """Commands into slots, as far as the window goes."""
        effects: list[Effect] = []
        while self.leading and self._queue and self._next <= self.applied + self.settings.window:
            assert self.ballot is not None
            id, command = self._queue.popleft()
            effects += [Placed(id, self._next, self.ballot), *self._offer(self._next, command)]
            self._next += 1
        return effects

    def _count(self, slot: Slot) -> list[Effect]:
        if len(self._votes[slot]) < self.quorum:
            return []
        value = self._open[slot]
        told: list[Effect] = [Send(n, Decided(slot, (value,))) for n in self.members if n != self.me]
        return [*told, *self._learn({slot: value})]

    def _yield(self, to: Ballot, now: float) -> list[Effect]:
        """Somebody has a higher ballot: follow, and give back what has no slot."""
        if self.ballot is not None and to < self.ballot:
            return []
        refused: list[Effect] = [Refused(id, to.proposer) for id, _ in self._queue]
        self._queue.clear()
        self._open, self._votes = {}, {}
        self.ballot, self.leading = None, False
        self._patient(now)
        return refused

    def _patient(self, now: float) -> None:
        self.deadline = now + self.settings.patience_s * (1 + self._dice.random())

    # -- replica -----------------------------------------------------------------------------------------

    def _learn(self, decided: dict[Slot, bytes | None]) -> list[Effect]:
        """Apply in order; what comes early waits, no further than two windows or what it offered."""
        far = max(self.applied + 2 * self.settings.window, self._next - 1)
        for slot, value in decided.items():
            self._open.pop(slot, None)
            self._votes.pop(slot, None)
            if self.applied < slot <= far:
                self._early[slot] = value
        effects: list[Effect] = []
        while self.applied + 1 in self._early:
            slot = self.applied + 1
            self.log.append(self._early.pop(slot))
            effects.append(Apply(slot, self.log[-1]))
        return [*effects, *self._fill()]
