"""The runtime: obeys a machine's effects, as the engine does, on a host that may fail at any moment.

A secretary who does all that the chief asks for, in order, and reports back when the ink is dry. The chief
never waits for her; she never reports early.

Every duty is a method of its own, so that a broken runtime can be made by overriding one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from atoll.algorithms.raft import events as e
from atoll.algorithms.raft.messages import Chunk, Kind, Membership, Message, Snapshot
from atoll.verify.raft.books import Books
from atoll.verify.raft.disk import PowerCut

if TYPE_CHECKING:
    from atoll.verify.raft.clients import Client
    from atoll.verify.raft.host import Host

FORCE_S = (0.001, 0.01)
SAVE_S = 0.01
TRAILING = 40
"""Entries kept below a snapshot, for followers that are only a little behind."""


def disguised(body: bytes, name: str) -> bytes:
    """Two members' snapshots of one state differ in every byte, as databases' files do."""
    mask = sum(name.encode()) % 255 + 1
    return bytes([mask]) + body.translate(_MASKS[mask])


def undisguised(body: bytes) -> bytes:
    """What was disguised; pieces of two members' snapshots give nonsense."""
    return body[1:].translate(_MASKS[body[0]])


_MASKS = [bytes(byte ^ mask for byte in range(256)) for mask in range(256)]


