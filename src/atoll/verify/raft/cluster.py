"""The cluster: hosts, network and clients on one heap of events, driven by one seed.

A puppet theatre with a single thread for all. What happens next stands in one list, sorted by time and then
by the order in which it was written there; no two runs of one seed can differ.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TextIO

from atoll.algorithms.raft.events import Elapsed, Received, Role, Written
from atoll.algorithms.raft.messages import Append, Chunk, Member, Membership, Message
from atoll.verify.raft.clients import Client
from atoll.verify.raft.counts import Counts
from atoll.verify.raft.history import Violation
from atoll.verify.raft.host import Condition, Host
from atoll.verify.raft.nemesis import Nemesis
from atoll.verify.raft.network import Network
from atoll.verify.raft.operator import Operator
from atoll.verify.raft.profile import Profile
from atoll.verify.raft.witness import Witness

LINES_A_BLOCK = 2_000
EVENTS_MAX = 2_000_000
"""A run has some ten thousand; one that has this many goes round in a circle."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a cluster is made of; each may be replaced by a broken one."""

    machine: Callable[..., Any]
    runtime: Callable[..., Any]
    state: Any


class Cluster:
    """One simulated cluster. `run` plays it to its end; raises `Violation`."""

    def __init__(self, seed: int, profile: Profile, parts: Parts, trace: TextIO | None = None) -> None:
        self.seed, self.profile, self.parts = seed, profile, parts
        self.now = 0.0
        self.load_until = profile.load_s
        self.counts = Counts(runs=1)
        self.hosts: dict[Member, Host] = {}
        self.gone: set[Member] = set()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entered = 0
        self._hash = hashlib.sha256()
        self._lines: list[str] = []
        self._trace = trace
        self._named = 0
        self.network = Network(self.dice("network"), self.at, self.clock, self.bitten)
        names = tuple(self.new_name() for _ in range(profile.members))
        bootstrap = Membership(names)
        self.witness = Witness(bootstrap, self.hosts, self.clock)
        self.nemesis = Nemesis(self)
        self.operator = Operator(self)
        for name in names:
            self.add(name, bootstrap)
        self.clients = [Client(self, number) for number in range(1, profile.clients + 1)]

    def dice(self, name: str) -> Random:
        """A source of chance of its own, so that one part's throws do not move another's."""
        return Random(f"{self.seed}/{name}")

    def clock(self) -> float:
        """Virtual seconds since the beginning."""
        return self.now

    def at(self, when: float, act: Callable[..., None], *what: Any) -> None:
        """Do this then; what is due at one time is done in the order it was asked for."""
        self._entered += 1
        heapq.heappush(self._heap, (when, self._entered, act, what))

    # -- the run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Load and trouble; then all is healed, and every operation must end."""
        self.nemesis.begin()
        self.operator.begin()
        self._until(self.load_until, lambda: False)
        self.nemesis.heal()
        self.operator.heal()
        healed = self.now
        if not self._until(healed + self.profile.healed_s_max, self.at_rest):
            waiting = [client.name for client in self.clients if client.busy]
            behind = {name: host.standing() for name, host in self.hosts.items()}
            raise Violation("liveness after healing", f"{waiting or 'members'} not done, {behind}")
        self.counts.healed_s_max = self.now - healed
        self.witness.agreed([*self.hosts.values()])
        self.finish()

    def _until(self, end: float, over: Callable[[], bool]) -> bool:
        heap, pop = self._heap, heapq.heappop
        look = self.now
        while heap and heap[0][0] <= end:
            self.now, _, act, what = pop(heap)
            act(*what)
            if self._entered > EVENTS_MAX:
                raise Violation("the world goes on", f"{EVENTS_MAX} events by {self.now:.3f} s, last {act}")
            if self.now >= look:
                if over():
                    return True
                look = self.now + 0.05
        self.now = end
        return over()

    def at_rest(self) -> bool:
        """No client waits, no change is under way, and all members have applied the same."""
        if any(client.busy for client in self.clients) or not self.operator.at_rest():
            return False
        members = self.witness.members
        names = members.voters + members.learners
        lives = [host.runtime for name in names if (host := self.hosts.get(name)) is not None]
        if len(lives) != len(names) or any(life is None for life in lives):
            return False
        return len({life.state.applied for life in lives if life is not None}) == 1

    def finish(self) -> None:
        """The figures of the run, whether it ended well or not."""
        counts, witness = self.counts, self.witness
        counts.virtual_s = self.now
        counts.elections = len(witness.leaders)
        counts.changes = witness.changes
        self._flush()

    @property
    def trace_hash(self) -> str:
        """One number for all that happened."""
        self._flush()
        return self._hash.hexdigest()

    def note(self, text: str) -> None:
        """A line of the trace."""
        self._lines.append(f"{self.now:.9f} {text}\n")
        if len(self._lines) >= LINES_A_BLOCK:
            self._flush()

    def _flush(self) -> None:
        block = "".join(self._lines)
        self._lines = []
        self._hash.update(block.encode())
        if self._trace is not None:
            self._trace.write(block)

    # -- members -------------------------------------------------------------------------------------

    def new_name(self) -> Member:
        """A name that no member ever had."""
        self._named += 1
        return f"m{self._named}"

    def add(self, name: Member, bootstrap: Membership) -> Host:
        """A new host with an empty disk, running."""
        host = self.hosts[name] = Host(self, name, bootstrap)
        host.drift(1.0 + host.dice.uniform(-1.0, 1.0) * self.profile.drift)
        host.start()
        return host

    def remove(self, name: Member) -> None:
        """A host that is shut down for ever; its letters are lost."""
        host = self.hosts.pop(name, None)
        if host is not None:
            host.stop(Condition.GONE)
            self.gone.add(name)
            self.note(f"{name} is gone")

    def leader(self) -> Host | None:
        """Who leads in the newest term, as seen from outside."""
        leaders = [
            (host.runtime.machine.term, name)
            for name, host in self.hosts.items()
            if host.runtime is not None and host.runtime.machine.role is Role.LEADER
        ]
        return self.hosts[max(leaders)[1]] if leaders else None

    def crashed(self, host: Host, fault: str, where: tuple[str, str, str]) -> None:
        """A host's process ended; `where`: boundary, role, what stood unforced."""
        counts = self.counts
        boundary, role, pending = where
        counts.crashes += 1
        counts.points.add((self.seed, host.name, host.boundary_number))
        counts.kinds[boundary, role, pending, fault] += 1
        counts.cells[fault, role] += 1
        self.note(f"{host.name} {fault}, {boundary}, {role}, {pending}")
        self.nemesis.crashed(host)

    def bitten(self, fault: str, name: str) -> None:
        """A fault really hurt `name`."""
        host = self.hosts.get(name)
        if host is not None:
            self.counts.cells[fault, host.role] += 1

    # -- letters -------------------------------------------------------------------------------------

    def letter(self, sender: Member, to: Member, message: Message) -> None:
        """A message between members."""
        self.network.send(sender, to, self._hand, to, sender, message)

    def _hand(self, to: Member, sender: Member, message: Message) -> None:
        host = self.hosts.get(to)
        if host is not None and host.runtime is not None:
            host.runtime.enter(host.runtime.receive, sender, message)

    def request(self, client: Client, to: Member, number: int, request: tuple[str, Any]) -> None:
        """A client's request to a member."""
        self.network.send(client.name, to, self._ask, client, to, number, request)

    def _ask(self, client: Client, to: Member, number: int, request: tuple[str, Any]) -> None:
        host = self.hosts.get(to)
        if host is not None and host.runtime is not None:
            host.runtime.enter(host.runtime.ask, client, number, request)

    def reply(self, host: Host, client: Client, number: int, answer: tuple[Any, ...]) -> None:
        """A member's answer to a client."""
        self.network.send(host.name, client.name, client.hear, number, answer)

    def reachable(self) -> list[Member]:
        """Whom clients know."""
        return [name for name in self.witness.members.voters if name in self.hosts] or [*self.hosts]

    def answered(self, client: Client, kind: str, size: int) -> None:
        """A client's request was answered for good."""
        self.counts.operations[kind] += size
        self.note(f"{client.name} {kind} {size} {self.witness.newest}")

    # -- the trace -----------------------------------------------------------------------------------

    def stepped(self, host: Host, event: Any, effects: list[Any]) -> None:
        """A member's machine heard something."""
        self.counts.steps += 1
        assert host.runtime is not None
        machine = host.runtime.machine
        self._lines.append(
            f"{self.now:.9f} {host.name} {told(event)} > {len(effects)} {machine.term} {machine.commit}\n"
        )
        if len(self._lines) >= LINES_A_BLOCK:
            self._flush()


def told(event: Any) -> str:
    """An event as a few words, without the bytes in it."""
    kind = type(event)
    if kind is Received:
        m = event.message
        if type(m) is Append:
            what = (m.term, m.round, m.prev_index, m.prev_term, m.commit, len(m.entries))
            return f"{event.sender} Append{what}"
        if type(m) is Chunk:
            return f"{event.sender} Chunk({m.term}, {m.round}, {m.snapshot.index}, {m.offset}) {len(m.data)}"
        return f"{event.sender} {m}"
    if kind is Written or kind is Elapsed:
        return str(event)
    return f"{kind.__name__} {getattr(event, 'id', '')}"
