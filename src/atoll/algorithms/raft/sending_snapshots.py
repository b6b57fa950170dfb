"""Sending a snapshot: for a follower so far behind that the log no longer has what it needs.

Nobody reads ten years of minutes to a newcomer; he is handed the book as it stands now, in parcels, and each
parcel is acknowledged before the next is sent. A lost parcel is sent again, not the whole book.

Source: Ongaro (2014), chapter 5.
Departure: the follower's answer says how much it has, and the leader goes on there, so a transfer survives a
break of the connection and a restart of the follower.
"""

from __future__ import annotations

from atoll.algorithms.raft.events import SendChunk
from atoll.algorithms.raft.messages import ChunkReply, Member
from atoll.algorithms.raft.progress import Progress, Sending
from atoll.algorithms.raft.state import State


def begin(s: State, member: Member, progress: Progress) -> None:
    """Offer the newest snapshot instead of the log."""
    snapshot = s.log.view.snapshot()
    if snapshot is not None:
        progress.send_snapshot(snapshot, s.now)
        chunk(s, member, progress)


def chunk(s: State, member: Member, progress: Progress) -> None:
    """Ask the runtime for the piece that comes next."""
    assert s.lead is not None and progress.snapshot is not None
    s.out.append(
        SendChunk(member, s.term, s.lead.round, progress.snapshot, progress.offset, s.settings.chunk_bytes)
    )


def again(s: State, member: Member, progress: Progress) -> None:
    """Nothing was heard of the last piece: send it again, or after long silence the newest snapshot.

    Who is not heard at all is not sent pieces: heartbeats will find it when it is back.
    """
    if progress.sending is not Sending.SNAPSHOT or s.now > progress.heard_at + s.settings.election_s:
        return
    if s.now - progress.moved_at > s.settings.election_s:
        newest = s.log.view.snapshot()
        if newest is not None and newest != progress.snapshot:
            progress.send_snapshot(newest, s.now)
    chunk(s, member, progress)


def on_reply(s: State, follower: Member, m: ChunkReply) -> bool:
    """A follower says how much it has. True: it is ready for entries."""
    lead = s.lead
    progress = lead.progress.get(follower) if lead is not None else None
    if lead is None or progress is None:
        return False
    lead.heard(progress, m.round)
    snapshot = progress.snapshot
    if snapshot is None or snapshot.index != m.index:
        return False
    if m.done:
        progress.agreed(m.index)
        return True
    if m.offset != progress.offset:
        progress.offset = m.offset
        progress.moved_at = s.now
        chunk(s, follower, progress)
    return False
