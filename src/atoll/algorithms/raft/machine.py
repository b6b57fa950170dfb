"""The Raft machine: one member of a cluster that keeps one log by majority. Events in, effects out.

Clerks in several towns keep copies of one book. One of them dictates; what most have written down is agreed.
When he is not heard for a while the others choose another, and the rules see to it that only one is chosen
who has everything that was agreed. This file is the front desk: it looks at the stamp of each letter and
hands it to the clerk whose work it is.

Source: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (2014), figure 2;
Ongaro, Consensus: Bridging Theory and Practice (2014), chapters 3 to 6, 9.6 and 10.
Departure: each file of this folder names its own. Reading order: messages, events, state, election,
replication, following, then reads, changes, sending_snapshots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atoll.algorithms.raft import changes, election, following, reads, replication, sending_snapshots
from atoll.algorithms.raft.events import (
    Applied,
    Apply,
    ChangeAsked,
    ChunkStored,
    Compacted,
    Dice,
    Effect,
    Elapsed,
    Event,
    LogView,
    Proposed,
    ReadAsked,
    Received,
    Role,
    TransferAsked,
    WriteFailed,
    Written,
)
from atoll.algorithms.raft.leadership import Leadership
from atoll.algorithms.raft.log import ENTRY_BYTES
from atoll.algorithms.raft.membership import Members
from atoll.algorithms.raft.messages import (
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Index,
    Member,
    Membership,
    Message,
    ReadAnswer,
    ReadForward,
    Term,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from atoll.algorithms.raft.roles import follow, leader_is_alive, wait_anew
from atoll.algorithms.raft.settings import Settings
from atoll.algorithms.raft.state import State, assert_never
from atoll.algorithms.raft.status import Status, status_of

FOREVER = float("inf")


class Raft:
    """One member.

    `bootstrap` counts while the log and its snapshot name no members; it must be the same on all members
    that begin a cluster, and empty on one that waits to be added. `applied`: what the state has already.
    """

    def __init__(
        self,
        me: Member,
        log: LogView,
        *,
        term: Term = 0,
        vote: Member = "",
        bootstrap: Membership,
        settings: Settings,
        dice: Dice,
        now: float,
        applied: Index = 0,
    ) -> None:
        s = self._state = State(me, log, settings, dice)
        s.term, s.vote, s.now = term, vote, now
        snapshot = log.snapshot()
        index, base = (snapshot.index, snapshot.membership) if snapshot else (0, bootstrap)
        s.members = Members(index, base, log.memberships())
        assert_never(applied > log.last, f"the state has applied {applied}, but the log ends at {log.last}")
        assert_never(
            s.log.last_term > term, f"the log has term {s.log.last_term}, but term {term} is remembered"
        )
        s.applied = s.commit = s.reported = max(applied, index)
        if settings.lease_reads:
            s.heard_at = now  # what was promised to a leader before the restart is forgotten: keep it anyway
        wait_anew(s)
        if s.membership.voters == (me,) and not s.membership.outgoing:
            s.election_at = now
        self._known = s.standing()

    def step(self, event: Event, now: float) -> list[Effect]:
        """Hear one event; obey the effects in order."""
        s = self._state
        if s.failed:
            return []
        s.now = max(s.now, now)
        HEAR[type(event)](s, event)
        if not s.failed:
            settle(s)
        standing = s.standing()
        if standing != self._known:
            self._known = standing
            s.out.append(standing)
        out, s.out = s.out, []
        return out

    @property
    def deadline(self) -> float:
        """When to step with `Elapsed()`, at the latest."""
        return deadline(self._state)

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def term(self) -> Term:
        return self._state.term

    @property
    def vote(self) -> Member:
        return self._state.vote

    @property
    def leader(self) -> Member:
        """Who leads this term, "" if that is not known."""
        return self._state.leader

    @property
    def commit(self) -> Index:
        return self._state.commit

    @property
    def applied(self) -> Index:
        """Handed out to be applied, up to here."""
        return self._state.applied

    @property
    def membership(self) -> Membership:
        """The newest list of members in the log, committed or not."""
        return self._state.membership

    def membership_at(self, index: Index) -> Membership:
        """The list that belongs into a snapshot of `index`."""
        return self._state.members.at(index)

    def status(self) -> Status:
        """For people and tests."""
        return status_of(self._state)


def settle(s: State) -> None:
    """What follows from what was heard: the end of every step."""
    if s.lead is not None:
        changes.settle(s)
        reads.settle(s)
    hand_out(s)
    s.flush()


def may_apply(s: State) -> Index:
    """What is committed and durable here, no further ahead of the state than was asked for."""
    upto = min(s.commit, s.log.durable)
    if s.settings.apply_ahead_max:
        upto = min(upto, s.reported + s.settings.apply_ahead_max)
    return s.applied if s.installing else upto


def hand_out(s: State) -> None:
    """Have the next entries applied, a message's worth a step."""
    upto = may_apply(s)
    if s.applied >= upto:
        return
    entries = s.log.entries(s.applied + 1, upto + 1, s.settings.message_bytes_max)
    s.applied = entries[-1].index
    s.out.append(Apply(tuple(entries)))
    if s.lead is not None and s.lead.uncommitted:
        sizes = [ENTRY_BYTES + len(entry.data) for entry in entries if entry.term == s.term]
        s.lead.uncommitted = max(0, s.lead.uncommitted - sum(sizes))


def deadline(s: State) -> float:
    """The earliest moment at which something is to be done without being told."""
    if s.failed:
        return FOREVER
    if s.applied < may_apply(s):
        return s.now
    moments = [next(iter(s.forwards.values())) + s.settings.election_s] if s.forwards else []
    if s.lead is None:
        return min([*moments, s.election_at if s.promotable else FOREVER])
    moments.append(s.lead.heartbeat_at)
    if s.lead.transfer is not None:
        moments.append(s.lead.transfer.ends_at)
    return min(moments)


