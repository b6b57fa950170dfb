"""Bad weather for Paxos: one seed, one story of lost, doubled and late letters, crashes, unfinished writes.

Time is a number, letters lie in one heap, and nothing waits: a thousand stories take a second.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from atoll.algorithms import caspaxos, paxos
from atoll.algorithms.multi_paxos import member as multi
from atoll.algorithms.multi_paxos import messages as words


@dataclass(frozen=True)
class Weather:
    """Shares of the letters; a letter takes up to `late_s`, a write up to `write_s`.

    `astray`: the share that takes up to twenty times as long.
    """

    loss: float = 0.1
    double: float = 0.1
    late_s: float = 0.2
    astray: float = 0.0
    write_s: float = 0.05


class Post:
    """Letters and alarms in the order of their time."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.dice, self.weather, self.now = random.Random(seed), weather, 0.0
        self.cut: set[tuple[str, str]] = set()
        self._disks: dict[str, float] = {}
        self._heap: list[tuple[float, int, str, Any]] = []
        self._count = 0

    def at(self, after_s: float, to: str, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + after_s, self._count, to, what))

    def send(self, sender: str, to: str, message: Any) -> None:
        copies = 0 if self.dice.random() < self.weather.loss else 1
        copies += self.dice.random() < self.weather.double
        for _ in range(0 if (sender, to) in self.cut else copies):
            slow = 20.0 if self.dice.random() < self.weather.astray else 1.0
            self.at(self.dice.random() * slow * self.weather.late_s, to, ("letter", sender, message))

    def write(self, to: str, what: Any) -> None:
        """Writes of one disk are done in order."""
        due = self.now + self.dice.random() * self.weather.write_s
        self._disks[to] = due = max(due, self._disks.get(to, 0.0))
        self.at(due - self.now, to, what)

    def partition(self, names: list[str]) -> None:
        """Some links stop, in one direction or both, and the others work again."""
        lone = self.dice.choice(names)
        ways = self.dice.choice(["in", "out", "both", "none"])
        others = [name for name in names if name != lone]
        self.cut = {(other, lone) for other in others if ways in ("in", "both")}
        self.cut |= {(lone, other) for other in others if ways in ("out", "both")}

    def next(self) -> tuple[str, Any] | None:
        if not self._heap:
            return None
        self.now, _, to, what = heapq.heappop(self._heap)
        return to, what


# -- one value -------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What a story showed."""

    chosen: set[Any] = field(default_factory=set)
    learnt: set[Any] = field(default_factory=set)
    crashes: int = 0
    steps: int = 0

    @property
    def safe(self) -> bool:
        return len(self.chosen | self.learnt) <= 1


class Jury:
    """Acceptors who crash, proposers who are born again, and somebody who sees every disk."""

    def __init__(self, seed: int, count: int, weather: Weather) -> None:
        self.post = Post(seed, weather)
        self.names = [f"a{n}" for n in range(count)]
        self.disks: dict[str, paxos.Cell[str]] = {name: paxos.Cell() for name in self.names}
        self.votes: dict[tuple[paxos.Ballot, str], set[str]] = {}
        self.machines: dict[str, Any] = {}
        self.life = dict.fromkeys(self.names, 0)
        self.verdict = Verdict()
        self.acceptor: Callable[[paxos.Cell[str]], Any] = lambda cell: paxos.Acceptor(
            cell=cell, learners=["learner"]
        )
        self.proposer: type[paxos.Proposer[str]] = paxos.Proposer
        self.quorum = paxos.majority(count)

    def start(self, proposers: int) -> None:
        for name in self.names:
            self.machines[name] = self.acceptor(self.disks[name])
        self.machines["learner"] = paxos.Learner(self.names)
        self.machines["learner"].quorum = self.quorum
        for n in range(proposers):
            self.propose(f"p{n}", f"value {n}")

    def propose(self, name: str, value: str) -> None:
        one = self.proposer(name, self.names, value, dice=self.post.dice, now=self.post.now)
        one.quorum = one._learner.quorum = self.quorum
        self.machines[name] = one
        self.post.at(self.post.dice.random() * 0.2, name, ("alarm",))

    def run(self, steps: int, *, crash: float = 0.02) -> Verdict:
        while self.verdict.steps < steps and (item := self.post.next()) is not None:
            self.verdict.steps += 1
            name, what = item
            if name in self.names and self.post.dice.random() < crash:
                self.crash(name)
            self.hear(name, what)
        return self.verdict

    def crash(self, name: str) -> None:
        self.verdict.crashes += 1
        self.life[name] += 1
        self.machines[name] = self.acceptor(self.disks[name])

    def hear(self, name: str, what: tuple[Any, ...]) -> None:
        machine, now = self.machines[name], self.post.now
        match what:
            case ("letter", sender, message):
                event: Any = paxos.Received(sender, message)
            case ("alarm",):
                event = paxos.Elapsed()
            case ("disk", seq, cell, life):
                if life != self.life[name]:
                    return
                self.store(name, cell)
                event = paxos.Written(seq)
            case _:
                raise AssertionError(what)
        before = getattr(machine, "deadline", None)
        for effect in machine.step(event, now):
            match effect:
                case paxos.Send(to, message):
                    self.post.send(name, to, message)
                case paxos.Write(seq, cell):
                    self.post.write(name, ("disk", seq, cell, self.life[name]))
                case paxos.Chosen(value):
                    self.verdict.learnt.add(value)
        deadline = getattr(machine, "deadline", None)
        if deadline is not None and (deadline != before or what == ("alarm",)):
            self.post.at(max(0.0, deadline - now), name, ("alarm",))

    def store(self, name: str, cell: paxos.Cell[str]) -> None:
        self.disks[name] = cell
        if cell.value is not None:
            by = self.votes.setdefault((cell.accepted, cell.value), set())
            by.add(name)
            if len(by) >= self.quorum:
                self.verdict.chosen.add(cell.value)


