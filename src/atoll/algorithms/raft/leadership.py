"""Leadership: what a member knows only while it leads, and forgets with its office."""

from __future__ import annotations

from collections import deque

import msgspec

from atoll.algorithms.raft import quorum
from atoll.algorithms.raft.messages import Index, Member, Membership
from atoll.algorithms.raft.progress import Progress


class PendingRead(msgspec.Struct):
    """A read that waits for proof. `asker`: "" for this member's own."""

    id: int
    asker: Member
    round: int = 0
    index: Index = 0


class Transfer(msgspec.Struct):
    """The office is being handed to `target`, until `ends_at` at the latest."""

    target: Member
    ends_at: float
    told: bool = False


class Leadership:
    """The leader's table. A round is a moment: who echoes it was heard after that moment."""

    __slots__ = (
        "_began",
        "_oldest",
        "committed_then",
        "forgiven_until",
        "heartbeat_at",
        "lease_lost",
        "me",
        "progress",
        "queued",
        "round",
        "since",
        "term_start",
        "transfer",
        "uncommitted",
        "waiting",
    )

    def __init__(self, me: Member, term_start: Index, now: float) -> None:
        self.me = me
        self.term_start = term_start
        """The index of its first entry: before that is committed it knows of no commit for certain."""
        self.since = now
        self.progress: dict[Member, Progress] = {}
        self.heartbeat_at = now
        self.forgiven_until = float("-inf")
        """Until then silence is not judged."""
        self.round = 1
        self._began: deque[float] = deque([now])
        self._oldest = 1
        self.committed_then: Index = 0
        """The commit index at the last heartbeat, at first the end of the log: who has this has caught up."""
        self.queued: list[PendingRead] = []
        self.waiting: deque[PendingRead] = deque()
        self.transfer: Transfer | None = None
        self.lease_lost = False
        """Once a successor was told to stand, no lease holds in this term."""
        self.uncommitted = 0

    def begin_round(self, now: float, commit: Index, forget_s: float) -> None:
        """Messages from now on prove that they were heard after now; reads that wait take that as theirs."""
        self.round += 1
        self._began.append(now)
        while self._began[0] < now - forget_s and len(self._began) > 1:
            self._began.popleft()
            self._oldest += 1
        if commit >= self.term_start:
            for read in self.queued:
                read.round, read.index = self.round, commit
            self.waiting += self.queued
            self.queued = []

    def heard(self, progress: Progress, round: int) -> None:
        """A follower echoed `round`."""
        if progress.round < round <= self.round:
            progress.round = round
            if round >= self._oldest:
                progress.heard_at = self._began[round - self._oldest]

    def proved_round(self, membership: Membership) -> float:
        """The newest round that a majority, this member included, has echoed."""
        rounds: dict[Member, float] = {member: p.round for member, p in self.progress.items()}
        rounds[self.me] = self.round
        return quorum.reached(membership, rounds)

    def heard_since(self, membership: Membership, now: float) -> float:
        """A majority was heard after this moment."""
        heard = {member: p.heard_at for member, p in self.progress.items()}
        heard[self.me] = now
        return quorum.reached(membership, heard)

    def lease_from(self, membership: Membership, now: float) -> float:
        """A majority has answered what was sent at this moment; 0 where none has."""
        heard = {member: p.heard_at for member, p in self.progress.items() if p.round}
        heard[self.me] = now
        return quorum.reached(membership, heard)
