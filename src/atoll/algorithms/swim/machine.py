"""The machine of one member: events in, effects out; its parts do the work, this is the switchboard.

Each member of a village looks in on one neighbour a minute, passes on what it hears with every greeting, and
believes nobody gone before he had time to object. Nobody keeps the list, and everybody has it.

Source: Das, Gupta and Motivala, SWIM: Scalable Weakly-consistent Infection-style Process Group Membership
Protocol (2002). Dadgar, Phillips and Currey, Lifeguard: Local Health Awareness for More Accurate Failure
Detection (2018).
Departure: gossip also goes out by itself while there is news. A member that slept, or heard nobody for a
while, blames itself: the probe under way is void, suspicions get their shortest time again, and it compares
lists with somebody soon. Others are said in `messages`, `members`, `beliefs`, `probing`, `exchange`.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.algorithms.swim.beliefs import Beliefs
from atoll.algorithms.swim.events import (
    Answer,
    Answered,
    Asked,
    Departed,
    Dice,
    Effect,
    Elapsed,
    Event,
    JoinAsked,
    LeaveAsked,
    Member,
    MetadataSet,
    Received,
    Unanswered,
)
from atoll.algorithms.swim.exchange import Exchange
from atoll.algorithms.swim.local import Local, Timer
from atoll.algorithms.swim.members import Members
from atoll.algorithms.swim.messages import (
    Ack,
    Address,
    Letter,
    Nack,
    Name,
    Packet,
    Ping,
    PingRequest,
    State,
    Sync,
)
from atoll.algorithms.swim.probing import Prober
from atoll.algorithms.swim.settings import Settings

SILENCE = 3
"""Periods without a word of anybody, where a ping comes in each on average: this member was cut off."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a member knows of itself and its group, for people and for measures."""

    living: int
    suspected: int
    failed: int
    news: int
    health: int
    """0 is well; each point makes this member more patient with others."""
    incarnation: int