# -- a log -----------------------------------------------------------------------------------------------


class Parliament:
    """Members of a Multi-Paxos, who crash and come back with what was durable."""

    def __init__(
        self,
        seed: int,
        count: int = 3,
        weather: Weather | None = None,
        kind: type[multi.Member] = multi.Member,
        *,
        keep: Callable[[words.Durable], words.Durable] = lambda durable: durable,
        window: int = 4,
        quorum: int = 0,
    ) -> None:
        self.post = Post(seed, weather or Weather(late_s=0.1))
        self.names = [f"m{n}" for n in range(count)]
        self.kind, self.keep = kind, keep
        self.quorum = quorum or paxos.majority(count)
        self.settings = words.Settings(window=window)
        self.disks = {name: words.Durable() for name in self.names}
        self.life = dict.fromkeys(self.names, 0)
        self.machines: dict[str, multi.Member] = {}
        self.applied: dict[int, set[bytes | None]] = {}
        self.proposed: set[bytes] = set()
        self.crashes = self.elections = self.noops = self.most_open = 0
        self.due: dict[str, float] = {}
        for name in self.names:
            self.bear(name)

    def bear(self, name: str) -> None:
        self.machines[name] = self.kind(
            name,
            self.names,
            dice=self.post.dice,
            now=self.post.now,
            durable=self.keep(self.disks[name]),
            settings=self.settings,
        )
        self.machines[name].quorum = self.quorum
        self.alarm(name)

    def alarm(self, name: str) -> None:
        due = self.machines[name].deadline
        if self.due.get(name) != due:
            self.due[name] = due
            self.post.at(max(0.0, due - self.post.now), name, ("alarm",))

    def crash(self, name: str) -> None:
        self.crashes += 1
        self.life[name] += 1
        self.bear(name)

    def propose(self, name: str, command: bytes) -> None:
        self.proposed.add(command)
        self.feed(name, words.Proposed(len(self.proposed), command))

    def run(self, steps: int, *, crash: float = 0.0, propose: float = 0.05) -> None:
        for _ in range(steps):
            item = self.post.next()
            assert item is not None
            name, what = item
            if self.post.dice.random() < crash:
                self.crash(self.post.dice.choice(self.names))
            if crash and self.post.dice.random() < 0.02:
                self.post.partition(self.names)
            if self.post.dice.random() < propose:
                led = [one for one, machine in self.machines.items() if machine.leading]
                self.propose(self.post.dice.choice(led or self.names), b"c%d" % len(self.proposed))
            match what:
                case ("letter", sender, message):
                    self.feed(name, words.Received(sender, message))
                case ("alarm",):
                    self.due.pop(name, None)
                    self.feed(name, paxos.Elapsed())
                case ("disk", write, life) if life == self.life[name]:
                    self.store(name, write)
                    self.feed(name, paxos.Written(write.seq))

    def store(self, name: str, write: words.Write) -> None:
        old = self.disks[name]
        accepted = dict(old.accepted)
        if write.vote is not None:
            slot, ballot, value = write.vote
            if slot not in accepted or ballot >= accepted[slot][0]:
                accepted[slot] = (ballot, value)
        self.disks[name] = words.Durable(max(old.promised, write.promised), accepted)

    def feed(self, name: str, event: Any) -> None:
        machine = self.machines[name]
        led = machine.leading
        for effect in machine.step(event, self.post.now):
            match effect:
                case words.Send(to, message):
                    self.post.send(name, to, message)
                case words.Write():
                    self.post.write(name, ("disk", effect, self.life[name]))
                case words.Apply(slot, value):
                    self.applied.setdefault(slot, set()).add(value)
                    self.noops += value is None
        self.elections += machine.leading and not led
        self.most_open = max(self.most_open, len(machine._open))
        self.alarm(name)

    @property
    def safe(self) -> bool:
        return all(
            len(values) == 1 and values <= {*self.proposed, words.NOOP} for values in self.applied.values()
        )

    def heal(self) -> None:
        self.post.cut = set()
        self.post.weather = Weather(loss=0.0, double=0.0, late_s=0.02, write_s=0.01)

    def leader(self) -> str | None:
        led = [name for name, one in self.machines.items() if one.leading]
        return max(led, key=lambda name: self.machines[name].ballot or paxos.ZERO) if led else None


