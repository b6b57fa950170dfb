"""Progress: what a leader knows of one follower, and how much it dares to have on the way to it.

A mason who hands bricks up a ladder. At first one brick, and he waits for the call. Once it comes he hands
them up without waiting, but never more than the ladder carries. When a call says that one fell, he goes back
to one. And to a colleague who is whole floors behind he sends a crate.

Source: Ongaro, Consensus (2014), 3.5 and 10.2.2 (pipelining).
Departure: the three states are named; the ladder is bounded by messages and by bytes; a heartbeat names the
newest entry that was sent, so that its answer tells of a loss though nothing else is sent after it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from atoll.algorithms.raft.messages import Index, Snapshot


class Sending(Enum):
    """How the leader sends to a follower."""

    PROBE = "probe"
    """One message at a time: where the logs part is not known."""
    REPLICATE = "replicate"
    """Without waiting, within the window."""
    SNAPSHOT = "snapshot"
    """What it needs is not in the log any more."""


class Progress:
    """One follower. `match`: durable there. `next`: what is sent to it next."""

    __slots__ = (
        "_bytes",
        "_inflight",
        "_probing",
        "heard_at",
        "match",
        "moved_at",
        "next",
        "offset",
        "round",
        "sending",
        "snapshot",
    )

    def __init__(self, next: Index, now: float) -> None:
        self.match: Index = 0
        self.next: Index = next
        self.sending = Sending.PROBE
        self.round = 0
        """The newest round that it echoed."""
        self.heard_at = now
        """When that round began: it surely was heard after."""
        self.snapshot: Snapshot | None = None
        self.offset = 0
        self.moved_at = now
        """When the snapshot's transfer last came a step further."""
        self._probing = False
        self._inflight: deque[tuple[Index, int]] = deque()
        self._bytes = 0

    def room(self, messages_max: int, bytes_max: int) -> int:
        """How many bytes of entries may go out now, in one Append; 0: none, wait for an answer."""
        if self.sending is Sending.REPLICATE:
            return max(0, bytes_max - self._bytes) if len(self._inflight) < messages_max else 0
        return bytes_max if self.sending is Sending.PROBE and not self._probing else 0

    @property
    def inflight(self) -> int:
        """Appends with entries that are not answered."""
        return len(self._inflight) if self.sending is Sending.REPLICATE else int(self._probing)

    def sent(self, last: Index, size: int) -> None:
        """An Append with entries up to `last` goes out."""
        if self.sending is Sending.PROBE:
            self._probing = True
            return
        self.next = last + 1
        self._inflight.append((last, size))
        self._bytes += size

    def agreed(self, match: Index) -> bool:
        """It said ok. True: more is durable there than was known."""
        if self.sending is Sending.SNAPSHOT:
            if self.snapshot is None or match < self.snapshot.index:
                return False
            self.probe(match + 1)
        moved = match > self.match
        if moved:
            self.match = match
            self.next = max(self.next, match + 1)
            while self._inflight and self._inflight[0][0] <= match:
                self._bytes -= self._inflight.popleft()[1]
        if self.sending is Sending.PROBE:
            self.sending = Sending.REPLICATE
            self._probing = False
        return moved

    def refused(self, prev: Index) -> bool:
        """Whether a refusal of what stands at `prev` tells something new; an old one is without meaning."""
        if prev <= self.match or self.sending is Sending.SNAPSHOT:
            return False
        return self.sending is Sending.REPLICATE or prev == self.next - 1

    def probe(self, next: Index) -> None:
        """Go back to one message at a time, from `next` on."""
        self.sending = Sending.PROBE
        self.next = max(next, self.match + 1)
        self.snapshot = None
        self.unanswered()
        self._inflight.clear()
        self._bytes = 0

    def unanswered(self) -> None:
        """The probe may be lost: another may go out."""
        self._probing = False

    def send_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Send `snapshot` instead of entries, from its beginning."""
        self.probe(self.next)
        self.sending = Sending.SNAPSHOT
        self.snapshot = snapshot
        self.offset = 0
        self.moved_at = now