# -- time and disk -------------------------------------------------------------------------------------


def on_elapsed(s: State, _event: Elapsed) -> None:
    reads.forget_unanswered(s)
    if s.lead is None:
        election.elapsed(s)
        return
    forgive_own_absence(s, s.lead)
    if s.now >= s.lead.forgiven_until and (nobody_answers(s, s.lead) or disk_stalls(s)):
        follow(s, s.term)
    elif s.now >= s.lead.heartbeat_at:
        beat(s)


def forgive_own_absence(s: State, lead: Leadership) -> None:
    """A leader that was itself away for longer than a heartbeat, paused or starved, asks once more.

    The silence may be its own: answers that came meanwhile are still unread. It does so once in an election
    timeout. What is true never depends on it, only when an election begins.
    """
    late = s.now > lead.heartbeat_at + s.settings.heartbeat_s
    if late and s.now > lead.forgiven_until + s.settings.election_s:
        lead.forgiven_until = s.now + s.settings.heartbeat_s


def nobody_answers(s: State, lead: Leadership) -> bool:
    """Check-quorum: no majority was heard within an election timeout."""
    return s.now > lead.heard_since(s.membership, s.now) + s.settings.election_s


def disk_stalls(s: State) -> bool:
    """A write is unanswered for longer than an election timeout; looked at with every heartbeat."""
    owed_since = s.disk.owed_since()
    return owed_since is not None and s.now >= owed_since + s.settings.election_s


def beat(s: State) -> None:
    """The leader's regular word: it lives, and what may have been lost is sent again."""
    lead = s.lead
    assert lead is not None
    lead.heartbeat_at = s.now + s.settings.heartbeat_s
    lead.committed_then = s.commit
    if lead.transfer is not None:
        lead.transfer.told = False
    replication.begin_round(s)
    for member, progress in lead.progress.items():
        progress.unanswered()
        sending_snapshots.again(s, member, progress)


def on_written(s: State, event: Written) -> None:
    disk = s.disk
    assert_never(event.seq > disk.seq, f"write {event.seq} is answered, only {disk.seq} were asked for")
    if event.seq <= disk.written:
        return
    disk.written = event.seq
    while disk.waiting and disk.waiting[0][0] <= event.seq:
        disk.waiting.popleft()
    s.log.written(event.seq)
    if s.held and not disk.owes_term:
        s.release()
    if s.lead is not None:
        replication.commit_what_a_majority_has(s)
    else:
        following.written(s)
        election.own_vote_is_durable(s)


def on_write_failed(s: State, _event: WriteFailed) -> None:
    s.failed = True
    follow(s, s.term)


def on_applied(s: State, event: Applied) -> None:
    s.reported = max(s.reported, event.index)


def on_compacted(s: State, event: Compacted) -> None:
    index = event.snapshot.index
    assert_never(index > s.applied, f"a snapshot of {index} was made, but only {s.applied} is applied")
    s.members.compacted(index)


# -- messages ------------------------------------------------------------------------------------------


def on_received(s: State, event: Received) -> None:
    """Look at the stamp: a later term is bowed to, an earlier one is told the time."""
    sender, m = event.sender, event.message
    if sender == s.me:
        return
    if m.term > s.term and not asks_only(s, m):
        follow(s, m.term)
    if m.term < s.term and not isinstance(m, VoteRequest | VoteReply):
        tell_the_time(s, sender, m)
        return
    if isinstance(m, Append | Chunk):
        assert_never(s.role is Role.LEADER, f"{sender} and {s.me} both lead term {s.term}")
        if s.role is not Role.FOLLOWER or s.leader != sender:
            follow(s, s.term, sender)
    ANSWER[type(m)](s, sender, m)


def asks_only(s: State, m: Message) -> bool:
    """Whether a later term in `m` moves nobody: a question only, or one from which a leader protects us."""
    if isinstance(m, VoteRequest):
        return m.pre or (leader_is_alive(s) and not m.forced)
    return False


def tell_the_time(s: State, sender: Member, m: Message) -> None:
    """Something of an earlier term: who still leads or asks in it should know. Answers are not counted."""
    if isinstance(m, Append):
        s.send(sender, AppendReply(s.term, 0, False, m.prev_index))
    elif isinstance(m, Chunk):
        s.send(sender, ChunkReply(s.term, 0, m.snapshot.index, 0))
    elif isinstance(m, ReadForward):
        s.send(sender, ReadAnswer(s.term, m.id, 0))


def on_chunk_reply(s: State, follower: Member, m: ChunkReply) -> None:
    if sending_snapshots.on_reply(s, follower, m) and s.lead is not None:
        replication.commit_what_a_majority_has(s)
        replication.replicate(s, follower, s.lead.progress[follower])


HEAR: dict[type, Callable[[State, Any], None]] = {
    Elapsed: on_elapsed,
    Received: on_received,
    Written: on_written,
    WriteFailed: on_write_failed,
    Proposed: replication.propose,
    ReadAsked: reads.ask,
    ChangeAsked: changes.ask,
    TransferAsked: changes.transfer,
    Compacted: on_compacted,
    Applied: on_applied,
    ChunkStored: following.on_stored,
}
ANSWER: dict[type, Callable[[State, Member, Any], None]] = {
    VoteRequest: election.on_request,
    VoteReply: election.on_reply,
    Append: following.on_append,
    AppendReply: replication.on_reply,
    Chunk: following.on_chunk,
    ChunkReply: on_chunk_reply,
    TimeoutNow: election.on_timeout_now,
    ReadForward: reads.on_forward,
    ReadAnswer: reads.on_answer,
}
