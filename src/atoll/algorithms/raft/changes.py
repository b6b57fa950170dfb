"""Changes: members come and go, and the office is handed over.

One change at a time, and none before this leader has had a line of its own agreed: it must not build on a
list that another may still strike out. Who is no longer on the list leaves the chair when that is agreed,
and tells the best placed of those who stay to take it.

Source: Ongaro (2014), 3.10 (transfer), 4.2 and 4.3 (joint consensus); the correction of 2015
(no change before an entry of the own term is committed).
Departure: a new voter must have been a learner that has caught up. A majority of those asked for must have
been heard a moment ago.
"""

from __future__ import annotations

from atoll.algorithms.raft import quorum
from atoll.algorithms.raft.events import Accepted, ChangeAsked, Declined, Refused, TransferAsked
from atoll.algorithms.raft.leadership import Leadership, Transfer
from atoll.algorithms.raft.log import ENTRY_BYTES
from atoll.algorithms.raft.membership import begun, ended, pack, tidy
from atoll.algorithms.raft.messages import Entry, Kind, Member, Membership, TimeoutNow
from atoll.algorithms.raft.replication import broadcast, heartbeat, match_members
from atoll.algorithms.raft.roles import follow
from atoll.algorithms.raft.state import State


def ask(s: State, m: ChangeAsked) -> None:
    """Begin a change of members, or say why not."""
    then = tidy(m.membership)
    reason = Declined.NOT_LEADER if s.lead is None else declined(s, s.lead, then)
    if reason is not None:
        s.out.append(Refused(m.id, reason, s.leader))
        return
    write(s, begun(s.membership, then))
    s.out.append(Accepted(m.id, s.term, s.log.last))


def declined(s: State, lead: Leadership, then: Membership) -> Declined | None:
    """Why the members cannot become `then` now."""
    if lead.transfer is not None:
        return Declined.TRANSFERRING
    if s.membership.outgoing or s.members.index > s.commit or s.commit < lead.term_start:
        return Declined.CHANGING
    heard = {
        member
        for member, p in lead.progress.items()
        if p.round and s.now < p.heard_at + s.settings.election_s
    }
    if not then.voters:
        return Declined.WOULD_LOSE_QUORUM
    for member in set(then.voters) - set(s.membership.voters) - {s.me}:
        progress = lead.progress.get(member)
        if progress is None or member not in heard or progress.match < lead.committed_then:
            return Declined.NOT_CAUGHT_UP
    if not quorum.has_majority(then.voters, heard | {s.me}):
        return Declined.WOULD_LOSE_QUORUM
    return None


def write(s: State, membership: Membership) -> None:
    """Append a list of members; it counts from now on. Those who leave are still sent it."""
    assert s.lead is not None
    data = pack(membership)
    s.lead.uncommitted += ENTRY_BYTES + len(data)
    s.append([Entry(s.term, s.log.last + 1, Kind.MEMBERSHIP, data)])
    broadcast(s)
    match_members(s)
    broadcast(s)


def settle(s: State) -> None:
    """Go on with what has been committed."""
    lead = s.lead
    if lead is None:
        return
    if lead.transfer is not None:
        hand_over(s, lead, lead.transfer)
    if s.members.index <= s.commit and s.commit >= lead.term_start:
        if s.membership.outgoing:
            write(s, ended(s.membership))
        elif s.me not in s.membership.voters:
            leave(s, lead)


def leave(s: State, lead: Leadership) -> None:
    """The list without this member is committed: say so, and let another stand."""
    for member, progress in lead.progress.items():
        heartbeat(s, member, progress)
    successor = furthest(s, lead)
    if successor:
        s.send(successor, TimeoutNow(s.term))
    follow(s, s.term)


# -- handing over --------------------------------------------------------------------------------------


def transfer(s: State, m: TransferAsked) -> None:
    """Begin to hand over, or say why not."""
    lead = s.lead
    if lead is None:
        s.out.append(Refused(m.id, Declined.NOT_LEADER, s.leader))
        return
    target = m.target or furthest(s, lead)
    if target not in s.membership.voters:
        s.out.append(Refused(m.id, Declined.UNKNOWN_MEMBER, s.me))
    elif lead.transfer is not None and lead.transfer.target != target:
        s.out.append(Refused(m.id, Declined.TRANSFERRING, s.me))
    else:
        if target != s.me and lead.transfer is None:
            lead.transfer = Transfer(target, s.now + s.settings.election_s)
        s.out.append(Accepted(m.id, s.term, s.log.last))


def hand_over(s: State, lead: Leadership, transfer: Transfer) -> None:
    """Tell the target to stand as soon as it has the whole log; give up when time is over."""
    progress = lead.progress.get(transfer.target)
    if progress is None or s.now >= transfer.ends_at or transfer.target not in s.membership.voters:
        lead.transfer = None
    elif progress.match == s.log.last and not transfer.told:
        transfer.told = lead.lease_lost = True
        s.send(transfer.target, TimeoutNow(s.term))


def furthest(s: State, lead: Leadership) -> Member:
    """The voter whose durable log is longest, of those the one that was heard last; "" if there is none."""
    voters = [member for member in sorted(lead.progress) if member in s.membership.voters]
    return max(
        voters, key=lambda member: (lead.progress[member].match, lead.progress[member].heard_at), default=""
    )
