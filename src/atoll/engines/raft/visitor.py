"""Visitor: one client at a member's desk: what it may still ask, and what waits for it.

A customer with a tray. When the tray is full the clerk takes no more slips until some are answered; news that
would not fit are left out, and the next says that some are missing.
"""

from __future__ import annotations

import asyncio

from atoll.engines.raft import wire
from atoll.engines.raft.connection import Connection
from atoll.engines.raft.reading import PARCEL_BYTES, parcels
from atoll.engines.raft.wire import Answer, Told

WAITING_MAX = 4096
"""Questions of one client that may wait for an answer."""
HELD_BYTES_MAX = 256 << 20
"""Where more waits for one client than this, and one more answer comes, it is hung up on."""


class Visitor:
    """One connection of a client."""

    __slots__ = ("_loop", "_out", "_paused", "_waiting", "connection", "gone")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.gone = False
        self._waiting = 0
        self._paused = False
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def takes(self) -> None:
        """One more question waits."""
        self._waiting += 1
        if self._waiting >= WAITING_MAX and not self._paused:
            self._paused = True
            self.connection.pause_reading()

    def answer(self, number: int, answer: Answer) -> None:
        """Answer question `number`; in several frames where one would be too large."""
        self._waiting -= 1
        if self._paused:
            self.room()
        if self.connection.waiting > HELD_BYTES_MAX:  # looked at before: a large answer is no fault
            self.connection.abort("it does not read what it asked for")
            return
        if isinstance(answer, wire.Rows | wire.Leaf):
            answer = self._parted(number, answer)
        elif isinstance(answer, wire.Done) and len(answer.data) > PARCEL_BYTES:
            answer = self._in_pieces(number, answer.data)
        self._send(wire.pack(Told(number, answer)))

    def tell(self, frame: bytes) -> None:
        """News, packed, unless it takes none now; it will see by the next ones that some are missing."""
        if self.connection.writable:
            self._send(frame)

    def room(self) -> None:
        """It has taken what waited for it."""
        if self._paused and self._waiting < WAITING_MAX // 2 and self.connection.writable:
            self._paused = False
            self.connection.resume_reading()

    def _in_pieces(self, number: int, data: bytes) -> Answer:
        at = 0
        while len(data) - at > PARCEL_BYTES:
            self._send(wire.pack(Told(number, wire.Piece(data[at : at + PARCEL_BYTES]))))
            at += PARCEL_BYTES
        return wire.Done(data[at:])

    def _parted(self, number: int, answer: wire.Rows | wire.Leaf) -> Answer:
        rows = answer.rows if isinstance(answer, wire.Rows) else answer.snapshot
        if not rows or len(rows) <= 1:
            return answer
        *first, last = parcels(rows)
        for parcel in first:
            self._send(wire.pack(Told(number, wire.Part(parcel))))
        if not first:
            return answer
        if isinstance(answer, wire.Rows):
            return wire.Rows(last, answer.revision, answer.more)
        return wire.Leaf(
            answer.epoch, answer.revision, answer.oldest, last, answer.changes, answer.due_s, answer.full
        )

    def _hold_back(self) -> None:
        """Take no more questions from who does not take what waits for them."""
        if not self._paused and not self.connection.writable:
            self._paused = True
            self.connection.pause_reading()

    def _send(self, frame: bytes) -> None:
        """Now, where nobody else's answer is near; else all of this turn of the loop together."""
        if self._waiting == 0 and not self._out:
            if not self.gone:
                self.connection.send(frame)
                self._hold_back()
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.gone:
            self.connection.send(out[0] if len(out) == 1 else b"".join(out))
            self._hold_back()
