"""A simulated group: many real SWIM machines, one heap of what happens when, one seed for all chance.

A model railway: the engines are the real ones, only the landscape is small, and the same switch setting
gives the same journey every time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.members import Members, merge
from atoll.algorithms.swim.messages import Alive, Name, Packet, pack
from atoll.algorithms.swim.settings import Settings

Watch = Callable[[float, int, ev.Told], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """The network. Times in seconds; chances from 0 to 1."""

    delay_s: tuple[float, float] = (0.0005, 0.005)
    loss: float = 0.0
    """Of packets."""
    stream_loss: float = 0.0
    """Of streams: one that is lost is unanswered after its time."""
    duplicates: float = 0.0


@dataclass(slots=True)
class Host:
    """One member's machine and its troubles."""

    machine: Swim | None
    side: int = 0
    """Hosts of different sides do not hear each other."""
    busy_until: float = 0.0
    """Until then it neither reads nor sends; its clock goes on: an overloaded process."""
    frozen_until: float = 0.0
    """Until then not even its clock goes on: a stopped process."""
    deaf_until: float = 0.0
    """Until then what is sent to it is lost; what it sends arrives."""
    wakes_at: float | None = None
    packets: int = 0
    bytes: int = 0
    streams: int = 0
    asks: set[int] = field(default_factory=set)


