"""What the parts of one machine share: its list, its news, its timers, its opinion of itself, its outbox."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.algorithms.swim.dissemination import News, packet, retransmissions, room_for_news
from atoll.algorithms.swim.events import Dice, Effect, Send
from atoll.algorithms.swim.health import LocalHealth
from atoll.algorithms.swim.members import Members, Record
from atoll.algorithms.swim.messages import Address, Body, Name, State, Update
from atoll.algorithms.swim.settings import Settings
from atoll.algorithms.swim.timers import Timers


@dataclass(frozen=True, slots=True)
class Timer:
    """What rings: `what`, for whom or for which number."""

    what: str
    whom: Name = ""
    seq: int = 0


class Local:
    """One member's own state, and the one way by which its packets leave."""

    def __init__(self, me: Name, settings: Settings, dice: Dice, members: Members) -> None:
        self.me, self.settings, self.dice = me, settings, dice
        self.now = 0.0
        self.out: list[Effect] = []
        self.timers: Timers[Timer] = Timers()
        self.members = members
        self.news = News()
        self.health = LocalHealth(settings.health_max)
        self.heard = 0.0
        """When the last word of anybody else arrived."""
        self._seq = 0

    def number(self) -> int:
        """A number that nothing else of this machine has."""
        self._seq += 1
        return self._seq

    def after(self, seconds: float, what: str, whom: Name = "", seq: int = 0) -> None:
        """Ring in so many seconds."""
        self.timers.set(Timer(what, whom, seq), self.now + seconds)

    def other(self, record: Record) -> bool:
        """Living, and not this member itself."""
        return record.living and record.name != self.me

    def choose(self, most: int, but: Name = "") -> list[Record]:
        """Living others by chance."""
        return self.members.choose(self.dice, most, lambda one: self.other(one) and one.name != but)

    def spread(self, update: Update) -> None:
        """Pass this on, beginning within one gossip interval."""
        self.news.add(update)
        if self.settings.gossip_fanout and GOSSIP not in self.timers:
            self.timers.set(GOSSIP, self.now + self.settings.gossip_interval_s * self.dice.random())

    def send(self, address: Address, body: Body | None, to: Name = "") -> None:
        """One packet with as much news as fits; one that is doubted is told so first (the buddy system)."""
        settings = self.settings
        first = None
        if settings.buddy and to and (known := self.members.get(to)) is not None:
            if known.state is State.SUSPECT or known.state is State.FAILED:
                first = known.verdict()
        news: list[Update] = []
        if len(self.news):
            room = room_for_news(settings.packet_bytes_max, self.me, body, first)
            most = retransmissions(settings.retransmit_multiplier, self.members.living)
            news = self.news.take(room, most, to if first is not None else "")
        if body is not None or news or first is not None:
            self.out.append(Send(address, packet(self.me, body, first, news)))

    def gossip(self) -> None:
        """News to a few by chance, those who failed a short while ago among them."""
        settings = self.settings
        recent = self.now - settings.gossip_to_dead_s

        def fit(one: Record) -> bool:
            return self.other(one) or (one.state is State.FAILED and one.visible and one.since > recent)

        chosen = self.members.choose(self.dice, settings.gossip_fanout, fit)
        for record in chosen:
            if not len(self.news):
                break
            self.send(record.address, None, record.name)
        if len(self.news) and chosen:
            self.timers.set(GOSSIP, self.now + settings.gossip_interval_s)


GOSSIP = Timer("gossip")