class Runtime:
    """One life of a member: its machine, its state, and who waits for an answer."""

    def __init__(self, host: Host, kept: bytes | None) -> None:
        self.host, self.cluster = host, host.cluster
        self.witness = host.cluster.witness
        files = host.files
        parts = host.cluster.parts
        found = files.log.snapshot()
        self.state = parts.state()
        if found is not None:
            self.state = parts.state.unpacked(undisguised(files.body))
        if kept is not None and (state := parts.state.unpacked(kept)).applied > self.state.applied:
            self.state = state
        self.snapshot_index = found.index if found is not None else 0
        self.machine = parts.machine(
            host.name,
            files.log,
            term=files.term,
            vote=files.vote,
            bootstrap=host.bootstrap,
            settings=host.cluster.profile.settings,
            dice=host.cluster.dice(f"{host.name}/{host.starts}"),
            now=host.clock(),
            applied=self.state.applied,
        )
        self.commit = self.machine.commit
        self.books = Books(self)
        self._jobs: deque[tuple[str, Any]] = deque()
        self._busy = False
        self._partial: tuple[Snapshot | None, bytearray] = (None, bytearray())
        self._heard: deque[Any] = deque()
        self._stepping = False
        self._timer = inf
        self._saving = False
        self._obey: dict[type, Callable[[Any], None]] = {
            e.Write: self.write,
            e.Send: self.send,
            e.SendChunk: self.send_chunk,
            e.StoreChunk: self.store_chunk,
            e.Apply: self.apply,
            e.Accepted: self.books.accepted,
            e.Refused: self.books.refused,
            e.ReadReady: self.books.read_ready,
            e.Became: self.became,
        }

    # -- the loop ------------------------------------------------------------------------------------

    def enter(self, act: Callable[..., None], *what: Any) -> None:
        """Everything that happens to this life comes through here, and stops where the power does."""
        host = self.host
        if host.runtime is not self:
            return
        if host.frozen_until > self.cluster.now:
            host.inbox.append((self, act, what))
            return
        try:
            act(*what)
        except PowerCut as cut:
            host.crash(host.trap.how if host.trap else None, str(cut))
        except OSError:  # of the virtual disk; nothing else here opens a file
            self.disk_failed()

    def step(self, event: Any) -> None:
        """The machine hears `event`; what it asks for is done, in order."""
        self._heard.append(event)
        if self._stepping:
            return
        self._stepping = True
        machine, cluster = self.machine, self.cluster
        try:
            while self._heard:
                event = self._heard.popleft()
                effects = machine.step(event, self.host.clock())
                cluster.stepped(self.host, event, effects)
                for effect in effects:
                    self._obey[type(effect)](effect)
                if machine.commit != self.commit:
                    self._committed()
        finally:
            self._stepping = False
        if self._jobs and not self._busy:
            self._work()
        if machine.deadline != self._armed_for:
            self.arm()

    def _committed(self) -> None:
        before, self.commit = self.commit, self.machine.commit
        self.witness.committed(self.host, before, self.commit)

    _armed_for = inf

    def arm(self) -> None:
        """Have the machine stepped at its deadline. A timer that became too early only looks again."""
        self._armed_for = self.machine.deadline
        due = self.host.when(self._armed_for) + 1e-9
        if due < self._timer:
            self._timer = due
            self.cluster.at(due, self.enter, self._elapsed, due)

    def _elapsed(self, due: float) -> None:
        if due != self._timer:
            return
        self._timer = inf
        if self.machine.deadline <= self.host.clock():
            self.step(e.Elapsed())
        if self._timer == inf:
            self.arm()

    def receive(self, sender: str, message: Message) -> None:
        """A letter of another member."""
        self.step(e.Received(sender, message))

    # -- writes --------------------------------------------------------------------------------------

    def write(self, effect: e.Write) -> None:
        """Queue a write; `Written` comes only when it is forced."""
        self.witness.asked(self.host, effect)
        self._jobs.append(("write", effect))
        self.host.boundary("write asked")

    def _work(self) -> None:
        """Begin the next job of the disk: all writes that wait, as one batch, or one snapshot."""
        host = self.host
        self._busy = True
        low, high = FORCE_S
        took = low + host.dice.random() * (high - low)
        if self._jobs[0][0] == "write":
            batch: list[e.Write] = []
            while self._jobs and self._jobs[0][0] == "write":
                batch.append(self._jobs.popleft()[1])
            self._batch = batch
            host.files.append([(write.term, write.vote, write.entries) for write in batch])
            self.cluster.at(self.cluster.now + took, self.enter, self._forced, batch)
        else:
            kind, what = self._jobs.popleft()
            self.cluster.at(self.cluster.now + took + SAVE_S, self.enter, self._save, kind, what)

    _batch: list[e.Write] | None = None

    def _forced(self, batch: list[e.Write]) -> None:
        host = self.host
        if host.stalled_until > self.cluster.now:
            self.cluster.bitten("disk stall", host.name)
            self.cluster.at(host.stalled_until, self.enter, self._forced, batch)
            return
        host.files.force()
        self._batch = None
        self.witness.forced(host, batch)
        self._busy = False
        self.step(e.Written(batch[-1].seq))

    def disk_failed(self) -> None:
        """A forced write failed: nobody knows what is on that disk, and this life says nothing more."""
        self.cluster.bitten("write error", self.host.name)
        self._busy = True
        self.step(e.WriteFailed())
        self.cluster.nemesis.failed(self.host)

    def pending(self) -> str:
        """What stood unforced when the power went, the gravest first."""
        waiting = [*(self._batch or ()), *(what for kind, what in self._jobs if kind == "write")]
        entries = [entry for write in waiting for entry in write.entries]
        files = self.host.files
        if any(entry.kind == Kind.MEMBERSHIP for entry in entries):
            return "membership"
        if any(write.entries and write.entries[0].index <= files.log.last for write in waiting):
            return "truncation"
        if any((write.term, write.vote) != (files.term, files.vote) for write in waiting):
            return "term or vote"
        if entries:
            return "entries"
        return "snapshot" if self._saving or any(kind != "write" for kind, _ in self._jobs) else "nothing"

    def kept(self) -> bytes | None:
        """The state that survives with its applied index, where it is kept on a disk of its own."""
        return self.state.packed() if self.cluster.profile.state_kept else None

    # -- messages ------------------------------------------------------------------------------------

    def send(self, effect: e.Send) -> None:
        self.witness.says(self.host, effect.to, effect.message)
        self.cluster.letter(self.host.name, effect.to, effect.message)

    def send_chunk(self, effect: e.SendChunk) -> None:
        """A piece of the snapshot that is here; nothing, where a newer one has replaced it."""
        found = self.host.files.log.snapshot()
        if found is None or found.index != effect.snapshot.index:
            return
        body = self.host.files.body
        end = min(len(body), effect.offset + effect.bytes_max)
        piece = body[effect.offset : end]
        chunk = Chunk(effect.term, effect.round, effect.snapshot, effect.offset, piece, end == len(body))
        self.cluster.letter(self.host.name, effect.to, chunk)

    def store_chunk(self, effect: e.StoreChunk) -> None:
        """Keep a piece; the last one makes the snapshot this member's state."""
        snapshot, (wanted, body) = effect.snapshot, self._partial
        if effect.offset == 0 or snapshot != wanted:
            body = bytearray()
            self._partial = (snapshot, body)
        if effect.offset == len(body):
            body += effect.data
            if effect.done:
                self._jobs.append(("install", (snapshot, bytes(body))))
                return
        self._heard.append(e.ChunkStored(snapshot, len(body), False))

    # -- state ---------------------------------------------------------------------------------------

    def apply(self, effect: e.Apply) -> None:
        """Apply in order; whoever waits for one of these entries is answered."""
        state, witness, host = self.state, self.witness, self.host
        waiting = self.books.waiting
        if self.machine.commit != self.commit:
            self._committed()
        for entry in effect.entries:
            result = state.apply(entry)
            witness.applied(host, entry, result)
            if entry.kind == Kind.EMPTY:
                self.books.term_begun(entry.term)
            if entry.index in waiting:
                self.books.settle(entry, result)
        self.books.caught_up()
        due = state.applied - self.snapshot_index >= self.cluster.profile.snapshot_every
        if due and not self._saving and self.machine.membership_at(state.applied).voters:
            self._saving = True  # a newcomer that has not yet read who the members are makes none
            self._jobs.append(("save", self.make_snapshot()))

    def make_snapshot(self) -> tuple[Snapshot, bytes]:
        """The state as bytes, with the membership of its index, and the clients' sessions inside."""
        body = disguised(self.state.packed(), self.host.name)
        index = self.state.applied
        term = self.host.files.log.term(index)
        assert term is not None
        snapshot = Snapshot(index, term, self.machine.membership_at(index), len(body))
        self.witness.saved(self.host, snapshot)
        return snapshot, body

    def _save(self, kind: str, what: tuple[Snapshot, bytes]) -> None:
        snapshot, body = what
        files = self.host.files
        found = files.log.snapshot()
        newer = found is None or snapshot.index > found.index
        counts = self.cluster.counts
        if kind == "save":
            if newer:
                files.save(snapshot, body, keep=TRAILING)
                counts.notes["snapshots made"] += 1
            self._saving = False
            self.snapshot_index = max(snapshot.index, self.snapshot_index)
            event: Any = e.Compacted(snapshot)
        else:
            if newer:
                files.install(snapshot, body)
                counts.notes["snapshots installed"] += 1
                if snapshot.index > self.state.applied:
                    self.state = self.cluster.parts.state.unpacked(undisguised(body))
                    self.snapshot_index = snapshot.index
                self.witness.installed(self.host, snapshot)
            event = e.ChunkStored(snapshot, snapshot.size, True)
        self._busy = False
        if kind == "install" or newer:
            self.step(event)
        elif self._jobs:
            self._work()

    def became(self, effect: e.Became) -> None:
        """A change of role, term or leader."""
        self.witness.became(self.host, effect)
        self.books.became(effect)
        self.cluster.nemesis.became(self.host, effect.role)

    # -- clients -------------------------------------------------------------------------------------

    def ask(self, client: Client, number: int, request: Any) -> None:
        """A client's request arrived."""
        self.books.ask(client, number, request)

    def change(self, membership: Membership) -> None:
        """The operator wants these members."""
        self.step(e.ChangeAsked(self.books.number(), membership))

    def transfer(self, target: str = "") -> None:
        """The operator wants another leader."""
        self.step(e.TransferAsked(self.books.number(), target))