class Cluster:
    """Members `m0` to `m<n-1>`; a member's name is its address too."""

    def __init__(
        self,
        seed: int,
        settings: Settings,
        weather: Weather | None = None,
        *,
        weigh: bool = False,
        kind: type[Swim] = Swim,
    ) -> None:
        self.dice = random.Random(seed)
        self.settings, self.weather = settings, weather or Weather()
        self.now = 0.0
        self.hosts: list[Host] = []
        self.watch: Watch = lambda now, index, told: None
        self._weigh, self._kind = weigh, kind
        self._index: dict[Name, int] = {}
        self._heap: list[tuple[float, int, int, Any]] = []
        self._count = 0
        self._streams: dict[int, tuple[int, int]] = {}
        self.steps = 0

    # -- people ----------------------------------------------------------------------------------------

    def start_converged(self, size: int) -> None:
        """So many members who all know each other already."""
        known = Members()
        for index in range(size):
            name = f"m{index}"
            known.put(merge(None, Alive(name, index + 1, 0, name), self.now))
        for _ in range(size):
            self._add(members=known.fork(), uid=len(self.hosts) + 1)

    def add(self, seeds: tuple[int, ...] = (), metadata: bytes = b"") -> int:
        """A new member, who joins by `seeds`; its index."""
        index = self._add(uid=self.dice.getrandbits(62), metadata=metadata)
        if seeds:
            self.tell(index, ev.JoinAsked(tuple(f"m{seed}" for seed in seeds)))
        return index

    def _add(self, *, uid: int, members: Members | None = None, metadata: bytes = b"") -> int:
        index = len(self.hosts)
        self._index[f"m{index}"] = index
        self.hosts.append(Host(self._machine(index, uid, members, metadata)))
        self._arm(index)
        return index

    def _machine(self, index: int, uid: int, members: Members | None, metadata: bytes) -> Swim:
        name = f"m{index}"
        return self._kind(
            name,
            name,
            uid=uid,
            dice=self.dice,
            now=self.now,
            metadata=metadata,
            settings=self.settings,
            members=members,
        )

    def crash(self, index: int) -> None:
        """Its process ends without a word."""
        self.hosts[index].machine = None

    def restart(self, index: int, seeds: tuple[int, ...], metadata: bytes = b"") -> None:
        """A new process of the same name, which remembers nothing."""
        host = self.hosts[index]
        host.machine = self._machine(index, self.dice.getrandbits(62), None, metadata)
        host.asks.clear()
        host.wakes_at = None
        self.tell(index, ev.JoinAsked(tuple(f"m{seed}" for seed in seeds)))
        self._arm(index)

    def machine(self, index: int) -> Swim:
        """Of a member that runs."""
        machine = self.hosts[index].machine
        assert machine is not None, f"m{index} does not run"
        return machine

    def living_seen_by(self, index: int) -> set[Name]:
        """Whom it counts as in."""
        return {member.name for member in self.machine(index).members()}

    def agreed(self) -> bool:
        """All that run count exactly those that run as in."""
        running = {f"m{i}" for i, host in enumerate(self.hosts) if host.machine and host.machine.deadline}
        return all(self.living_seen_by(self._index[name]) == running for name in running)

    # -- time ------------------------------------------------------------------------------------------

    def tell(self, index: int, event: ev.Event) -> None:
        """One event to one machine, now."""
        host = self.hosts[index]
        if host.machine is not None:
            self.steps += 1
            for effect in host.machine.step(event, self.now):
                self._obey(index, host, effect)
            self._arm(index)

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at a time."""
        self._push(when, -1, act)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Go on to `until`, or to where `stop()` is true, looked at every tenth of a second."""
        look = self.now
        while self._heap and self._heap[0][0] <= until:
            if stop is not None and self._heap[0][0] >= look:
                if stop():
                    return True
                look = self._heap[0][0] + 0.1
            when, _, index, what = heapq.heappop(self._heap)
            self.now = when
            if index < 0:
                what()
            else:
                self._happen(index, what)
        self.now = until
        return stop() if stop is not None else False

    def _happen(self, index: int, what: ev.Event) -> None:
        host = self.hosts[index]
        if host.machine is None:
            if isinstance(what, ev.Asked):
                self._refuse(what.stream)
            return
        held = host.frozen_until if isinstance(what, ev.Elapsed) else max(host.frozen_until, host.busy_until)
        if isinstance(what, ev.Elapsed) and host.wakes_at != self.now:
            return
        if held > self.now:
            self._push(held, index, what)
            if isinstance(what, ev.Elapsed):
                host.wakes_at = held
            return
        if isinstance(what, ev.Unanswered | ev.Answered):
            if what.id not in host.asks:
                return
            host.asks.discard(what.id)
        if isinstance(what, ev.Elapsed):
            host.wakes_at = None
        self.tell(index, what)

    def _arm(self, index: int) -> None:
        host = self.hosts[index]
        due = host.machine.deadline if host.machine is not None else None
        if due is not None and (host.wakes_at is None or due < host.wakes_at):
            host.wakes_at = max(due, self.now)
            self._push(host.wakes_at, index, _ELAPSED)

    def _push(self, when: float, index: int, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, index, what))

    # -- the network -----------------------------------------------------------------------------------

    def _obey(self, index: int, host: Host, effect: ev.Effect) -> None:
        match effect:
            case ev.Send(address, packet):
                self._send(index, host, address, packet)
            case ev.Ask():
                self._ask(index, host, effect)
            case ev.Answer(stream, letter):
                asker, number = self._streams.pop(stream)
                if self._weigh:
                    host.bytes += len(pack(letter))
                if self.hosts[asker].side == host.side:
                    self._push(self._leaves(host) + self._delay(), asker, ev.Answered(number, letter))
            case _:
                self.watch(self.now, index, effect)

    def _leaves(self, host: Host) -> float:
        return max(self.now, host.busy_until)

    def _delay(self) -> float:
        low, high = self.weather.delay_s
        return low + (high - low) * self.dice.random()

    def _send(self, index: int, host: Host, address: Name, packet: Packet) -> None:
        host.packets += 1
        if self._weigh:
            host.bytes += len(pack(packet))
        other = self._hearer(address, host)
        if other is None:
            return
        if self.weather.loss and self.dice.random() < self.weather.loss:
            return
        received = ev.Received(f"m{index}", packet)
        self._push(self._leaves(host) + self._delay(), other, received)
        if self.weather.duplicates and self.dice.random() < self.weather.duplicates:
            self._push(self._leaves(host) + 3 * self._delay(), other, received)

    def _hearer(self, address: Name, sender: Host) -> int | None:
        other = self._index.get(address)
        if other is None:
            return None
        host = self.hosts[other]
        return other if host.side == sender.side and host.deaf_until <= self.now else None

    def _ask(self, index: int, host: Host, ask: ev.Ask) -> None:
        host.streams += 1
        if self._weigh:
            host.bytes += len(pack(ask.letter))
        host.asks.add(ask.id)
        self._push(self.now + ask.timeout_s, index, ev.Unanswered(ask.id))
        other = self._hearer(ask.address, host)
        if other is None or host.deaf_until > self.now:
            return
        if self.weather.stream_loss and self.dice.random() < self.weather.stream_loss:
            return
        self._count += 1
        self._streams[self._count] = (index, ask.id)
        self._push(self._leaves(host) + 2 * self._delay(), other, ev.Asked(self._count, ask.letter))

    def _refuse(self, stream: int) -> None:
        asker, number = self._streams.pop(stream)
        self._push(self.now + self._delay(), asker, ev.Unanswered(number))


_ELAPSED = ev.Elapsed()