class Swim:
    """One member. Its user calls `step` alone; `uid` is 63 bits by chance, new for each run of its process.

    `members`: what is known from the start; a simulation of many forks one list for all.
    ValueError: metadata beyond `Settings.metadata_bytes_max`.
    """

    def __init__(
        self,
        me: Name,
        address: Address,
        *,
        uid: int,
        dice: Dice,
        now: float,
        metadata: bytes = b"",
        settings: Settings | None = None,
        members: Members | None = None,
    ) -> None:
        self.me, self.address = me, address
        self.settings = settings or Settings()
        self._check(metadata)
        self._local = Local(me, self.settings, dice, members or Members())
        self._local.now = self._local.heard = now
        self._beliefs = Beliefs(self._local, address, uid, metadata)
        self._prober = Prober(self._local, self._beliefs)
        self._exchange = Exchange(self._local, self._beliefs, address)
        self._over = False
        if self._local.members.get(me) is None:
            self._beliefs.announce()
        self._local.after(self.settings.probe_interval_s * dice.random(), "period")
        self._exchange.start()

    @property
    def deadline(self) -> float | None:
        """When to step with `Elapsed`; None after `Departed` and `NameTaken`."""
        return None if self._over else self._local.timers.next

    def members(self) -> list[Member]:
        """All that count as in, this one too; suspected ones are still in."""
        return [record.member() for record in self._local.members if record.living]

    def member(self, name: Name) -> Member | None:
        """What is believed of `name`, also when it has failed or left; None if it was never heard of."""
        record = self._local.members.get(name)
        return record.member() if record is not None and record.visible else None

    def status(self) -> Status:
        """A few numbers; counts through the whole list."""
        local = self._local
        suspected = sum(record.living and record.state is State.SUSPECT for record in local.members)
        return Status(
            local.members.living,
            suspected,
            len(local.members.failed),
            len(local.news),
            local.health.score,
            self._beliefs.incarnation,
        )

    def step(self, event: Event, now: float) -> list[Effect]:
        """Hear one event; what is to be done, in order."""
        if self._over:
            return []
        local = self._local
        local.now = max(now, local.now)
        if isinstance(event, Asked | Answered):
            self._listen()
        match event:
            case Received(address, packet):
                self._received(address, packet)
            case Elapsed():
                self._elapsed()
            case Asked(stream, letter):
                self._asked(stream, letter)
            case Answered(number, letter):
                self._answered(number, letter)
            case Unanswered(number):
                self._prober.asks.pop(number, None)
                if self._exchange.asks.pop(number, None) is not None:
                    self._exchange.unanswered()
            case JoinAsked(seeds):
                self._exchange.join(seeds)
            case LeaveAsked():
                self._leave()
            case MetadataSet(metadata):
                self._check(metadata)
                if not self._beliefs.left:
                    self._beliefs.describe(metadata)
        out, local.out = local.out, []
        if self._beliefs.taken:
            self._over = True
        return out

    def _received(self, address: Address, packet: Packet) -> None:
        if packet.sender == self.me and address == self.address:
            return
        self._listen()
        for update in packet.updates:
            self._beliefs.hear(update)
        match packet.body:
            case Ping(seq, target):
                if target == self.me:
                    self._local.send(address, Ack(seq), packet.sender)
            case Ack(seq):
                self._prober.acknowledged(seq)
            case Nack(seq):
                self._prober.nacked(seq)
            case PingRequest() as request:
                self._prober.relay(address, packet.sender, request)

    def _asked(self, stream: int, letter: Letter) -> None:
        match letter.body:
            case Sync() as sync:
                self._exchange.asked(stream, sync)
            case Ping(seq, target) if target == self.me:
                self._local.out.append(Answer(stream, Letter(self.me, Ack(seq))))

    def _answered(self, number: int, letter: Letter) -> None:
        probe, address = self._prober.asks.pop(number, None), self._exchange.asks.pop(number, None)
        match letter.body:
            case Ack(seq) if seq == probe:
                self._prober.acknowledged(seq)
            case Sync() as sync if address is not None:
                self._exchange.answered(address, sync)

    def _elapsed(self) -> None:
        local, settings = self._local, self.settings
        due = local.timers.next
        if due is not None and local.now - due > settings.probe_timeout_s and settings.health_max > 1:
            local.health.worse()
            self._wake()
        for timer in local.timers.ringing(local.now):
            self._ring(timer)
            if self._over:
                return

    def _listen(self) -> None:
        """A word of somebody else arrived, perhaps after a silence that means: this member was cut off."""
        local, settings = self._local, self.settings
        silence, local.heard = local.now - local.heard, local.now
        if (
            silence > SILENCE * settings.probe_interval_s * local.health.multiplier
            and settings.health_max > 1
        ):
            self._wake()

    def _wake(self) -> None:
        """It was not there: nothing it missed counts against others, and it compares lists soon."""
        self._prober.void()
        self._beliefs.reprieve()
        self._exchange.meet_soon()

    def _ring(self, timer: Timer) -> None:
        match timer.what:
            case "period":
                self._prober.period()
            case "timeout":
                self._prober.timeout()
            case "gossip":
                self._local.gossip()
                if self._beliefs.left and self.me not in self._local.news:
                    self._depart()
            case "suspect":
                self._beliefs.condemn(timer.whom)
            case "nack":
                self._prober.nack(timer.seq)
            case "relay":
                self._prober.relay_over(timer.seq)
            case "sync":
                self._exchange.meet()
            case "reconnect":
                self._exchange.reconnect()
            case "join":
                self._exchange.knock()
            case "forget":
                self._beliefs.forget(timer.whom)
            case "leave":
                self._depart()

    def _leave(self) -> None:
        local = self._local
        if self._beliefs.left:
            return
        alone = local.members.living <= 1
        self._beliefs.leave()
        if alone:
            self._depart()
            return
        local.after(self.settings.leave_s, "leave")
        local.gossip()

    def _depart(self) -> None:
        self._local.out.append(Departed())
        self._over = True

    def _check(self, metadata: bytes) -> None:
        if len(metadata) > self.settings.metadata_bytes_max:
            raise ValueError(
                f"found {len(metadata)} bytes of metadata; expected at most "
                f"{self.settings.metadata_bytes_max}: keep what is long elsewhere, and its address here."
            )
