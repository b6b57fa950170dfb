"""Reads: a linearizable answer without a line in the log.

"What is the newest that is agreed?" - the leader knows, if it still is the leader. So it notes how far all is
agreed now, asks around whether it still leads, and when a majority has said yes the note was true when it was
made. Who has applied that far may answer. A follower asks its leader for such a note.

Source: Ongaro (2014), 6.4 (ReadIndex) and 6.4.1 (leases).
Departure: reads that come while a round is under way wait for the next one together. What proves a read is
the echo of a round's number, never of the read's id, so that no retry can be mistaken for it.
"""

from __future__ import annotations

from atoll.algorithms.raft.events import Declined, ReadAsked, ReadReady, Refused
from atoll.algorithms.raft.leadership import PendingRead
from atoll.algorithms.raft.messages import Member, ReadAnswer, ReadForward
from atoll.algorithms.raft.replication import begin_round, heartbeat
from atoll.algorithms.raft.state import State

PENDING_MAX = 65_536


def ask(s: State, m: ReadAsked) -> None:
    """A read of this member's own."""
    if s.lead is not None:
        if lease_holds(s):
            s.out.append(ReadReady(m.id, s.commit))
        elif len(s.lead.queued) >= PENDING_MAX:
            s.out.append(Refused(m.id, Declined.OVERLOADED, s.me))
        else:
            s.lead.queued.append(PendingRead(m.id, ""))
    elif not s.leader:
        s.out.append(Refused(m.id, Declined.NOT_LEADER, ""))
    elif len(s.forwards) >= PENDING_MAX:
        s.out.append(Refused(m.id, Declined.OVERLOADED, s.leader))
    else:
        s.forwards[m.id] = s.now
        s.send(s.leader, ReadForward(s.term, m.id))


def on_forward(s: State, asker: Member, m: ReadForward) -> None:
    """A follower asks."""
    if s.lead is None or len(s.lead.queued) >= PENDING_MAX:
        s.send(asker, ReadAnswer(s.term, m.id, 0))
    elif lease_holds(s):
        tell(s, PendingRead(m.id, asker, 0, s.commit))
    else:
        s.lead.queued.append(PendingRead(m.id, asker))


def on_answer(s: State, _leader: Member, m: ReadAnswer) -> None:
    """The leader answered; an answer to nothing asked is without meaning."""
    if s.forwards.pop(m.id, None) is None:
        return
    if m.index:
        s.out.append(ReadReady(m.id, m.index))
    else:
        s.out.append(Refused(m.id, Declined.NOT_LEADER, s.leader))


def settle(s: State) -> None:
    """Begin a round for those who wait, and answer those whose round is proved."""
    lead = s.lead
    if lead is None or not (lead.queued or lead.waiting):
        return
    if lead.queued and not lead.waiting and s.commit >= lead.term_start:
        begin_round(s)
    proved = lead.proved_round(s.membership)
    while lead.waiting and lead.waiting[0].round <= proved:
        tell(s, lead.waiting.popleft())


def tell(s: State, read: PendingRead) -> None:
    """Answer one; a follower is told the commit index first, so that it need not wait for it."""
    if not read.asker:
        s.out.append(ReadReady(read.id, read.index))
        return
    assert s.lead is not None
    progress = s.lead.progress.get(read.asker)
    if progress is not None:
        heartbeat(s, read.asker, progress)
    s.send(read.asker, ReadAnswer(s.term, read.id, read.index))


def lease_holds(s: State) -> bool:
    """Whether no other leader can have been elected, if clocks drift no more than they were said to."""
    lead = s.lead
    if not s.settings.lease_reads or lead is None or lead.lease_lost or s.commit < lead.term_start:
        return False
    length = s.settings.election_s * (1 - s.settings.drift_max)
    return s.now < lead.lease_from(s.membership, s.now) + length


def forget_unanswered(s: State) -> None:
    """The leader did not answer within an election timeout."""
    for id, asked_at in list(s.forwards.items()):
        if s.now < asked_at + s.settings.election_s:
            break
        del s.forwards[id]
        s.out.append(Refused(id, Declined.NOT_LEADER, s.leader))