# -- a register ------------------------------------------------------------------------------------------

Page = tuple[str, ...]


@dataclass
class Done:
    """One change that was acknowledged: what it wrote, and how much had been acknowledged when it began."""

    id: str
    page: Page
    before: int


class Offices:
    """Acceptors of one register, and clients who each append their name by a change."""

    def __init__(
        self,
        seed: int,
        count: int = 3,
        weather: Weather | None = None,
        *,
        quorums: Callable[[Sequence[str]], caspaxos.Quorums] = caspaxos.Quorums.of,
    ) -> None:
        self.post = Post(seed, weather or Weather())
        self.names = [f"a{n}" for n in range(count)]
        self.quorums = quorums(self.names)
        self.cells: dict[str, paxos.Cell[Page]] = {name: paxos.Cell() for name in self.names}
        self.clients: dict[str, tuple[caspaxos.Proposal[Page], int]] = {}
        self.done: list[Done] = []
        self.begun = self.crashes = 0
        self.proposal: type[caspaxos.Proposal[Page]] = caspaxos.Proposal
        self.counter: Callable[[str], caspaxos.Counter] = caspaxos.Counter
        self.forget: Callable[[paxos.Cell[Page]], paxos.Cell[Page]] = lambda cell: cell

    def begin(self) -> None:
        self.begun += 1
        id = f"c{self.begun}"

        def append(page: Page | None) -> Page:
            old = page or ()
            return old if id in old else (*old, id)

        proposal = self.proposal(
            self.counter(id), self.quorums, append, dice=self.post.dice, now=self.post.now, patience_s=0.5
        )
        self.clients[id] = (proposal, len(self.done))
        self.post.at(0.0, id, ("alarm",))

    def run(self, changes: int, *, steps: int = 4000, crash: float = 0.01) -> None:
        for n in range(changes):
            self.post.at(n * 0.1 * self.post.dice.random(), "", ("begin",))
        for _ in range(steps):
            item = self.post.next()
            if item is None or len(self.done) == changes:
                return
            name, what = item
            if what == ("begin",):
                self.begin()
            elif name in self.cells:
                if self.post.dice.random() < crash:
                    self.crashes += 1
                    self.cells[name] = self.forget(self.cells[name])
                self.obey(name, *what[1:])
            elif name in self.clients:
                event: Any = paxos.Elapsed() if what == ("alarm",) else paxos.Received(*what[1:])
                self.feed(name, event)

    def obey(self, name: str, sender: str, message: Any) -> None:
        """As a conditional write on a store does: the rule is applied and durable in one instant."""
        if isinstance(message, paxos.Prepare):
            self.cells[name], reply = paxos.promise(self.cells[name], message.ballot)
        else:
            self.cells[name], reply = paxos.accept(self.cells[name], message.ballot, message.value)
        self.post.send(name, sender, reply)

    def feed(self, id: str, event: Any) -> None:
        proposal, before = self.clients[id]
        old = proposal.deadline
        for effect in proposal.step(event, self.post.now):
            if isinstance(effect, caspaxos.Changed):
                self.done.append(Done(id, effect.value, before))
                del self.clients[id]
                return
            self.post.send(id, effect.to, effect.message)
        if proposal.deadline is not None and (proposal.deadline != old or isinstance(event, paxos.Elapsed)):
            self.post.at(max(0.0, proposal.deadline - self.post.now), id, ("alarm",))

    @property
    def linear(self) -> bool:
        """All acknowledged pages are beginnings of one page, each has its own name once, none is stale."""
        pages = sorted((one.page for one in self.done), key=len)
        chain = all(long[: len(short)] == short for short, long in pairwise(pages))
        own = all(one.page.count(one.id) == 1 for one in self.done)
        seen = all({old.id for old in self.done[: one.before]} <= set(one.page) for one in self.done)
        return chain and own and seen
