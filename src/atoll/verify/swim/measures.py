"""What is measured on a simulated group: how soon a failure is known, how many are wronged, what it costs.

Each measure is a small experiment with a seed: the same seed gives the same figures to the last digit.

Source: Das, Gupta and Motivala, SWIM (2002), section 6: detection time, false positives, load by size.
Dadgar, Phillips and Currey, Lifeguard (2018), evaluation: members that are too slow to read their messages.
Departure: in our slow member every message waits, while its clock goes on; theirs stops at the same places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.messages import Name
from atoll.algorithms.swim.settings import Settings
from atoll.verify.swim.cluster import Cluster, Weather

WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Detection:
    """One crash in a group: who knew when. Times from the crash; costs of all members, before the crash."""

    size: int
    suspected_s: float
    """Until the first other suspects it."""
    first_s: float
    """Until the first other counts it as failed."""
    all_s: float
    """Until all others do."""
    false_failed: int
    """Verdicts of failure on members that ran."""
    packets: float
    """A member, a second, in quiet."""
    bytes: float


def detection(seed: int, size: int, settings: Settings, kind: type[Swim] = Swim) -> Detection:
    """One member of a group that is in agreement crashes. AssertionError: not all learnt of it."""
    cluster = Cluster(seed, settings, weigh=True, kind=kind)
    cluster.start_converged(size)
    cluster.run(WARM_UP_S)
    quiet = [(host.packets, host.bytes) for host in cluster.hosts]
    victim = int(cluster.dice.random() * size)
    cluster.crash(victim)
    ledger = Ledger(cluster, {f"m{victim}"})
    known = cluster.run(WARM_UP_S + 60 + 20 * math.log2(size), lambda: len(ledger.failed_at) >= size - 1)
    if not known:
        raise AssertionError(
            f"seed {seed}: {len(ledger.failed_at)} of {size - 1} members know that m{victim} crashed, "
            f"{cluster.now - WARM_UP_S:.0f} s after; expected all."
        )
    whole = WARM_UP_S * size
    return Detection(
        size,
        round(ledger.suspected_first - WARM_UP_S, 3),
        round(min(ledger.failed_at.values()) - WARM_UP_S, 3),
        round(max(ledger.failed_at.values()) - WARM_UP_S, 3),
        ledger.false_failed,
        round(sum(packets for packets, _ in quiet) / whole, 2),
        round(sum(size for _, size in quiet) / whole, 1),
    )


class Ledger:
    """What members are told of those who crashed, and of those who did not."""

    def __init__(self, cluster: Cluster, crashed: set[Name], slow: set[int] | None = None) -> None:
        self._crashed, self._slow = crashed, slow or set()
        self.suspected_first = math.inf
        self.failed_at: dict[int, float] = {}
        self.false_suspected = self.false_failed = self.false_failed_at_healthy = 0
        self.wronged: set[Name] = set()
        cluster.watch = self._hear

    def _hear(self, now: float, index: int, told: ev.Told) -> None:
        match told:
            case ev.Suspected(member):
                if member.name in self._crashed:
                    self.suspected_first = min(now, self.suspected_first)
                else:
                    self.false_suspected += 1
            case ev.Failed(member):
                if member.name in self._crashed:
                    self.failed_at.setdefault(index, now)
                elif int(member.name[1:]) not in self._slow:
                    self.false_failed += 1
                    self.wronged.add(member.name)
                    self.false_failed_at_healthy += index not in self._slow


@dataclass(frozen=True, slots=True)
class Dissemination:
    """One piece of news, told by one member: in how many gossip intervals all have heard it."""

    size: int
    rounds: float
    packets: float
    """Sent by each member meanwhile."""


def dissemination(seed: int, size: int, settings: Settings, kind: type[Swim] = Swim) -> Dissemination:
    """A member of a quiet group changes its metadata. AssertionError: not all heard of it."""
    cluster = Cluster(seed, settings, kind=kind)
    cluster.start_converged(size)
    cluster.run(WARM_UP_S)
    before = sum(host.packets for host in cluster.hosts)
    heard: set[int] = set()
    cluster.watch = lambda now, index, told: heard.add(index) if isinstance(told, ev.Updated) else None
    cluster.tell(0, ev.MetadataSet(b"news"))
    cluster.run(WARM_UP_S + 60, lambda: len(heard) >= size - 1)
    if len(heard) < size - 1:
        raise AssertionError(
            f"seed {seed}: {len(heard)} of {size - 1} members heard the news in 60 s; expected all."
        )
    sent = sum(host.packets for host in cluster.hosts) - before
    rounds = (cluster.now - WARM_UP_S) / settings.gossip_interval_s
    return Dissemination(size, round(rounds, 1), round(sent / size, 1))


@dataclass(frozen=True, slots=True)
class Overload:
    """Some members are slow, over and over; nobody crashed. Verdicts of failure on members that are well."""

    size: int
    slow: int
    pause_s: float
    lifeguard: bool
    false_failed: int
    false_failed_at_healthy: int
    """Of these, the verdicts told by members that are well themselves."""
    packets: float


def overload(
    seed: int, size: int, settings: Settings, *, slow: int = 4, pause_s: float = 16.0, seconds: float = 150.0
) -> Overload:
    """`slow` members stop reading and sending for `pause_s`, go on for half a second, and so on."""
    cluster = Cluster(seed, settings)
    cluster.start_converged(size)
    chosen = cluster.dice.sample(range(size), slow)
    ledger = Ledger(cluster, set(), set(chosen))

    def stop_reading(index: int) -> Callable[[], None]:
        def act() -> None:
            if cluster.now < WARM_UP_S + seconds:
                cluster.hosts[index].busy_until = cluster.now + pause_s
                cluster.at(cluster.now + pause_s + 0.5, stop_reading(index))

        return act

    for index in chosen:
        cluster.at(WARM_UP_S + cluster.dice.random(), stop_reading(index))
    cluster.run(WARM_UP_S + seconds)
    return Overload(
        size,
        slow,
        pause_s,
        settings.health_max > 1,
        ledger.false_failed,
        ledger.false_failed_at_healthy,
        round(sum(host.packets for host in cluster.hosts) / size / cluster.now, 2),
    )


@dataclass(frozen=True, slots=True)
class Lossy:
    """Packets and streams are lost by chance; nobody crashed."""

    size: int
    loss: float
    indirect: int
    false_suspected: int
    """Suspicions told by any member of any other."""
    false_failed: int


def lossy(seed: int, size: int, loss: float, settings: Settings, kind: type[Swim] = Swim) -> Lossy:
    """Streams are lost as often as packets here, so that only the indirect probes can help."""
    cluster = Cluster(seed, settings, Weather(loss=loss, stream_loss=loss), kind=kind)
    cluster.start_converged(size)
    ledger = Ledger(cluster, set())
    cluster.run(60.0)
    return Lossy(size, loss, settings.indirect, ledger.false_suspected, ledger.false_failed)
