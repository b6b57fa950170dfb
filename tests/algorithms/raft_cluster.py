"""A few machines in one process, for the tests of the machine: their letters, their disks, one clock.

Nothing moves by itself: a test delivers each letter, finishes each write and lets time pass. What Raft
promises is checked after every step: one leader a term, one log, nothing committed is ever lost.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from atoll.algorithms.raft.events import (
    Accepted,
    Applied,
    Apply,
    Became,
    ChunkStored,
    Compacted,
    Effect,
    Elapsed,
    Event,
    ReadReady,
    Received,
    Refused,
    Role,
    Send,
    SendChunk,
    StoreChunk,
    Write,
    WriteFailed,
    Written,
)
from atoll.algorithms.raft.machine import Raft
from atoll.algorithms.raft.memory_log import MemoryLog
from atoll.algorithms.raft.messages import Chunk, Entry, Kind, Membership, Message, Snapshot
from atoll.algorithms.raft.settings import Settings


@dataclass
class Letter:
    sender: str
    to: str
    message: Message


class Node:
    """One member: its machine, and what survives a crash beside it."""

    def __init__(self, name: str, bootstrap: Membership, settings: Settings, seed: int) -> None:
        self.name, self.bootstrap, self.settings = name, bootstrap, settings
        self.dice = random.Random(f"{name}{seed}")
        self.log = MemoryLog()
        self.term, self.vote = 0, ""
        self.applied: list[Entry] = []
        """By index - 1; a state made from a snapshot begins with the leader's."""
        self.body = b""
        self.partial = b""
        self.writes: list[Write | StoreChunk] = []
        self.up = True
        self.raft: Raft

    def start(self, now: float) -> None:
        self.writes = []
        self.up = True
        snapshot = self.log.snapshot()
        self.applied = self.applied[: snapshot.index if snapshot else 0]
        self.raft = Raft(
            self.name,
            self.log,
            term=self.term,
            vote=self.vote,
            bootstrap=self.bootstrap,
            settings=self.settings,
            dice=self.dice,
            now=now,
            applied=len(self.applied),
        )


