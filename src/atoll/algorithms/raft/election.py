"""Election: who asks for votes, who gives one, and who is leader then.

Before a member says aloud that it stands, it asks in a low voice whether it would be elected. Only a yes of
a majority moves the term. Who heard a leader a moment ago says no, however good the log of the asker.

Source: Ongaro and Ousterhout (2014), 5.2 and 5.4.1; Ongaro (2014), 4.2.3 (stickiness) and 9.6 (pre-vote).
Departure: a candidate's requests wait for its own term, vote and log to be durable, so that no vote is won
with entries that a crash takes away. A member to whom the disk owes an answer does not stand.
"""

from __future__ import annotations

from atoll.algorithms.raft import quorum
from atoll.algorithms.raft.events import Role
from atoll.algorithms.raft.leadership import Leadership
from atoll.algorithms.raft.messages import Entry, Kind, Member, TimeoutNow, VoteReply, VoteRequest
from atoll.algorithms.raft.replication import broadcast, match_members, tell_the_removed
from atoll.algorithms.raft.roles import follow, leader_is_alive, refuse_forwards, wait_anew
from atoll.algorithms.raft.state import NEVER, Ballot, State


def elapsed(s: State) -> None:
    """Patience is over, perhaps."""
    if s.now < s.election_at or not s.promotable:
        return
    if s.disk.waiting or s.installing:
        s.election_at = s.now + s.settings.heartbeat_s
        return
    ask(s)


def ask(s: State) -> None:
    """Would you vote for me? The term does not move."""
    stand_for(s, Ballot(s.term + 1, pre=True, forced=False))


def stand(s: State, *, forced: bool = False) -> None:
    """Vote for me, in a new term."""
    s.set_term(s.term + 1, s.me)
    stand_for(s, Ballot(s.term, pre=False, forced=forced))


def stand_for(s: State, ballot: Ballot) -> None:
    s.role = Role.PRE_CANDIDATE if ballot.pre else Role.CANDIDATE
    s.leader = ""
    s.heard_at = NEVER
    s.ballot = ballot
    refuse_forwards(s)
    wait_anew(s)
    request = VoteRequest(ballot.term, s.log.last, s.log.last_term, ballot.pre, ballot.forced)
    for member in sorted({*s.membership.voters, *s.membership.outgoing} - {s.me}):
        s.send(member, request)
    if ballot.pre:
        ballot.yes.add(s.me)
        count(s)


def own_vote_is_durable(s: State) -> None:
    """Only now may a candidate count itself."""
    if s.role is Role.CANDIDATE and s.ballot is not None and not s.disk.owes_term:
        s.ballot.yes.add(s.me)
        count(s)


def on_request(s: State, candidate: Member, m: VoteRequest) -> None:
    """Give the vote, once a term, to a log that is no older than this one."""
    free = m.term > s.term if m.pre else (m.term == s.term and s.vote in ("", candidate))
    loyal = leader_is_alive(s) and not m.forced
    newer = (m.last_term, m.last_index) >= (s.log.last_term, s.log.last)
    granted = free and newer and not loyal
    if granted and not m.pre:
        if not s.vote:
            s.set_term(s.term, candidate)
        if s.role is not Role.FOLLOWER:
            follow(s, s.term)
        wait_anew(s)
    s.send(candidate, VoteReply(s.term, m.term, granted, m.pre))
    tell_the_removed(s, candidate, m.last_index, m.last_term)


def on_reply(s: State, voter: Member, m: VoteReply) -> None:
    """Count an answer to the question that is still open."""
    ballot = s.ballot
    if ballot is None or ballot.pre != m.pre or ballot.term != m.asked:
        return
    if m.granted and not m.pre and m.term != s.term:
        return
    (ballot.yes if m.granted else ballot.no).add(voter)
    count(s)


def count(s: State) -> None:
    """Elected, not elected, or not yet known."""
    ballot = s.ballot
    assert ballot is not None
    if quorum.won(s.membership, ballot.yes):
        if ballot.pre:
            stand(s)
        else:
            lead(s)
    elif quorum.lost(s.membership, ballot.no):
        follow(s, s.term)


def lead(s: State) -> None:
    """Take the office, and begin the term with an entry of its own."""
    s.role = Role.LEADER
    s.leader = s.me
    s.ballot = None
    first = s.log.last + 1
    s.lead = Leadership(s.me, first, s.now)
    s.lead.heartbeat_at = s.now + s.settings.heartbeat_s
    s.lead.committed_then = s.log.last
    s.append([Entry(s.term, first, Kind.EMPTY, b"")])
    match_members(s)
    broadcast(s)


def on_timeout_now(s: State, _leader: Member, _m: TimeoutNow) -> None:
    """The leader hands over: stand at once, and say that it wishes so."""
    if s.role is Role.FOLLOWER and s.promotable and not s.installing:
        stand(s, forced=True)
