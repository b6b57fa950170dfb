"""The nemesis: decides which fault hurts whom, and when.

A chess player against the cluster, who aims: not "somebody falls", but "the candidate's power goes while its
vote is half written". She picks a cell of the table (fault, role) and waits until somebody plays that role.

What the world may not do is in one place: at most one disk lost at a time (`Operator.can_lose`), and bits
flip only where a check sum can tell damage from a torn tail. Everything else may happen together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.algorithms.raft.events import Role
from atoll.verify.raft.host import BOUNDARIES, Condition, Host, Trap
from atoll.verify.raft.network import one_way, ring, split
from atoll.verify.virtual_disk import PowerLoss

if TYPE_CHECKING:
    from atoll.verify.raft.cluster import Cluster

CUTS = {
    "power cut, dropped": PowerLoss.DROPPED,
    "power cut, torn": PowerLoss.TORN,
    "power cut, reordered": PowerLoss.REORDERED,
    "power cut, names lost": PowerLoss.LOST_ENTRIES,
}
AIMS = {"leader": 0.5, "follower": 0.18, "candidate": 0.16, "learner": 0.16}
LOSING = {"leader": 0.28, "follower": 0.24, "candidate": 0.26, "learner": 0.22}
"""Of faults that cost a disk, of which few are allowed."""
WAITING_MAX = 4


class Nemesis:
    """Draws a fault and a role, finds somebody, and hurts him."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.dice = cluster.dice("nemesis")
        self._healed = False
        self._fair = cluster.profile.weather
        self._waiting: dict[str, list[Callable[[Host], None]]] = {"candidate": [], "learner": []}
        self._acts: list[tuple[str, float, Callable[[Host], None]]] = [
            ("transfer", 1.0, self._transfer),
            ("killed", 1.5, self._power(None)),
            *[(name, 1.1, self._power(how)) for name, how in CUTS.items()],
            ("disk stall", 1.0, self._stall),
            ("write error", 0.7, self._write_error),
            ("bit flip", 0.6, self._flip),
            ("wiped", 0.6, self._wipe),
            ("blackout", 0.25, self._blackout),
            ("pause", 1.0, self._pause),
            ("clock drift", 0.5, self._drift),
            ("isolation", 1.2, self._isolate),
            ("one-way cut", 1.0, self._one_way),
            ("split", 0.7, self._split),
            ("ring cut", 0.5, self._ring),
            ("weather", 0.7, self._weather),
        ]
        self._weights = [weight for _, weight, _ in self._acts]

    def begin(self) -> None:
        self.calm()
        self._next()

    def calm(self) -> None:
        """Fair weather: a little of everything."""
        weather = self.cluster.network.weather
        weather.lost = weather.doubled = self._fair
        weather.slow = self._fair

    def _next(self) -> None:
        if self._healed:
            return
        cluster = self.cluster
        cluster.at(cluster.now + self.dice.expovariate(1 / cluster.profile.trouble_every_s), self._next)
        self._watched()
        name, _, act = self.dice.choices(self._acts, self._weights)[0]
        aims = LOSING if name in ("wiped", "bit flip") else AIMS
        role = self.dice.choices([*aims], [*aims.values()])[0]
        found = [host for host in cluster.hosts.values() if host.role == role]
        if found:
            host = self.dice.choice(found)
            cluster.note(f"nemesis: {name} for {role} {host.name}")
            act(host)
        elif role in self._waiting and len(self._waiting[role]) < WAITING_MAX:
            self._waiting[role].append(act)

    def _watched(self) -> None:
        """A fault may have waited for a learner."""
        learners = [host for host in self.cluster.hosts.values() if host.role == "learner"]
        if learners and self._waiting["learner"]:
            self._now(self._waiting["learner"].pop(0), self.dice.choice(learners))

    # -- what the cluster tells ----------------------------------------------------------------------

    def became(self, host: Host, role: Role) -> None:
        """Somebody changed his role; a fault may have waited for that."""
        acts = self._waiting["candidate"]
        if acts and role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and self.dice.random() < 0.7:
            self.cluster.at(self.cluster.now, self._now, acts.pop(0), host)

    def _now(self, act: Callable[[Host], None], host: Host) -> None:
        if not self._healed and host.runtime is not None:
            self.cluster.note(f"nemesis: what had waited for {host.name}, {host.role}")
            act(host)

    def crashed(self, host: Host) -> None:
        """Its power comes back after a while."""
        self._restart(host, self.dice.uniform(0.02, 1.2))

    def failed(self, host: Host) -> None:
        """Its disk said no; the process ends itself a little later."""
        self.cluster.at(self.cluster.now + self.dice.uniform(0.05, 0.6), self._end, host, host.starts)

    def _end(self, host: Host, life: int) -> None:
        if host.runtime is not None and host.starts == life:
            host.crash(PowerLoss.DROPPED if self.dice.random() < 0.5 else None)

    def _restart(self, host: Host, delay: float) -> None:
        self.cluster.at(self.cluster.now + delay, host.start)

    def heal(self) -> None:
        """Everything works again; who is down comes up, and clocks go on drifting within their bound."""
        cluster = self.cluster
        self._healed = True
        cluster.network.heal()
        cluster.network.weather.clear()
        cluster.note("healed")
        for host in cluster.hosts.values():
            host.trap = None
            host.stalled_until = 0.0
            host.disk.fail_sync_at = None
            if host.frozen_until > cluster.now:
                host.frozen_until = cluster.now
                host.thaw()
            if host.condition is Condition.DOWN:
                self._restart(host, self.dice.uniform(0.0, 0.5))

    # -- the acts ------------------------------------------------------------------------------------

    def _power(self, how: PowerLoss | None) -> Callable[[Host], None]:
        return lambda host: self._trap(host, how)

    def _trap(self, host: Host, how: PowerLoss | None) -> None:
        """Now, or at one of the next boundaries of its disk."""
        if self.dice.random() < 0.15:
            host.crash(how)
        else:
            boundary = self.dice.choice(("", *["record written"] * 5, *BOUNDARIES[:3], *BOUNDARIES))
            host.trap = Trap(how, boundary, self.dice.randint(1, 3))

    def _blackout(self, host: Host) -> None:
        """The power goes for all of them at once."""
        how = self.dice.choice([*CUTS.values()])
        for other in [*self.cluster.hosts.values()]:
            if other.runtime is not None:
                other.crash(how)

    def _stall(self, host: Host) -> None:
        host.stalled_until = self.cluster.now + self.dice.uniform(0.05, 1.0)

    def _write_error(self, host: Host) -> None:
        host.disk.fail_sync_at = host.disk.syncs + 1

    def _flip(self, host: Host) -> None:
        last = self.cluster.profile.last_batch_flips
        if not last and not self.cluster.operator.can_lose(host):
            return
        host.disk.on_change, host.disk.fail_sync_at = None, None
        if host.files.flip(self.dice.random(), last=last):
            self.cluster.bitten("bit flip", host.name)
            host.doomed = not last
            host.crash(None)
        elif host.runtime is not None:
            host.watch()

    def _wipe(self, host: Host) -> None:
        if self.cluster.operator.can_lose(host):
            self.cluster.bitten("wiped", host.name)
            self.cluster.operator.wiped(host)

    def _pause(self, host: Host) -> None:
        self.cluster.bitten("pause", host.name)
        host.freeze(self.dice.uniform(0.02, 1.2))

    def _drift(self, host: Host) -> None:
        self.cluster.bitten("clock drift", host.name)
        host.drift(1.0 + self.dice.uniform(-1.0, 1.0) * self.cluster.profile.drift)

    def _transfer(self, host: Host) -> None:
        if host.runtime is not None:
            self.cluster.counts.notes["transfers asked"] += 1
            host.runtime.enter(host.runtime.transfer)
            if self.dice.random() < 0.4:  # the old leader does not hear that it is succeeded
                soon = self.cluster.now + self.dice.uniform(0.001, 0.01)
                self.cluster.at(soon, self._now, self._isolate, host)

    def _cut(self, fault: str, pairs: list[tuple[str, str]]) -> None:
        network, cluster = self.cluster.network, self.cluster
        network.cut(fault, pairs)
        cluster.at(cluster.now + self.dice.uniform(0.2, 1.5), network.heal, fault)

    def _others(self, host: Host) -> list[str]:
        return [name for name in self.cluster.hosts if name != host.name]

    def _isolate(self, host: Host) -> None:
        self._cut("isolation", split([host.name], self._others(host)))

    def _one_way(self, host: Host) -> None:
        others = self._others(host)
        some = [name for name in others if self.dice.random() < 0.7] or others
        pairs = one_way([host.name], some) if self.dice.random() < 0.5 else one_way(some, [host.name])
        self._cut("one-way cut", pairs)

    def _split(self, host: Host) -> None:
        others = self._others(host)
        self.dice.shuffle(others)
        self._cut("split", split([host.name, *others[: len(others) // 2]], others[len(others) // 2 :]))

    def _ring(self, host: Host) -> None:
        names = [*self.cluster.hosts]
        self.dice.shuffle(names)
        self._cut("ring cut", ring(names))

    def _weather(self, host: Host) -> None:
        weather, cluster = self.cluster.network.weather, self.cluster
        weather.lost, weather.doubled = self.dice.uniform(0, 0.3), self.dice.uniform(0, 0.3)
        weather.slow = self.dice.uniform(0, 0.3)
        cluster.at(cluster.now + self.dice.uniform(0.3, 2.0), self._clear)

    def _clear(self) -> None:
        if not self._healed:
            self.calm()
