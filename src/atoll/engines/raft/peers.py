"""Peers: the lines to the other members, one for each direction, and what may wait on them.

A post room with two trays for each house across the street: letters that must go with the next round, and
parcels. The parcels' tray has a rim; what falls over it is sent again by whoever misses it. Only the dialler
speaks on a line, so each pair has two lines, and each side cuts and mends its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.algorithms.raft.messages import Append, Chunk, Member, Message
from atoll.engines.raft.acquaintances import Acquaintances
from atoll.engines.raft.connection import Connection, TurnedAway, dial
from atoll.engines.raft.frames import (
    FORMAT,
    FORMAT_OLDEST,
    MAGIC,
    Caller,
    Hello,
    Letter,
    Ping,
    Pong,
    Why,
    pack,
    read_remark,
)
from atoll.engines.raft.tls import Tls
from atoll.errors import AtollError

log = logging.getLogger("atoll.raft")
PARCELS_BYTES_MAX = 16 << 20
LETTERS_MAX = 256
AWAY_LETTERS_MAX = 16
"""Letters kept for a member that cannot be reached: older ones are of no use to it."""
CALLERS_MAX = 64
AGAIN_FIRST_S, AGAIN_CEILING_S = 0.05, 0.5
TURNED_AWAY_AGAIN_S = 2.0
_NOT_SENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


@dataclass(frozen=True, slots=True)
class Self:
    """Who this member is to others."""

    name: Member
    cluster: str
    born: str
    incarnation: str
    place: str
    formats: tuple[int, int] = (FORMAT_OLDEST, FORMAT)


@dataclass(slots=True)
class Counts:
    """What the lines did, for status and tests."""

    sent: int = 0
    received: int = 0
    dropped: int = 0
    dialled: int = 0


@dataclass(slots=True)
class Peers:
    """All lines out. `final` hears why this member must end."""

    me: Self
    acquaintances: Acquaintances
    final: Callable[[str], None]
    tls: Tls | None = None
    told: Mapping[Member, str] = field(default_factory=dict)
    """Places that whoever started this member told; they count before those of the log."""
    counts: Counts = field(default_factory=Counts)
    _lines: dict[Member, Line] = field(default_factory=dict)
    _callers: dict[Member, str] = field(default_factory=dict)

    def expect(self, places: dict[Member, str]) -> None:
        """These are the members, and where they are; lines to others are hung up."""
        for name, place in places.items():
            if name != self.me.name:
                self.meet(name, self.told.get(name) or place)
        for name in [n for n in self._lines if n not in places]:
            self._lines.pop(name).close()

    def meet(self, name: Member, place: str) -> None:
        """Open a line to `name`, or move it to another place."""
        line = self._lines.get(name)
        if line is not None and line.place == place:
            return
        if line is not None:
            line.close()
        if place:
            self._lines[name] = Line(self, name, place)

    def introduced(self, name: Member, place: str) -> None:
        """`name` called us from there: whoever is no member may get an answer all the same."""
        self._callers.pop(name, None)
        self._callers[name] = place
        if len(self._callers) > CALLERS_MAX:
            del self._callers[next(iter(self._callers))]
        if name not in self._lines:
            self.meet(name, place)

    def send(self, to: Member, message: Message) -> None:
        """Hand over a message; it is dropped where nobody can take it."""
        line = self._lines.get(to)
        if line is None:
            self.meet(to, self._callers.get(to, ""))
            line = self._lines.get(to)
        if line is None:
            self.counts.dropped += 1
            return
        line.send(pack(Letter(self.me.cluster, message)), _is_parcel(message))

    def reached(self) -> dict[Member, bool]:
        """Which members welcome us now."""
        return {name: line.connection is not None for name, line in self._lines.items()}

    def place(self, name: Member) -> str:
        """Where `name` is reached, "" if unknown."""
        line = self._lines.get(name)
        return line.place if line is not None else ""

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


def _is_parcel(message: Message) -> bool:
    return isinstance(message, Chunk) or (isinstance(message, Append) and bool(message.entries))


class Line:
    """One line out: dialled, dialled again, with its two trays."""

    def __init__(self, peers: Peers, name: Member, place: str) -> None:
        self.name = name
        self.place = place
        self.connection: Connection | None = None
        self._peers = peers
        self._letters: deque[bytes] = deque()
        self._parcels: deque[bytes] = deque()
        self._parcel_bytes = 0
        self._cut = asyncio.Event()
        self._said = ""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"raft line to {name}")

    def send(self, frame: bytes, parcel: bool) -> None:
        connection = self.connection
        if connection is not None and connection.writable and not self._letters:
            self._peers.counts.sent += 1
            connection.send(frame)
        elif not parcel:
            self._letters.append(frame)
            if len(self._letters) > (AWAY_LETTERS_MAX if connection is None else LETTERS_MAX):
                self._letters.popleft()
                self._peers.counts.dropped += 1
        elif connection is None:
            self._peers.counts.dropped += 1
        else:
            self._parcels.append(frame)
            self._parcel_bytes += len(frame)
            while self._parcel_bytes > PARCELS_BYTES_MAX and len(self._parcels) > 1:
                self._parcel_bytes -= len(self._parcels.popleft())
                self._peers.counts.dropped += 1

    def close(self) -> None:
        self._task.cancel()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _flush(self) -> None:
        """Room again: letters first, then parcels for as long as there is room."""
        connection = self.connection
        while connection is not None and connection.writable and (self._letters or self._parcels):
            if self._letters:
                frame = self._letters.popleft()
            else:
                frame = self._parcels.popleft()
                self._parcel_bytes -= len(frame)
            self._peers.counts.sent += 1
            connection.send(frame)

    async def _keep(self) -> None:
        attempt = 0
        while True:
            self._cut.clear()
            try:
                await self._dial()
                attempt = 0
                await self._cut.wait()
            except TurnedAway as refusal:
                self._say(f"{self.name} at {self.place} turned this member away: {refusal}")
                if refusal.why in (Why.DOUBLE, Why.WIPED):
                    self._peers.final(str(refusal))
                    return
                await asyncio.sleep(TURNED_AWAY_AGAIN_S)
            except (AtollError, OSError) as error:
                self._say(f"no line to {self.name} at {self.place}: {error}")
            attempt += 1
            die = clock.chance().random()
            await asyncio.sleep(
                full_jitter(attempt, die, first_s=AGAIN_FIRST_S, ceiling_s=AGAIN_CEILING_S, floor_s=0.02)
            )

    async def _dial(self) -> None:
        peers, me = self._peers, self._peers.me
        peers.counts.dialled += 1
        hello = Hello(
            MAGIC,
            *me.formats,
            me.cluster,
            Caller.PEER,
            me.name,
            self.name,
            me.born,
            me.incarnation,
            me.place,
            peers.acquaintances.born(self.name),
        )
        tls = peers.tls.for_calling() if peers.tls is not None else None
        connection, welcome = await dial(self.place, hello, self._frame, self._lost, tls=tls)
        stranger = await peers.acquaintances.remember(self.name, welcome.born)
        if stranger:
            connection.close(stranger)
            raise TurnedAway(stranger, Why.NAME)
        _hurry(connection)
        connection.room = self._flush
        self.connection = connection
        if self._said:
            log.info("%s at %s welcomes this member again", self.name, self.place)
            self._said = ""
        self._flush()

    def _frame(self, connection: Connection, body: bytes) -> None:
        if isinstance(read_remark(body), Ping):
            connection.send(pack(Pong()))

    def _lost(self, connection: Connection, why: str) -> None:
        if self.connection is connection:
            self.connection = None
        self._parcels.clear()
        self._parcel_bytes = 0
        self._letters.clear()
        self._cut.set()

    def _say(self, sentence: str) -> None:
        """A line per change, none per attempt."""
        if sentence != self._said:
            self._said = sentence
            log.info("%s", sentence)


def _hurry(connection: Connection) -> None:
    """Let little wait in buffers where a heartbeat cannot overtake it."""
    transport = connection._transport
    if transport is None:
        return
    transport.set_write_buffer_limits(high=256 << 10)
    found = transport.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            found.setsockopt(socket.IPPROTO_TCP, _NOT_SENT_LOWAT, 256 << 10)
        except OSError:  # a kernel without it only makes a heartbeat wait longer
            return
