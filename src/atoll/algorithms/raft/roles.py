"""Roles: how a member becomes a follower again, and when it looks after its leader next.

Whoever meets a later term bows. Patience is drawn anew each time, so that two rarely lose it together.

Source: Ongaro and Ousterhout (2014), figure 2, rules for all servers; 5.2. Ongaro (2014), 9.3.
Departure: none.
"""

from __future__ import annotations

from atoll.algorithms.raft.events import Declined, Refused, Role
from atoll.algorithms.raft.messages import Member, Term
from atoll.algorithms.raft.state import NEVER, State


def wait_anew(s: State) -> None:
    """Give the leader, or the election, one to two election timeouts from now."""
    s.election_at = s.now + s.settings.election_s * (1 + s.dice.random())


def follow(s: State, term: Term, leader: Member = "") -> None:
    """Be a follower in `term`, of `leader` if one is known."""
    led, busy = s.lead, s.role is not Role.FOLLOWER
    moved = term != s.term or leader != s.leader or s.role is Role.LEADER
    if term != s.term:
        s.set_term(term, "")
    s.role = Role.FOLLOWER
    s.leader = leader
    s.lead = s.ballot = None
    s.heard_at = s.heard_at if leader else NEVER
    if busy or leader:
        wait_anew(s)
    if moved:
        refuse_forwards(s)
    if led is not None:
        for read in [*led.queued, *led.waiting]:
            if not read.asker:
                s.out.append(Refused(read.id, Declined.NOT_LEADER, leader))


def refuse_forwards(s: State) -> None:
    """Nobody will answer the reads that an earlier leader was asked about."""
    for id in s.forwards:
        s.out.append(Refused(id, Declined.NOT_LEADER, s.leader))
    s.forwards.clear()


def leader_is_alive(s: State) -> bool:
    """Whether this member heard its leader within an election timeout, or leads itself."""
    return s.role is Role.LEADER or s.now - s.heard_at < s.settings.election_s
