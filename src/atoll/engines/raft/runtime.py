"""Runtime: feeds the machine with what happens, and does what the machine asks for.

A clerk who sits between a judge and the world. He reads out each letter as it comes, writes down every ruling
in the order it was given, sends the messengers, and never waits for one of them at the judge's table.

The loop's thread owns the machine. One hand forces the log, one keeps the state; both only put and are told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from atoll import clock
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
from atoll.algorithms.raft.membership import everybody
from atoll.algorithms.raft.messages import Chunk, Entry, Index, Member, Membership, Message, Snapshot, Term
from atoll.algorithms.raft.settings import Settings
from atoll.algorithms.raft.status import Status
from atoll.engines.raft.hand import Hand, Job
from atoll.engines.raft.peers import Peers

log = logging.getLogger("atoll.raft")
LAZY_S, LAZY_MAX = 0.01, 64
"""A follower for whom nobody waits applies after so long, or so many batches."""
APPLY_MAX = 2000
"""Entries in one transaction of the state."""
HERE_ENTRIES, HERE_BYTES = 2, 1 << 10
"""So little is applied in the loop itself where the hand is idle and was quick lately: one client's write.
More, and forced writes, were measured to be quicker in the hand, also on a follower."""


class Machine(Protocol):
    """What the runtime needs of `atoll.algorithms.raft.machine.Raft`."""

    @property
    def deadline(self) -> float: ...
    @property
    def role(self) -> Role: ...
    @property
    def term(self) -> Term: ...
    @property
    def leader(self) -> Member: ...
    @property
    def commit(self) -> Index: ...
    @property
    def applied(self) -> Index: ...
    @property
    def membership(self) -> Membership: ...
    def membership_at(self, index: Index) -> Membership: ...
    def status(self) -> Status: ...
    def step(self, event: Event, now: float) -> list[Effect]: ...


class Ledger(Protocol):
    """What the runtime needs of the log: the disk's hand writes, anybody reads."""

    def append(self, writes: Sequence[Write]) -> None: ...
    def sync(self) -> None: ...
    def begin_anew(self, snapshot: Snapshot) -> None: ...
    def note(self, snapshot: Snapshot) -> None: ...
    def compact(self, index: Index) -> None: ...
    def show(self) -> None:
        """In the loop, right before the machine is told of a snapshot."""
        ...

    @property
    def first(self) -> Index: ...
    @property
    def last(self) -> Index: ...
    def snapshot(self) -> Snapshot | None: ...


class Folder(Protocol):
    """What the runtime needs of a data folder that was loaded."""

    @property
    def log(self) -> Ledger: ...
    @property
    def applied(self) -> Index: ...
    def apply(self, entries: Sequence[Entry]) -> list[bytes]: ...
    def make_snapshot(self) -> Snapshot: ...
    def store_chunk(self, chunk: StoreChunk) -> tuple[int, bool]: ...
    def read_chunk(self, snapshot: Snapshot, offset: int, bytes_max: int) -> tuple[bytes, bool]: ...


class Listener(Protocol):
    """Who is told of answers: `consensus.Consensus`."""

    def accepted(self, id: int, term: Term, index: Index) -> None: ...
    def refused(self, refusal: Refused) -> None: ...
    def applied(self, entries: Sequence[Entry], results: Sequence[bytes]) -> None: ...
    def installed(self, snapshot: Snapshot) -> None: ...
    def read_ready(self, id: int, index: Index) -> None: ...
    def became(self, role: Role, term: Term, leader: Member) -> None: ...
    def ended(self, sentence: str) -> None: ...


