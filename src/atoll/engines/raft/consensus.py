"""Consensus: what the rest of a member may ask of its cluster, with an honest answer to each question.

A town clerk's counter. You hand in a paper and get a slip; the slip is worth something when the paper has
been read out in the meeting. If another paper was read out in its place, yours was certainly not; if the
clerk lost sight of it, he says so and does not guess.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.algorithms.raft.events import (
    ChangeAsked,
    Command,
    Proposed,
    ReadAsked,
    Refused,
    Role,
    TransferAsked,
)
from atoll.algorithms.raft.messages import Entry, Index, Member, Membership, Snapshot, Term
from atoll.algorithms.raft.settings import Settings
from atoll.engines.parts.call import left_s
from atoll.engines.raft import declining
from atoll.engines.raft.barriers import Barriers
from atoll.engines.raft.member_options import Compaction
from atoll.engines.raft.proposals import Answer, Proposals
from atoll.engines.raft.runtime import Runtime
from atoll.engines.raft.state import State
from atoll.errors import (
    AtollError,
    LimitReached,
    NotReady,
    NotSent,
    OutcomeUnknown,
    Overloaded,
)

log = logging.getLogger("atoll.raft")
CEILING_S = 10.0
LOOK_S = 0.01
SNAPSHOT_S = 600.0
BEHIND_MAX = 50_000
"""Committed entries that may wait for the state before more is refused."""


@dataclass(slots=True)
class _Asked:
    """One proposal, change or transfer that the machine has yet to answer."""

    answers: list[Answer] = field(default_factory=list)
    accepted: asyncio.Future[Index] | None = None


class Consensus:
    """A member's face to what stands on it: `propose`, `read_barrier`, `change`, `transfer`, `snapshot`."""

    def __init__(
        self, runtime: Runtime, state: State, settings: Settings, compaction: Compaction | None = None
    ) -> None:
        self.state: State = state
        self.cluster = runtime.peers.me.cluster
        self.name = runtime.peers.me.name
        self.place = runtime.peers.me.place
        self.is_leader = False
        self.on_became: list[Callable[[Role, Term, Member], None]] = []
        self.on_applied: list[Callable[[Sequence[Entry], Sequence[bytes]], None]] = []
        self._runtime = runtime
        self._settings = settings
        self._compaction = compaction or Compaction()
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._proposals = Proposals(self._propose_all, self._replaced, self._unknown)
        self._barriers = Barriers(self._ask_read, runtime.want, runtime.folder.applied, settings.heartbeat_s)
        newest = runtime.ledger.snapshot()
        self._since_snapshot = [self.applied_index - (newest.index if newest is not None else 0), 0]
        self._saving: asyncio.Task[Snapshot] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._over = ""

    # -- who leads --

    @property
    def term(self) -> Term:
        """The newest term this member has heard of."""
        return self._runtime.machine.term

    @property
    def leader(self) -> Member:
        """Who leads, as far as is known here; "" if nobody is."""
        return self._runtime.machine.leader

    @property
    def leader_place(self) -> str:
        """Where the leader is reached; "" if nobody is known."""
        return self.place_of(self.leader)

    @property
    def membership(self) -> Membership:
        """Who counts, by the newest entry of the log."""
        return self._runtime.machine.membership

    @property
    def message_bytes_max(self) -> int:
        """The largest command."""
        return self._settings.message_bytes_max

    @property
    def agreed(self) -> Membership:
        """Who counts, by the newest entry that is committed and applied here."""
        return self._runtime.machine.membership_at(self.applied_index)

    def place_of(self, member: Member) -> str:
        """Where a member is reached; "" if unknown."""
        if member == self.name:
            return self.place
        return self._runtime.peers.place(member) or self.membership.places.get(member, "")

    # -- writes --

    async def propose(self, data: bytes, client: int = 0, sequence: int = 0) -> bytes:
        """Put a command in the log; what the state made of it, once a majority has it forced to disk.

        NotLeader, NotSent, LimitReached, Overloaded: certainly not applied. OutcomeUnknown: it may have been,
        or may be yet; asking again with the same `client` and `sequence` is safe.
        """
        left = left_s("the command", CEILING_S)
        future = self.submit(data, client, sequence)
        limit = asyncio.timeout(left)
        try:
            async with limit:
                return await future
        except TimeoutError:
            if not limit.expired():
                raise
            raise OutcomeUnknown(
                f"{left:.3g} s passed before a majority had the command. It may be applied yet: read, or ask "
                "again under the same number."
            ) from None

    def submit(self, data: bytes, client: int = 0, sequence: int = 0) -> Answer:
        """As `propose`, without a deadline and without a task; all of one turn of the loop go together."""
        error = self._refusal(len(data))
        if error is None:
            return self._proposals.add(Command(data, client, sequence))
        answer: Answer = self._loop.create_future()
        answer.set_exception(error)
        return answer

    def _refusal(self, size: int) -> AtollError | None:
        if self._over:
            return NotSent(self._over)
        if size > self._settings.message_bytes_max:
            return LimitReached(
                f"found a command of {size} bytes; the members take {self._settings.message_bytes_max} "
                "(message_bytes_max). Write less at once."
            )
        if not self.is_leader:
            return declining.not_leader(self.name, self.leader, self.place_of(self.leader))
        behind = self._runtime.machine.commit - self.applied_index
        if behind > BEHIND_MAX:
            return Overloaded(
                f"{behind} committed commands wait for the state of {self.name}; come back later"
            )
        return None

    def _propose_all(self, commands: list[Command], answers: list[Answer]) -> None:
        id = next(self._ids)
        self._asked[id] = _Asked(answers)
        self._runtime.hear(Proposed(id, tuple(commands)))
        if self._asked.pop(id, None) is not None:  # the machine has fallen silent
            for answer in answers:
                if not answer.done():
                    answer.set_exception(
                        NotSent(self._over or f"{self.name} has failed. Ask another member.")
                    )

    # -- reads --

    async def read_barrier(self) -> None:
        """When it returns, `state` has all that was acknowledged before it was called. Of any member.

        NotSent where no leader with a majority could be asked in time.
        """
        left = left_s("the read", CEILING_S)
        if self._over:
            raise NotSent(self._over)
        try:
            async with asyncio.timeout(left):
                await self._barriers.wait()
        except TimeoutError:
            raise NotSent(
                f"{left:.3g} s passed before a leader was confirmed by a majority. Nothing was read; "
                "ask again."
            ) from None

    def _ask_read(self, id: int) -> None:
        self._runtime.hear(ReadAsked(id))

    @property
    def applied_index(self) -> Index:
        """How far the state is."""
        return self._barriers.applied

    # -- members, snapshots --

    async def change(self, membership: Membership) -> None:
        """Make `membership` (voters, learners, places) the cluster's; returns when it is committed."""
        left = left_s("the change", CEILING_S)
        index = self._ask(lambda id: ChangeAsked(id, membership)).result()
        try:
            async with asyncio.timeout(left):
                await self._until(lambda: self.applied_index >= index and not self.membership.outgoing)
                last = self._runtime.machine.status().last
                await self._until(lambda: self.applied_index >= last)
        except TimeoutError:
            raise OutcomeUnknown(
                f"the change of members was begun and is not finished after {left:.3g} s; it may be "
                "yet. Look at the status."
            ) from None
        now = self.membership
        if (set(now.voters), set(now.learners)) != (set(membership.voters), set(membership.learners)):
            raise OutcomeUnknown(
                f"another leader took over while the members were changed; now the voters are "
                f"{', '.join(now.voters)}. Look at the status, then ask again."
            )

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self._over:
                raise OutcomeUnknown(self._over)
            await asyncio.sleep(LOOK_S)

    async def transfer(self, target: Member = "") -> None:
        """Hand leadership to `target`, or to the voter that is furthest; returns when it is lost here."""
        left = left_s("the transfer", CEILING_S)
        term = self.term
        if not self.is_leader:
            raise declining.not_leader(self.name, self.leader, self.place_of(self.leader))
        begun = self._ask(lambda id: TransferAsked(id, target))
        if begun.done():
            begun.result()
        try:
            async with asyncio.timeout(min(left, 4 * self._settings.election_s)):
                await self._until(lambda: not self.is_leader or self.term != term)
        except TimeoutError:
            raise NotReady(f"{target or 'no other voter'} did not take over; {self.name} leads on") from None

    async def snapshot(self) -> Snapshot:
        """Make a snapshot here, now, and drop the log below it. OutcomeUnknown: it is not finished yet."""
        left = left_s("the snapshot", SNAPSHOT_S)
        try:
            async with asyncio.timeout(left):
                return await asyncio.shield(self._save())
        except TimeoutError:
            raise OutcomeUnknown(f"{left:.3g} s passed, and the snapshot is still being made.") from None

    def _save(self) -> asyncio.Task[Snapshot]:
        """One at a time: whoever asks meanwhile gets that one."""
        if self._saving is None or self._saving.done():
            entries, size = self._since_snapshot
            self._since_snapshot = [0, 0]
            keep = self._compaction.kept(entries, size)
            self._saving = self._loop.create_task(self._runtime.snapshot(keep))
            self._saving.add_done_callback(_noted)
        return self._saving

    def _ask(self, event: Callable[[int], Any]) -> asyncio.Future[Index]:
        """Ask the machine; it answers in the same step, but for a transfer that it begins."""
        answer: asyncio.Future[Index] = self._loop.create_future()
        id = next(self._ids)
        self._asked[id] = _Asked(accepted=answer)
        self._runtime.hear(event(id))
        self._asked.pop(id, None)
        if self._over and not answer.done():
            answer.set_exception(NotSent(self._over))
        return answer

    def status(self) -> dict[str, Any]:
        """What this member knows of itself and of the others, for people."""
        machine, runtime, membership = self._runtime.machine, self._runtime, self.membership
        return {
            "cluster": self.cluster,
            "name": self.name,
            "place": self.place,
            "role": machine.role.value,
            "term": machine.term,
            "leader": machine.leader,
            "commit": machine.commit,
            "applied": self.applied_index,
            "first": runtime.ledger.first,
            "last": runtime.ledger.last,
            "forced": runtime.forced,
            "sync_p50_ms": runtime.sync_p50_ms,
            "voters": list(membership.voters),
            "learners": list(membership.learners),
            "outgoing": list(membership.outgoing),
            "places": dict(membership.places),
            "reached": runtime.peers.reached(),
            "machine": machine.status(),
        }

    # -- what the runtime tells --

    def accepted(self, id: int, term: Term, index: Index) -> None:
        asked = self._asked.pop(id, None)
        if asked is None:
            return
        if asked.accepted is not None and not asked.accepted.done():
            asked.accepted.set_result(index)
        self._proposals.placed(asked.answers, term, index)

    def refused(self, refusal: Refused) -> None:
        if self._barriers.refused(refusal.id):
            return
        asked = self._asked.pop(refusal.id, None)
        if asked is None:
            return
        error = declining.declined(refusal, self.name, self.place_of(refusal.leader))
        for answer in asked.answers:
            if not answer.done():
                answer.set_exception(error)
        if asked.accepted is not None and not asked.accepted.done():
            asked.accepted.set_exception(error)

    def applied(self, entries: Sequence[Entry], results: Sequence[bytes]) -> None:
        self._proposals.applied(entries, results)
        self._barriers.advance(entries[-1].index)
        for told in self.on_applied:
            told(entries, results)
        counts = self._since_snapshot
        counts[0] += len(entries)
        counts[1] += sum([len(entry.data) for entry in entries])
        if counts[0] >= self._compaction.entries or counts[1] >= self._compaction.bytes:
            self._save()

    def installed(self, snapshot: Snapshot) -> None:
        self._proposals.lost([index for index in self._proposals.indexes() if index <= snapshot.index])
        self._barriers.advance(max(self.applied_index, snapshot.index))
        for told in self.on_applied:
            told((), ())

    def read_ready(self, id: int, index: Index) -> None:
        self._barriers.ready(id, index)

    def became(self, role: Role, term: Term, leader: Member) -> None:
        self.is_leader = role is Role.LEADER
        self._lose_sight()
        for told in self.on_became:
            told(role, term, leader)

    def ended(self, sentence: str) -> None:
        self._over = sentence
        self.is_leader = False
        self._proposals.ended(lambda: NotSent(sentence))
        self._barriers.ended(sentence)

    def close(self) -> None:
        """Nobody is answered any more but with what is known now."""
        self.ended(self._over or f"the member {self.name!r} stops. Ask another member.")
        if self._grace is not None:
            self._grace.cancel()
        if self._saving is not None:
            self._saving.cancel()

    # -- inside --

    def _lost_sight(self, indexes: set[Index]) -> None:
        """The new leader said nothing of these for long enough: whoever waits shall ask it."""
        self._grace = None
        self._proposals.lost(indexes)
        self._lose_sight()

    def _lose_sight(self) -> None:
        """Where this member does not lead, whoever waits is given two election times more."""
        if not self.is_leader and self._grace is None and (waiting := self._proposals.indexes()):
            self._grace = self._loop.call_later(2 * self._settings.election_s, self._lost_sight, waiting)

    def _unknown(self, term: Term) -> AtollError:
        return OutcomeUnknown(
            f"{self.name} lost sight of a command of term {term} before it was applied here. It may be "
            "applied yet: read, or ask the leader under the same number."
        )

    def _replaced(self) -> AtollError:
        return declining.replaced(self.leader, self.leader_place)


def _noted(task: asyncio.Task[Snapshot]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a snapshot could not be made: %s", error)
