"""A group's life under a seed: members come, go, crash, freeze and are cut off; then peace, and a reckoning.

What must be true in the end: everybody counts exactly those in who run, with their newest metadata. What
must be true all the time: nobody is told the same thing twice, no incarnation goes back, no living member's
name is taken from it, and who was never cut off, frozen, deaf or overloaded is never called failed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.messages import Name
from atoll.algorithms.swim.settings import Settings
from atoll.verify.swim.cluster import Cluster, Weather

HARDSHIPS = (
    *("crash", "restart", "leave", "join", "describe", "rest"),
    *("cut", "heal", "freeze", "overload", "deafen"),
)
SETTINGS = Settings(sync_interval_s=10.0, reconnect_interval_s=10.0)
PEACE_S = 300.0


class Wrong(AssertionError):
    """What must be true is not; the seed replays it."""


@dataclass
class Life:
    """One run. `happened` counts hardships and what members were told."""

    seed: int
    kind: type[Swim] = Swim
    size: int = 7
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        weather = Weather(loss=0.03, duplicates=0.03, stream_loss=0.02)
        self.cluster = Cluster(self.seed, SETTINGS, weather, kind=self.kind)
        self.cluster.watch = self._hear
        self._known: dict[int, dict[Name, int]] = {}
        self._said: dict[int, int] = {}
        self._tried: set[int] = set()
        """Members to whom something happened that others may take for a failure."""
        self._gone: set[int] = set()
        self._metadata: dict[int, bytes] = {}

    def live(self, hardships: int = 20) -> Life:
        """All of it. `Wrong` where something must be true and is not."""
        cluster = self.cluster
        for index in range(self.size):
            self._join(() if index == 0 else (0, 1))
        cluster.run(10.0)
        for _ in range(hardships):
            self._suffer(HARDSHIPS[int(cluster.dice.random() * len(HARDSHIPS))])
            cluster.run(cluster.now + 1 + 9 * cluster.dice.random())
        self._heal()
        self._restart_seed()
        if not cluster.run(cluster.now + PEACE_S, self._in_agreement):
            raise Wrong(f"seed {self.seed}: {PEACE_S:.0f} s of peace, and {self._quarrel()}")
        return self

    # -- hardships -------------------------------------------------------------------------------------

    def _running(self) -> list[int]:
        return [i for i, host in enumerate(self.cluster.hosts) if host.machine and host.machine.deadline]

    def _suffer(self, what: str) -> None:
        running = self._running()
        one = running[int(self.cluster.dice.random() * len(running))]
        self.happened[what if self._done(what, one, running) else "rest"] += 1

    def _done(self, what: str, one: int, running: list[int]) -> bool:
        """Whether it could be done: a group of three loses nobody more."""
        cluster = self.cluster
        match what:
            case "crash" if len(running) > 3:
                self._gone.add(one)
                cluster.crash(one)
            case "restart":
                down = [i for i in sorted(self._gone) if cluster.hosts[i].machine is None]
                if not down:
                    return False
                self._restart(down[0], tuple(running[:3]))
            case "leave" if len(running) > 3:
                self._gone.add(one)
                cluster.tell(one, ev.LeaveAsked())
            case "join" if len(cluster.hosts) < 2 * self.size:
                self._join(tuple(running[:3]))
            case "cut":
                for index, host in enumerate(cluster.hosts):
                    host.side = int(cluster.dice.random() * 2)
                    self._tried.add(index)
            case "heal":
                self._heal()
            case "freeze":
                self._tried.add(one)
                cluster.hosts[one].frozen_until = cluster.now + 40 * cluster.dice.random()
            case "overload":
                self._tried.add(one)
                cluster.hosts[one].busy_until = cluster.now + 40 * cluster.dice.random()
            case "deafen":
                self._tried.add(one)
                cluster.hosts[one].deaf_until = cluster.now + 60 * cluster.dice.random()
            case "describe":
                cluster.tell(one, ev.MetadataSet(self._describe(one)))
            case _:
                return False
        return True

    def _restart_seed(self) -> None:
        """Where the seeds of all are gone, nobody could find anybody."""
        if 0 in self._gone:
            self._restart(0, tuple(self._running()[:3]))

    def _restart(self, index: int, seeds: tuple[int, ...]) -> None:
        self._tried.add(index)
        self._gone.discard(index)
        self._known.pop(index, None)
        self._said.pop(index, None)
        self.cluster.restart(index, seeds, self._describe(index))

    def _describe(self, index: int) -> bytes:
        self._metadata[index] = f"m{index}, {self.cluster.now:.3f}".encode()
        return self._metadata[index]

    def _join(self, seeds: tuple[int, ...]) -> None:
        cluster = self.cluster
        index = len(cluster.hosts)
        side = 0 if not seeds else cluster.hosts[seeds[0] % len(cluster.hosts)].side
        cluster.add(tuple(seed for seed in seeds if seed != index), self._describe(index))
        cluster.hosts[index].side = side
        if len({host.side for host in cluster.hosts}) > 1:
            self._tried.add(index)

    def _heal(self) -> None:
        for host in self.cluster.hosts:
            host.side = 0
            host.deaf_until = 0.0

    # -- what must be true -----------------------------------------------------------------------------

    def _hear(self, now: float, index: int, told: ev.Told) -> None:
        self.happened[f"told {type(told).__name__.lower()}"] += 1
        known = self._known.setdefault(index, {})
        match told:
            case ev.Joined(member):
                if member.name in known:
                    raise Wrong(f"seed {self.seed}, {now:.3f}: m{index} is told twice of {member.name}")
                known[member.name] = member.incarnation
            case ev.Failed(member) | ev.Left(member):
                known.pop(member.name, None)
                if isinstance(told, ev.Failed):
                    self._fair(now, index, int(member.name[1:]))
            case ev.Suspected(member) | ev.Refuted(member) | ev.Updated(member):
                if member.incarnation < known.get(member.name, 0):
                    raise Wrong(
                        f"seed {self.seed}, {now:.3f}: m{index} believes less of {member.name} than before"
                    )
                known[member.name] = member.incarnation
            case ev.NameTaken(member):
                raise Wrong(f"seed {self.seed}, {now:.3f}: m{index} is outbid, and has its name alone")

    def _fair(self, now: float, index: int, victim: int) -> None:
        if not {victim, index} & self._tried and victim not in self._gone:
            raise Wrong(f"seed {self.seed}, {now:.3f}: m{index} calls m{victim} failed, which never stopped")

    def _in_agreement(self) -> bool:
        cluster = self.cluster
        for index in self._running():
            said = cluster.machine(index).status().incarnation
            if said < self._said.get(index, 0):
                raise Wrong(f"seed {self.seed}: the incarnation of m{index} went back to {said}")
            self._said[index] = said
        return cluster.agreed() and not self._quarrel()

    def _quarrel(self) -> str:
        """Who sees what otherwise than it is; empty where nobody does."""
        running = self._running()
        for index in running:
            seen = {member.name: member.metadata for member in self.cluster.machine(index).members()}
            if seen != {f"m{i}": self._metadata[i] for i in running}:
                return (
                    f"m{index} sees {sorted(seen)}; expected {sorted(f'm{i}' for i in running)}, up to date"
                )
        return ""
