"""Following: what a follower does with what its leader says.

A scribe who takes dictation. If the line before is not in his book he says where his book ends. If a line
is in it already he writes nothing. Only where the two books differ he strikes out, and never above the line
under which all have signed.

Source: Ongaro and Ousterhout (2014), 5.3, figure 2 (AppendEntries); Ongaro (2014), chapter 5.
Departure: entries are answered when they are durable, heartbeats at once. One answer speaks for all Appends
of its leader so far.
"""

from __future__ import annotations

from atoll.algorithms.raft.events import ChunkStored, StoreChunk
from atoll.algorithms.raft.membership import Members
from atoll.algorithms.raft.messages import Append, AppendReply, Chunk, ChunkReply, Entry, Member
from atoll.algorithms.raft.roles import wait_anew
from atoll.algorithms.raft.state import State, assert_never


def on_append(s: State, leader: Member, m: Append) -> None:
    """Take the entries if the one before them is here; the sender is this term's leader."""
    heard(s, m.round)
    log, following = s.log, s.following
    if m.entries and m.entries[0].index != m.prev_index + 1:
        return  # no leader of ours says this; what has no meaning gets no answer
    if m.prev_index > s.commit and log.term(m.prev_index) != m.prev_term:
        refuse(s, leader, m)
        return
    if s.installing and m.entries:
        return
    last = m.prev_index + len(m.entries)
    new = unknown(s, m)
    if new:
        s.append(new)
    following.agreed = max(following.agreed, last)
    s.commit = max(s.commit, min(m.commit, following.agreed))
    if not m.entries or log.durable >= last:
        answer(s)


def heard(s: State, round: int) -> None:
    """The leader spoke."""
    s.heard_at = s.now
    s.following.round = max(s.following.round, round)
    wait_anew(s)


def unknown(s: State, m: Append) -> tuple[Entry, ...]:
    """Those of the entries from the first one on that is not here, or is here with another term."""
    log, entries = s.log, m.entries
    if not entries or entries[0].index > log.last:
        return entries
    for position, entry in enumerate(entries):
        if entry.index > log.last:
            return entries[position:]
        known = log.term(entry.index)
        if known is not None and known != entry.term:
            return entries[position:]
        assert_never(
            known is None and entry.index > s.commit,
            f"entry {entry.index} is not in the log, which reaches from {log.first} to {log.last}",
        )
    return ()


def answer(s: State) -> None:
    """Tell the leader what of its log is durable here."""
    following = s.following
    following.answered = min(following.agreed, s.log.durable)
    s.send(s.leader, AppendReply(s.term, following.round, True, following.answered))


def written(s: State) -> None:
    """More may be durable; the leader waits to hear of it."""
    if s.leader and s.leader != s.me and min(s.following.agreed, s.log.durable) > s.following.answered:
        answer(s)


def refuse(s: State, leader: Member, m: Append) -> None:
    """Say where the logs might part: the newest entry here with no later term than was expected."""
    high = min(m.prev_index - 1, s.log.last)
    hint = s.log.newest_not_after(m.prev_term, s.commit, high)
    hint_term = s.log.term(hint) or 0
    s.send(leader, AppendReply(s.term, s.following.round, False, m.prev_index, hint, hint_term))


# -- snapshots -----------------------------------------------------------------------------------------


def on_chunk(s: State, leader: Member, m: Chunk) -> None:
    """Hand a piece of a snapshot on, if it is needed and the next one.

    Who has the snapshot's last entry in its log has all before it too: nothing is installed, and nothing that
    stands behind it and was acknowledged is lost.
    """
    heard(s, m.round)
    following, snapshot = s.following, m.snapshot
    if snapshot.index <= s.commit:
        s.send(leader, ChunkReply(s.term, m.round, snapshot.index, m.offset + len(m.data), True))
        return
    if s.log.term(snapshot.index) == snapshot.term:
        if s.log.durable >= snapshot.index:
            s.commit = snapshot.index
            following.agreed = max(following.agreed, snapshot.index)
            answer(s)
        return
    if following.storing or s.installing:
        return
    if following.receiving == snapshot and m.offset != following.offset:
        s.send(leader, ChunkReply(s.term, m.round, snapshot.index, following.offset))
        return
    if m.done:
        if s.disk.waiting or s.disk.staged or s.disk.changed:
            return
        s.installing = snapshot
    if following.receiving != snapshot:
        following.receiving = snapshot
        following.offset = m.offset
    following.storing = True
    s.out.append(StoreChunk(snapshot, m.offset, m.data, m.done))


def on_stored(s: State, m: ChunkStored) -> None:
    """The runtime has the piece, or has made the whole snapshot its state."""
    following = s.following
    if following.receiving == m.snapshot:
        following.storing = False
        following.offset = m.offset
    if s.installing == m.snapshot:
        s.installing = None
    if m.installed:
        installed(s)
    if s.leader and s.leader != s.me:
        s.send(s.leader, ChunkReply(s.term, following.round, m.snapshot.index, m.offset, m.installed))


def installed(s: State) -> None:
    """The state is the snapshot's: go on behind it."""
    snapshot = s.log.view.snapshot()
    assert_never(snapshot is None, "a snapshot was installed and the log view shows none")
    assert snapshot is not None
    s.log.reopened()
    s.members = Members(snapshot.index, snapshot.membership, s.log.view.memberships())
    s.applied = max(s.applied, snapshot.index)
    s.reported = max(s.reported, snapshot.index)
    s.commit = max(s.commit, snapshot.index)
    s.following.agreed = max(s.following.agreed, snapshot.index)
