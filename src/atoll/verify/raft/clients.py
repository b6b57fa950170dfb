"""Clients: they write, read and keep leases alive, and ask again until they are answered.

A customer at several counters of one office. Not answered in time, she goes to the next one with the same
form and the same number on it; the office must not do it twice. She notes when she first asked and what she
had been told by then, and so knows when an answer is older than it may be.

One client here speaks for many sessions; a batch holds at most one command of each, since a session asks for
one thing at a time. Each command counts as an operation of its own: it has its own entry, effect and answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll.algorithms.raft.events import Command
from atoll.verify.raft.register import KEYS, TTL_S, granting, putting

if TYPE_CHECKING:
    from atoll.verify.raft.cluster import Cluster

PATIENCE_S = 0.4
SLOTS = 1_000


class Client:
    """One client with one session; one request at a time, which may be a batch of operations."""

    def __init__(self, cluster: Cluster, id: int) -> None:
        self.cluster, self.id, self.name = cluster, id, f"client {id}"
        self.dice = cluster.dice(self.name)
        self._padding = bytes(cluster.profile.padding)
        self._sequences: dict[int, int] = {}
        self.lease = 0
        self.busy = False
        self._leases = 0
        self._number = 0
        self._request: tuple[str, Any] = ("", None)
        self._began = self._sent = 0.0
        self._floor = self._try = 0
        self._lease_due = 0.0
        self._leader = ""
        cluster.at(cluster.now + self.dice.random() * 0.3, self.begin)

    # -- asking --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The next request, while there is to be load."""
        cluster, dice = self.cluster, self.dice
        if self.busy or cluster.now >= cluster.load_until:
            return
        self.busy = True
        self._number += 1
        self._began = cluster.now
        self._floor = cluster.witness.newest
        if self._lease_due <= cluster.now:
            self._request = self._lease_request()
        elif dice.random() < 0.7:
            self._request = ("write", self._commands(1 + int(dice.random() * cluster.profile.batch_max)))
        else:
            size = 1 + int(dice.random() * cluster.profile.batch_max)
            self._request = ("read", [int(dice.random() * KEYS) for _ in range(size)])
        self._send()

    def _commands(self, size: int) -> tuple[Command, ...]:
        dice, padding = self.dice, self._padding
        return tuple(self._command(slot, putting(int(dice.random() * KEYS), padding)) for slot in range(size))

    def _command(self, slot: int, data: bytes) -> Command:
        sequence = self._sequences[slot] = self._sequences.get(slot, 0) + 1
        return Command(data, self.id * SLOTS + slot, sequence)

    def _lease_request(self) -> tuple[str, Any]:
        self._lease_due = self.cluster.now + TTL_S / 3
        if self.lease:
            return "alive", self.lease
        self._leases += 1
        return "write", (self._command(0, granting(self.id * SLOTS + self._leases)),)

    def _send(self) -> None:
        cluster = self.cluster
        self._try += 1
        self._sent = cluster.now
        if self._request[0] == "alive":
            self._number += 1  # an answer counts from the moment its own question was sent
        names = cluster.reachable()
        anywhere = self._request[0] == "read" and self.dice.random() < 0.5
        to = names[int(self.dice.random() * len(names))]
        if self._leader in names and not anywhere:
            to = self._leader
        cluster.request(self, to, self._number, self._request)
        cluster.at(cluster.now + PATIENCE_S * (0.5 + self.dice.random()), self._waited, self._try)

    def _waited(self, attempt: int) -> None:
        if attempt == self._try and self.busy:
            self._leader = ""
            self._send()

    def _again(self, attempt: int) -> None:
        if attempt == self._try and self.busy:
            self._send()

    # -- hearing -------------------------------------------------------------------------------------

    def hear(self, number: int, answer: tuple[Any, ...]) -> None:
        """An answer arrived; one to an earlier request is no news."""
        if number != self._number or not self.busy:
            return
        if answer[0] == "refused":
            self._leader = answer[1]
            pause = 0.005 if self._leader else 0.06
            self.cluster.at(self.cluster.now + pause * (1 + self.dice.random()), self._again, self._try)
            return
        getattr(self, f"_{answer[0]}")(*answer[1:])
        self.busy = False
        self._try += 1
        kind, what = self._request
        self.cluster.answered(self, kind, len(what) if kind != "alive" else 1)
        self.cluster.at(
            self.cluster.now + self.dice.expovariate(1 / self.cluster.profile.think_s), self.begin
        )

    def _done(self, results: list[int]) -> None:
        commands = self._request[1]
        self.cluster.witness.wrote(self._floor, commands, results)
        if (lease := granted_by(commands[0])) is not None:
            self.lease = lease
            self.cluster.witness.believed(lease, self._began)

    def _read(self, applied: int, values: list[int]) -> None:
        self.cluster.witness.read(self._floor, applied, self._request[1], values)

    def _alive(self) -> None:
        self.cluster.witness.believed(self.lease, self._sent)

    def _over(self) -> None:
        self.cluster.counts.notes["leases lost"] += 1
        self.lease, self._lease_due = 0, 0.0


def granted_by(command: Command) -> int | None:
    """The lease that a command grants."""
    return int.from_bytes(command.data[1:5], "big") if command.data[:1] == b"g" else None
