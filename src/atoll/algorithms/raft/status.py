"""Status: what one member knows of itself and, while it leads, of the others; for people and tests."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.algorithms.raft.events import Role
from atoll.algorithms.raft.messages import Index, Member, Membership, Term
from atoll.algorithms.raft.state import State


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """One other member, as the leader sees it. `silent_s`: since it was surely heard."""

    match: Index
    next: Index
    sending: str
    inflight: int
    silent_s: float
    snapshot_offset: int


@dataclass(frozen=True, slots=True)
class Status:
    """`others` is empty on all but the leader. `disk_owes_s`: how long the oldest write is unanswered."""

    me: Member
    role: Role
    term: Term
    vote: Member
    leader: Member
    first: Index
    last: Index
    durable: Index
    commit: Index
    applied: Index
    membership: Membership
    disk_owes_s: float
    failed: bool
    transfer_to: Member
    uncommitted_bytes: int
    others: dict[Member, FollowerStatus]


def status_of(s: State) -> Status:
    """A picture of `s` now."""
    lead = s.lead
    owed_since = s.disk.owed_since()
    others = {
        member: FollowerStatus(
            p.match, p.next, p.sending.value, p.inflight, s.now - p.heard_at, p.offset if p.snapshot else 0
        )
        for member, p in (lead.progress if lead else {}).items()
    }
    return Status(
        me=s.me,
        role=s.role,
        term=s.term,
        vote=s.vote,
        leader=s.leader,
        first=s.log.first,
        last=s.log.last,
        durable=s.log.durable,
        commit=s.commit,
        applied=s.applied,
        membership=s.membership,
        disk_owes_s=0.0 if owed_since is None else s.now - owed_since,
        failed=s.failed,
        transfer_to=lead.transfer.target if lead and lead.transfer else "",
        uncommitted_bytes=lead.uncommitted if lead else 0,
        others=others,
    )
