"""Replication, the leader's side: who is sent what, and when an entry is committed.

The leader writes a line in its book and reads it out to all at once, without waiting for its own ink to dry;
it counts itself like the others, when the line is dry. What a majority has dry, and was written under this
leader, is agreed, and with it all that stands above.

Source: Ongaro and Ousterhout (2014), 5.3 and 5.4.2; Ongaro (2014), 10.2 (parallel writing, pipelining).
Departure: refusals carry a hint of index and term. A round number in each Append takes the place of the
per-request bookkeeping that reads and check-quorum would need.
"""

from __future__ import annotations

from atoll.algorithms.raft import quorum, sending_snapshots
from atoll.algorithms.raft.events import Accepted, Declined, Proposed, Refused
from atoll.algorithms.raft.log import ENTRY_BYTES
from atoll.algorithms.raft.membership import everybody
from atoll.algorithms.raft.messages import Append, AppendReply, Entry, Index, Kind, Member, Term
from atoll.algorithms.raft.progress import Progress, Sending
from atoll.algorithms.raft.state import State


def match_members(s: State) -> None:
    """Keep one progress for each other member, as the log's newest list says; begin at the newest entry."""
    assert s.lead is not None
    progress = s.lead.progress
    others = everybody(s.membership) - {s.me}
    for member in sorted(others - progress.keys()):
        progress[member] = Progress(s.log.last, s.now)
    for member in progress.keys() - others:
        del progress[member]


def propose(s: State, m: Proposed) -> None:
    """Append the commands, or say why not."""
    lead = s.lead
    if lead is None:
        s.out.append(Refused(m.id, Declined.NOT_LEADER, s.leader))
        return
    sizes = [len(command.data) for command in m.commands]
    size = sum(sizes) + ENTRY_BYTES * len(sizes)
    reason = None
    if lead.transfer is not None:
        reason = Declined.TRANSFERRING
    elif max(sizes, default=0) > s.settings.message_bytes_max:
        reason = Declined.TOO_LARGE
    elif lead.uncommitted and lead.uncommitted + size > s.settings.uncommitted_bytes_max:
        reason = Declined.OVERLOADED
    if reason is not None:
        s.out.append(Refused(m.id, reason, s.me))
        return
    first = s.log.last + 1
    s.out.append(Accepted(m.id, s.term, first))
    if not m.commands:
        return
    lead.uncommitted += size
    kind, term = Kind.COMMAND, s.term
    s.append(
        [
            Entry(term, index, kind, command.data, command.client, command.sequence)
            for index, command in enumerate(m.commands, first)
        ]
    )
    broadcast(s)


def broadcast(s: State) -> None:
    """Send everybody what it lacks, as far as its window allows."""
    assert s.lead is not None
    for member, progress in s.lead.progress.items():
        replicate(s, member, progress)


def replicate(s: State, member: Member, progress: Progress) -> None:
    """Send `member` what it lacks, as far as its window allows."""
    log, settings, lead = s.log, s.settings, s.lead
    assert lead is not None
    while progress.next <= log.last:
        room = progress.room(settings.inflight_messages_max, settings.inflight_bytes_max)
        if not room:
            return
        prev = progress.next - 1
        prev_term = log.term(prev)
        if prev_term is None:
            sending_snapshots.begin(s, member, progress)
            return
        entries = tuple(log.entries(progress.next, log.last + 1, min(room, settings.message_bytes_max)))
        progress.sent(entries[-1].index, sum([len(entry.data) for entry in entries]))
        s.send(member, Append(s.term, lead.round, prev, prev_term, s.commit, entries))


def heartbeat(s: State, member: Member, progress: Progress) -> None:
    """An Append without entries after the newest that was sent: who lacks that will say so."""
    assert s.lead is not None
    prev = progress.next - 1
    prev_term = None if progress.sending is Sending.SNAPSHOT else s.log.term(prev)
    if prev_term is None:
        if progress.sending is not Sending.SNAPSHOT:
            progress.probe(progress.match + 1)  # the log is cut there: whether it arrived cannot be asked
        prev = prev_term = 0
    s.send(member, Append(s.term, s.lead.round, prev, prev_term, s.commit))


def tell_the_removed(s: State, asker: Member, last: Index, last_term: Term) -> None:
    """One that is no member any more asks for votes: it has not heard the list without it. It is sent it."""
    lead = s.lead
    if lead is None or asker in everybody(s.membership) or s.members.index > s.commit:
        return
    if s.log.term(last) == last_term and last < s.members.index:
        entries = s.log.entries(last + 1, s.members.index + 1, s.settings.message_bytes_max)
        s.send(asker, Append(s.term, lead.round, last, last_term, s.commit, tuple(entries)))


def begin_round(s: State) -> None:
    """Ask everybody to say that this is still the leader."""
    lead = s.lead
    assert lead is not None
    lead.begin_round(s.now, s.commit, 2 * s.settings.election_s)
    for member, progress in lead.progress.items():
        heartbeat(s, member, progress)


def on_reply(s: State, follower: Member, m: AppendReply) -> None:
    """A follower said what it has, or what it lacks."""
    lead = s.lead
    progress = lead.progress.get(follower) if lead is not None else None
    if lead is None or progress is None or m.match > s.log.last:
        return
    lead.heard(progress, m.round)
    if m.ok:
        if progress.agreed(m.match):
            commit_what_a_majority_has(s)
    elif progress.refused(m.match):
        hint = s.log.newest_not_after(m.hint_term, progress.match, min(m.hint_index, m.match - 1))
        progress.probe(min(m.match, hint + 1))
    replicate(s, follower, progress)


def commit_what_a_majority_has(s: State) -> None:
    """Figure 2, last rule for leaders: a majority has it, and it is of this term."""
    lead = s.lead
    if lead is None:
        return
    matches: dict[Member, float] = {member: p.match for member, p in lead.progress.items()}
    matches[s.me] = s.log.durable
    index = int(quorum.reached(s.membership, matches))
    if index > s.commit and s.log.term(index) == s.term:
        s.commit = index