class Runtime:
    """One machine at work. `ended` is set, with a sentence, when it must not go on."""

    def __init__(self, machine: Machine, folder: Folder, peers: Peers, settings: Settings) -> None:
        self.machine = machine
        self.folder = folder
        self.ledger = folder.log
        self.peers = peers
        self.listener: Listener | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.forced = 0
        """Forced writes of the log, as this member counts them."""
        self.applying = 0
        """Entries handed to the state and not applied yet."""
        self.disk: Hand[Write] = Hand("log", self._force, self._disk_failed)
        self.state: Hand[tuple[Entry, ...]] = Hand(
            "state", self._apply, self._state_failed, together_max=APPLY_MAX, weight=len
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")
        self._membership: Membership | None = None
        self._report_every = settings.apply_ahead_max // 4 or 1 << 60
        self._reported = 0
        self._forcing: deque[float] = deque(maxlen=101)
        self._lazy: list[tuple[Entry, ...]] = []
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._wanted: Index = 0
        self._sending: set[Member] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._doing: dict[type[Any], Callable[[Any], None]] = {
            Send: lambda effect: peers.send(effect.to, effect.message),
            SendChunk: self._send_chunk,
            StoreChunk: self._store_chunk,
            Apply: self._commit,
            Accepted: lambda effect: self._told.accepted(effect.id, effect.term, effect.index),
            Refused: lambda effect: self._told.refused(effect),
            ReadReady: lambda effect: self._told.read_ready(effect.id, effect.index),
            Became: self._became,
        }

    def start(self, listener: Listener) -> None:
        """Begin to keep time."""
        self.listener = listener
        self._look_around()

    def heard(self, sender: Member, message: Message) -> None:
        """A message from another member came."""
        self.hear(Received(sender, message))

    def hear(self, event: Event) -> None:
        """Tell the machine, and obey it."""
        if self.ended.done():
            return
        try:
            self._obey(self.machine.step(event, clock.lease_now()))
        except Exception as error:  # going on would lose what was promised
            log.exception("the machine of %s failed at %s", self.peers.me.name, type(event).__name__)
            self.end(f"the member {self.peers.me.name!r} ends: {error}")
            return
        self._look_around()

    def _obey(self, effects: Sequence[Effect]) -> None:
        doing = self._doing
        write = None
        for effect in effects:
            if type(effect) is Write:
                write = effect
            else:
                doing[type(effect)](effect)
        if write is not None:  # last: what is sent beside it never waits for it
            self.disk.put(write)

    def end(self, sentence: str) -> None:
        """This member must not go on; why."""
        if not self.ended.done():
            log.error("%s", sentence)
            self.ended.set_result(sentence)
            if self.listener is not None:
                self.listener.ended(sentence)

    def close(self) -> None:
        """Stop keeping time, and let the hands finish what was put."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.set_result("")
        for task in self._tasks:
            task.cancel()
        self.disk.stop()
        self.state.stop()

    # -- time, and who is there --

    @property
    def _told(self) -> Listener:
        assert self.listener is not None
        return self.listener

    def _look_around(self) -> None:
        machine = self.machine
        if machine.deadline < self._armed:
            self._arm(machine.deadline)
        if machine.membership is not self._membership:
            before, self._membership = self._membership, machine.membership
            self.peers.expect(machine.membership.places)
            me = self.peers.me.name
            if before is not None and me in everybody(before) and me not in everybody(machine.membership):
                log.warning("%s is no member of its cluster any more; its process may be stopped", me)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = self._loop.call_later(max(deadline - clock.lease_now(), 0.0), self._elapsed)

    def _elapsed(self) -> None:
        """A deadline that has moved on since is not told; most are moved by the next heartbeat."""
        self._timer, self._armed = None, float("inf")
        if self.ended.done():
            return
        if self.machine.deadline > clock.lease_now():
            self._arm(self.machine.deadline)
        else:
            self.hear(Elapsed())

    def _became(self, effect: Became) -> None:
        log.info("%s is %s in term %d; leader: %s", self.peers.me.name, effect.role.value, effect.term,
                 effect.leader or "nobody known")  # fmt: skip
        self._apply_lazy()
        self._told.became(effect.role, effect.term, effect.leader)

    # -- the log --

    def _force(self, writes: Sequence[Write]) -> Job:
        """In the disk's thread: all that waits, forced at once."""
        self.ledger.append(writes)
        begun = clock.loop_now()
        self.ledger.sync()
        self._forcing.append(clock.loop_now() - begun)
        return partial(self._forced, writes[-1].seq)

    @property
    def sync_p50_ms(self) -> float:
        """The middle of the last hundred forced writes of the log, in milliseconds."""
        times = sorted(self._forcing)
        return times[len(times) // 2] * 1000 if times else 0.0

    def _forced(self, seq: int) -> None:
        self.forced += 1
        self.hear(Written(seq))

    def _disk_failed(self, error: BaseException) -> None:
        self.hear(WriteFailed())
        self.end(f"the member {self.peers.me.name!r} ends: its log cannot be written. {error}")

    @staticmethod
    def _is_small(entries: Sequence[Entry]) -> bool:
        return len(entries) <= HERE_ENTRIES and sum([len(entry.data) for entry in entries]) <= HERE_BYTES

    # -- the state --

    def _commit(self, effect: Apply) -> None:
        """Whoever leads has people waiting; elsewhere several batches share one transaction of the state."""
        self.applying += len(effect.entries)
        if self.machine.role is Role.LEADER or effect.entries[0].index <= self._wanted:
            self._apply_lazy()
            self.state.put(effect.entries, here=self._is_small(effect.entries))
            return
        self._lazy.append(effect.entries)
        if len(self._lazy) >= LAZY_MAX or len(effect.entries) > LAZY_MAX:
            self._apply_lazy()
        elif self._lazy_timer is None:
            self._lazy_timer = self._loop.call_later(LAZY_S, self._apply_lazy)

    def _apply_lazy(self) -> None:
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        for entries in self._lazy:
            self.state.put(entries)
        self._lazy.clear()

    def want(self, index: Index) -> None:
        """Somebody waits here for the state to be as far as `index`."""
        self._wanted = max(self._wanted, index)
        self._apply_lazy()

    def _apply(self, batches: Sequence[tuple[Entry, ...]]) -> Job:
        """In the state's thread: all that waits, as one transaction."""
        entries = batches[0] if len(batches) == 1 else tuple(entry for batch in batches for entry in batch)
        results = self.folder.apply(entries)
        return partial(self._applied, entries, results)

    def _applied(self, entries: tuple[Entry, ...], results: list[bytes]) -> None:
        self.applying -= len(entries)
        self._told.applied(entries, results)
        self._reported += len(entries)
        if self._reported >= self._report_every:
            self._reported = 0
            self.hear(Applied(entries[-1].index))

    def _state_failed(self, error: BaseException) -> None:
        self.hear(WriteFailed())
        self.end(f"the member {self.peers.me.name!r} ends: its state cannot be kept. {error}")

    # -- snapshots --

    async def snapshot(self, keep: int) -> Snapshot:
        """Make one of what is applied, and drop the log below it but for the last `keep` entries."""
        snapshot = await asyncio.to_thread(self.folder.make_snapshot)
        if snapshot.index > self.machine.applied:
            return snapshot  # one that was received meanwhile, and is not the state yet
        await self.disk.aside(partial(self._drop_below, snapshot, keep))
        self.ledger.show()
        self.hear(Compacted(snapshot))
        return snapshot

    def _drop_below(self, snapshot: Snapshot, keep: int) -> None:
        self.ledger.note(snapshot)
        self.ledger.compact(snapshot.index - keep)

    def _send_chunk(self, effect: SendChunk) -> None:
        if effect.to not in self._sending:  # the machine asks again for what was not sent
            self._sending.add(effect.to)
            self._spawn(self._read_and_send(effect))

    async def _read_and_send(self, effect: SendChunk) -> None:
        try:
            data, done = await asyncio.to_thread(
                self.folder.read_chunk, effect.snapshot, effect.offset, effect.bytes_max
            )
        except (LookupError, OSError) as error:
            log.info("a piece of the snapshot at %d was not sent: %s", effect.snapshot.index, error)
            return
        finally:
            self._sending.discard(effect.to)
        piece = Chunk(effect.term, effect.round, effect.snapshot, effect.offset, data, done)
        self.peers.send(effect.to, piece)

    def _store_chunk(self, effect: StoreChunk) -> None:
        self._apply_lazy()
        self._spawn(self._store(effect))

    async def _store(self, effect: StoreChunk) -> None:
        try:
            offset, installed = await self.state.aside(partial(self.folder.store_chunk, effect))
            if installed:
                await self.disk.aside(partial(self.ledger.begin_anew, effect.snapshot))
        except Exception as error:
            self.hear(WriteFailed())
            self.end(f"the member {self.peers.me.name!r} ends: a snapshot could not be installed. {error}")
            return
        if installed:
            log.info("%s goes on from a snapshot at %d", self.peers.me.name, effect.snapshot.index)
            self.ledger.show()
        self.hear(ChunkStored(effect.snapshot, offset, installed))
        if installed:
            self._told.installed(effect.snapshot)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
