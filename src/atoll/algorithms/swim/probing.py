"""Probing: one member is looked at in each period, each once in a round, by chance in what order.

A night watchman who tries every door once a round, in another order each night. A door that does not answer
is tried through the neighbours' windows before he calls it closed.

Source: Das, Gupta and Motivala, SWIM (2002), sections 3.1 and 4.3. Dadgar, Phillips and Currey, Lifeguard
(2018), Local Health Aware Probe: the nack, and periods that grow with this member's doubt of itself.
Departure: a stream is tried beside the indirect probes, for networks that lose datagrams alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.algorithms.swim.beliefs import Beliefs
from atoll.algorithms.swim.events import Ask, Dice
from atoll.algorithms.swim.local import Local, Timer
from atoll.algorithms.swim.members import Record
from atoll.algorithms.swim.messages import Ack, Address, Letter, Nack, Name, Ping, PingRequest, Suspect

RELAYS_MAX = 1024
NACK_SHARE = 0.8
"""Of a probe's time: a helper says so by then that it has heard nothing, in time to be heard itself."""


class Order:
    """A round in an order drawn by chance as it goes; who joins meanwhile has an even chance of each turn.

    It is a shuffle of which only what was touched is kept.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._moved: dict[int, int] = {}

    def draw(self, places: int, dice: Dice) -> int | None:
        """The next place, or None where the round is over; then begins another."""
        turn = self._turn
        if turn >= places:
            self._turn, self._moved = 0, {}
            return None
        other = turn + int(dice.random() * (places - turn))
        drawn, here = self._moved.get(other, other), self._moved.pop(turn, turn)
        if other != turn:
            self._moved[other] = here
        self._turn = turn + 1
        return drawn


@dataclass(slots=True)
class Probe:
    """The one under way."""

    name: Name
    uid: int
    address: Address
    seq: int
    answered: bool = False
    asked: int = 0
    nacked: int = 0


class Prober:
    """This member's own probes, and those it does for others."""

    def __init__(self, local: Local, beliefs: Beliefs) -> None:
        self._local, self._beliefs = local, beliefs
        self._order = Order()
        self._probe: Probe | None = None
        self._relays: dict[int, tuple[Address, int, Name]] = {}
        self.asks: dict[int, int] = {}
        """Streams opened for probes: which probe."""

    def period(self) -> None:
        """One probe is over, another begins."""
        local = self._local
        self._judge()
        target = self._next()
        self._probe = None
        local.after(local.settings.probe_interval_s * local.health.multiplier, "period")
        if target is None:
            return
        self._probe = Probe(target.name, target.uid, target.address, local.number())
        local.send(target.address, Ping(self._probe.seq, target.name), target.name)
        local.after(local.settings.probe_timeout_s * local.health.multiplier, "timeout")

    def void(self) -> None:
        """The probe under way says nothing about its target."""
        if self._probe is not None:
            self._probe.answered = True

    def _next(self) -> Record | None:
        members = self._local.members
        for _ in range(2 * members.places + 2):
            place = self._order.draw(members.places, self._local.dice)
            if place is None:
                members.compact()
                continue
            record = members.at(place)
            if record is not None and self._local.other(record):
                return record
        return None

    def _judge(self) -> None:
        probe, local = self._probe, self._local
        if probe is None or probe.answered:
            return
        local.health.worse()
        if probe.nacked < probe.asked:
            local.health.worse()
        record = local.members.get(probe.name)
        if record is not None and record.living and record.uid == probe.uid:
            self._beliefs.hear(Suspect(record.name, record.uid, record.incarnation, local.me))

    def timeout(self) -> None:
        """No answer yet: others are asked to try, and a stream is."""
        probe, local = self._probe, self._local
        if probe is None or probe.answered:
            return
        for helper in local.choose(local.settings.indirect, but=probe.name):
            probe.asked += 1
            local.send(helper.address, PingRequest(probe.seq, probe.name, probe.address), helper.name)
        if local.settings.stream_probe:
            ask = local.number()
            self.asks[ask] = probe.seq
            left = (
                local.settings.probe_interval_s - local.settings.probe_timeout_s
            ) * local.health.multiplier
            local.out.append(Ask(ask, probe.address, Letter(local.me, Ping(probe.seq, probe.name)), left))

    def acknowledged(self, seq: int) -> None:
        """An answer, to this member's probe or to one it does for another."""
        probe, local = self._probe, self._local
        if probe is not None and probe.seq == seq:
            if not probe.answered:
                probe.answered = True
                local.health.better()
                local.timers.drop(Timer("timeout"))
        elif (relay := self._relays.pop(seq, None)) is not None:
            address, theirs, name = relay
            local.timers.drop(Timer("nack", seq=seq))
            local.timers.drop(Timer("relay", seq=seq))
            local.send(address, Ack(theirs), name)

    def nacked(self, seq: int) -> None:
        """A helper heard nothing either; but it heard this member."""
        if self._probe is not None and self._probe.seq == seq:
            self._probe.nacked += 1

    def relay(self, address: Address, asker: Name, request: PingRequest) -> None:
        """Probe `target` for another."""
        local = self._local
        if len(self._relays) >= RELAYS_MAX:
            return
        seq = local.number()
        self._relays[seq] = (address, request.seq, asker)
        local.send(request.address, Ping(seq, request.target), request.target)
        local.after(local.settings.probe_timeout_s * NACK_SHARE, "nack", seq=seq)
        local.after(local.settings.probe_interval_s, "relay", seq=seq)

    def nack(self, seq: int) -> None:
        """Time to say that nothing was heard."""
        if (relay := self._relays.get(seq)) is not None:
            address, theirs, name = relay
            self._local.send(address, Nack(theirs), name)

    def relay_over(self, seq: int) -> None:
        """An answer would come too late."""
        self._relays.pop(seq, None)