@dataclass
class Cluster:
    """Machines, the letters between them, and what has been seen of them."""

    members: list[str]
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    patient: bool = False
    """Writes wait for `write`; else they are done at once."""

    def __post_init__(self) -> None:
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.letters: list[Letter] = []
        self.heard: dict[str, list[Effect]] = {}
        self.leaders: dict[int, str] = {}
        self.committed: list[Entry] = []
        bootstrap = Membership(tuple(self.members))
        for name in self.members:
            self.add(name, bootstrap)

    def add(self, name: str, bootstrap: Membership | None = None) -> Node:
        node = Node(name, bootstrap or Membership(()), self.settings, self.seed)
        self.nodes[name] = node
        self.heard[name] = []
        node.start(self.now)
        return node

    # -- one step -------------------------------------------------------------------------------------

    def step(self, name: str, event: Event) -> list[Effect]:
        """One event, and the effects that need no disk; the list of all effects."""
        node = self.nodes[name]
        if not node.up:
            return []
        effects = node.raft.step(event, self.now)
        if isinstance(event, Elapsed) and not effects:
            assert node.raft.deadline > self.now, f"{name} asks for the same moment again and does nothing"
        for effect in effects:
            self.obey(node, effect)
        self.check(node)
        if self.settings.apply_ahead_max and any(isinstance(effect, Apply) for effect in effects):
            self.step(name, Applied(len(node.applied)))
        if not self.patient:
            while node.writes:
                effects = effects + self.write(name)
        return effects

    def obey(self, node: Node, effect: Effect) -> None:
        match effect:
            case Write() | StoreChunk():
                node.writes.append(effect)
            case Send(to, message):
                assert to not in ("", node.name), f"{node.name} writes to {to!r}"
                self.letters.append(Letter(node.name, to, message))
            case SendChunk(to, term, round, snapshot, offset, bytes_max):
                data = node.body[offset : offset + bytes_max]
                done = offset + len(data) == len(node.body)
                self.letters.append(Letter(node.name, to, Chunk(term, round, snapshot, offset, data, done)))
            case Apply(entries):
                for entry in entries:
                    self.apply(node, entry)
            case Accepted() | Refused() | ReadReady() | Became():
                self.heard[node.name].append(effect)

    def write(self, name: str) -> list[Effect]:
        """Finish the oldest write of `name`."""
        node = self.nodes[name]
        match node.writes.pop(0):
            case Write(seq, term, vote, entries):
                node.term, node.vote = term, vote
                node.log.write(entries)
                return self.step(name, Written(seq))
            case StoreChunk(snapshot, offset, data, done):
                return self.store(node, snapshot, offset, data, done)

    def store(self, node: Node, snapshot: Snapshot, offset: int, data: bytes, done: bool) -> list[Effect]:
        node.partial = b"" if offset == 0 else node.partial
        whole = offset == len(node.partial)
        if whole:
            node.partial += data
        if whole and done:
            node.body, node.partial = node.partial, b""
            node.log.install(snapshot)
            node.applied = self.committed[: snapshot.index]
            return self.step(node.name, ChunkStored(snapshot, len(node.body), True))
        return self.step(node.name, ChunkStored(snapshot, len(node.partial), False))

    def apply(self, node: Node, entry: Entry) -> None:
        """What is applied is the next, is durable here, and is the same everywhere."""
        assert entry.index == len(node.applied) + 1, f"{node.name} applied {entry.index} out of order"
        assert node.log.term(entry.index) == entry.term, f"{node.name} applied {entry.index} undurable"
        node.applied.append(entry)
        if entry.index <= len(self.committed):
            assert self.committed[entry.index - 1] == entry, f"two entries applied at {entry.index}"
        else:
            self.committed.append(entry)

    def check(self, node: Node) -> None:
        """Election safety and leader completeness."""
        raft = node.raft
        if raft.role is not Role.LEADER or self.leaders.get(raft.term) == node.name:
            return
        assert raft.term not in self.leaders, f"two leaders in term {raft.term}"
        self.leaders[raft.term] = node.name
        view = raft._state.log
        for entry in self.committed:
            if entry.index >= view.first:
                assert view.term(entry.index) == entry.term, f"leader {node.name} lacks entry {entry.index}"

    def check_logs(self) -> None:
        """Log matching: from the newest entry that two logs share downwards they are equal."""
        logs = [node.raft._state.log for node in self.nodes.values() if node.up]
        for one, other in itertools.combinations(logs, 2):
            low, high = max(one.first, other.first) - 1, min(one.last, other.last)
            alike = [one.term(index) == other.term(index) for index in range(low, high + 1)]
            shared = len(alike) - alike[::-1].index(True) if True in alike else 0
            assert all(alike[:shared]), f"two logs differ below {low + shared - 1}, where they are alike"

    # -- what a test asks for -------------------------------------------------------------------------

    def deliver(self, letter: Letter) -> None:
        self.letters.remove(letter)
        if self.nodes[letter.to].up:
            self.step(letter.to, Received(letter.sender, letter.message))

    def settle(self, limit: int = 100_000) -> None:
        """Deliver all, finish all writes, hand out all, without a moment passing."""
        for _ in range(limit):
            busy = [name for name, node in self.nodes.items() if node.up and node.writes]
            eager = [n for n, node in self.nodes.items() if node.up and node.raft.deadline <= self.now]
            if self.letters:
                self.deliver(self.letters[0])
            elif busy:
                self.write(busy[0])
            elif eager:
                self.step(eager[0], Elapsed())
            else:
                return
        raise AssertionError("the cluster does not come to rest")

    def elapse(self, seconds: float) -> None:
        """Let time pass, with all letters delivered in no time."""
        end = self.now + seconds
        while True:
            self.settle()
            soonest = min((node.raft.deadline, name) for name, node in self.nodes.items() if node.up)
            if soonest[0] > end:
                break
            self.now = max(self.now, soonest[0])
            self.step(soonest[1], Elapsed())
        self.now = end

    def elect(self, name: str) -> None:
        """`name` loses patience first."""
        for node in self.nodes.values():
            node.raft._state.heard_at = float("-inf")
        self.nodes[name].raft._state.election_at = self.now
        self.step(name, Elapsed())
        self.settle()
        assert self.nodes[name].raft.role is Role.LEADER

    def leader(self) -> str:
        leading = [n for n, node in self.nodes.items() if node.up and node.raft.role is Role.LEADER]
        return max(leading, key=lambda name: self.nodes[name].raft.term, default="")

    def crash(self, name: str) -> None:
        """The power goes: what was not written is lost."""
        self.nodes[name].up = False
        self.nodes[name].writes = []

    def restart(self, name: str) -> None:
        self.nodes[name].start(self.now)

    def snapshot(self, name: str, size: int = 10) -> Snapshot:
        """Make a snapshot of all that is applied, and cut the log."""
        node = self.nodes[name]
        index = len(node.applied)
        term = node.log.term(index)
        assert term is not None
        snapshot = Snapshot(index, term, node.raft.membership_at(index), size)
        node.body = bytes(size)
        node.log.compact(snapshot)
        self.step(name, Compacted(snapshot))
        return snapshot

    def fail_disk(self, name: str) -> list[Effect]:
        return self.step(name, WriteFailed())

    def commands(self, name: str) -> list[bytes]:
        return [entry.data for entry in self.nodes[name].applied if entry.kind is Kind.COMMAND]
