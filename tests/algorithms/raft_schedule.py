"""A random schedule for a cluster of machines: letters lost, doubled and late, crashes, slow disks, changes.

One seed names one schedule. The cluster checks Raft's promises after each step; here reads are checked
against what was committed when they were asked, and at the end the faults stop and all must agree.
"""

from __future__ import annotations

import random
from collections import Counter

from raft_cluster import Cluster, Letter

from atoll.algorithms.raft.events import (
    ChangeAsked,
    Command,
    Elapsed,
    Proposed,
    ReadAsked,
    ReadReady,
    Refused,
    Role,
    TransferAsked,
)
from atoll.algorithms.raft.messages import Membership
from atoll.algorithms.raft.settings import Settings

SMALL = Settings(
    message_bytes_max=40,
    inflight_messages_max=3,
    inflight_bytes_max=100,
    uncommitted_bytes_max=2000,
    chunk_bytes=7,
)


class Schedule:
    """`run` does what the dice of `seed` say; `heal` ends it well."""

    def __init__(self, seed: int, size: int, settings: Settings = SMALL) -> None:
        self.dice = random.Random(seed)
        names = [chr(ord("a") + n) for n in range(size)]
        self.cluster = Cluster(names, settings, seed, patient=True)
        self.spare = [chr(ord("a") + size + n) for n in range(3)]
        self.ids = 0
        self.reads: dict[int, int] = {}
        self.seen: Counter[str] = Counter()
        self.calm = False
        self.cut: set[tuple[str, str]] = set()

    def run(self, steps: int) -> None:
        acts = [
            (self.letter, 50),
            (self.write, 24),
            (self.propose, 10),
            (self.time, 7),
            (self.read, 3),
            (self.lose, 2),
            (self.double, 1),
            (self.partition, 0.4),
            (self.change, 1.5),
            (self.crash, 0.5),
            (self.transfer, 0.3),
            (self.snapshot, 0.6),
            (self.restart, 1.0),
        ]
        chosen = self.dice.choices([act for act, _ in acts], [weight for _, weight in acts], k=steps)
        for count, act in enumerate(chosen):
            act()
            self.answered()
            if count % 50 == 0:
                self.cluster.check_logs()

    def living(self) -> list[str]:
        return [name for name, node in self.cluster.nodes.items() if node.up]

    def somebody(self) -> str:
        """A member that is up, more often one that leads."""
        living = self.living()
        leading = [n for n in living if self.cluster.nodes[n].raft.role is Role.LEADER]
        return self.dice.choice(leading if leading and self.dice.random() < 0.8 else living)

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    def choose_letter(self) -> Letter | None:
        letters = self.cluster.letters
        if not letters:
            return None
        return letters[0] if self.dice.random() < 0.7 else self.dice.choice(letters)

    # -- what happens ---------------------------------------------------------------------------------

    def letter(self) -> None:
        letter = self.choose_letter()
        if letter is None:
            return
        if (letter.sender, letter.to) in self.cut:
            self.cluster.letters.remove(letter)
        else:
            self.cluster.deliver(letter)

    def lose(self) -> None:
        letter = self.choose_letter()
        if letter is not None:
            self.cluster.letters.remove(letter)

    def double(self) -> None:
        letter = self.choose_letter()
        if letter is not None:
            self.cluster.letters.append(Letter(letter.sender, letter.to, letter.message))

    def write(self) -> None:
        busy = [name for name in self.living() if self.cluster.nodes[name].writes]
        if busy:
            self.cluster.write(self.dice.choice(busy))

    def propose(self) -> None:
        commands = tuple(
            Command(b"%d" % self.next_id() + bytes(self.dice.randrange(12)))
            for _ in range(self.dice.randint(1, 3))
        )
        self.cluster.step(self.somebody(), Proposed(self.next_id(), commands))

    def read(self) -> None:
        id = self.next_id()
        self.reads[id] = len(self.cluster.committed)
        self.cluster.step(self.somebody(), ReadAsked(id))

    def time(self) -> None:
        """Some time passes for all, and somebody notices."""
        self.cluster.now += self.dice.choice([0.01, 0.05, 0.1, 0.3])
        for name in self.living():
            if self.cluster.nodes[name].raft.deadline <= self.cluster.now and self.dice.random() < 0.8:
                self.cluster.step(name, Elapsed())

    def crash(self) -> None:
        living = self.living()
        if len(living) > len(self.cluster.nodes) // 2:
            self.cluster.crash(self.dice.choice(living))
            self.seen["crash"] += 1

    def restart(self) -> None:
        down = [name for name, node in self.cluster.nodes.items() if not node.up]
        if down:
            self.cluster.restart(self.dice.choice(down))

    def partition(self) -> None:
        names = list(self.cluster.nodes)
        self.cut = {(a, b) for a in names for b in names if self.dice.random() < 0.25}
        if self.dice.random() < 0.5:
            self.cut.clear()

    def transfer(self) -> None:
        self.cluster.step(self.somebody(), TransferAsked(self.next_id()))

    def snapshot(self) -> None:
        name = self.dice.choice(self.living())
        node = self.cluster.nodes[name]
        if len(node.applied) > node.log.first and not node.writes and node.log.last >= len(node.applied):
            self.cluster.snapshot(name, self.dice.randrange(1, 30))
            self.seen["snapshot"] += 1

    def change(self) -> None:
        """Somebody new learns, or a learner becomes a voter, or somebody leaves."""
        name = self.somebody()
        now = self.cluster.nodes[name].raft.membership
        voters, learners = list(now.voters), list(now.learners)
        kind = self.dice.random()
        if kind < 0.4 and self.spare:
            learners.append(self.spare[-1])
        elif kind < 0.7 and learners:
            voters.append(learners.pop())
        elif len(voters) > 2:
            voters.remove(self.dice.choice(voters))
        event = ChangeAsked(self.next_id(), Membership(tuple(voters), tuple(learners)))
        refused = [e for e in self.cluster.step(name, event) if isinstance(e, Refused)]
        if not refused:
            self.seen["change"] += 1
            if self.spare and self.spare[-1] in learners:
                self.cluster.add(self.spare.pop())

    def answered(self) -> None:
        """No read is older than what was committed when it was asked; no id is answered twice."""
        for name, heard in self.cluster.heard.items():
            for effect in heard:
                if isinstance(effect, ReadReady):
                    asked = self.reads.pop(effect.id)
                    assert effect.index >= asked, f"{name} read {effect.index}, {asked} was committed"
                    self.seen["read"] += 1
                elif isinstance(effect, Refused):
                    self.reads.pop(effect.id, None)
            heard.clear()

    # -- the end --------------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults: within some seconds a leader is there, and a command is applied by all."""
        cluster = self.cluster
        self.cut.clear()
        cluster.patient = False
        for name, node in cluster.nodes.items():
            if not node.up:
                cluster.restart(name)
        cluster.check_logs()
        cluster.elapse(12)
        leader = cluster.leader()
        assert leader, "no leader after twelve quiet seconds"
        cluster.step(leader, Proposed(self.next_id(), (Command(b"last"),)))
        cluster.elapse(3)
        leader = cluster.leader()
        raft = cluster.nodes[leader].raft
        assert not raft.membership.outgoing, "a change of members has not ended"
        assert raft.status().uncommitted_bytes == 0
        assert raft.commit == raft.status().last, "something is left uncommitted"
        for name in {*raft.membership.voters, *raft.membership.learners}:
            node = cluster.nodes[name]
            assert node.applied == cluster.committed, f"{name} is behind"
        assert b"last" in cluster.commands(leader)
        self.seen["terms"] = raft.term
        self.seen["commands"] = len(cluster.commands(leader))
