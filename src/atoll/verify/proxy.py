"""Proxy: a TCP proxy of our own that stands before a server, and may stop being a good messenger.

A porter between two rooms. He can drop what he is handed in one direction, in both, hold it back for a
while, shut the door in the middle of a sentence, or carry the question and swallow the answer. He counts
what he did, because a fault that touched nobody proves nothing.

Departure: TCP is never reordered or torn here, bytes are dropped whole chunk by chunk; what a connection lost
it never gets back, so a connection that lost a chunk is reset when the fault is over, as a router that
forgot it would do.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

CHUNK = 1 << 16
_ADDRESS = re.compile(r"(?<![\w.])((?:\d{1,3}\.){3}\d{1,3}|localhost):(\d{2,5})(?!\d)")


class Mood(Enum):
    """What the porter does with what he is handed."""

    FAITHFUL = "faithful"
    CUT = "cut"  # resets every connection and takes no new one
    SILENT = "silent"  # drops both directions; connections stay open, new ones get no answer
    DEAF = "deaf"  # what clients send is dropped
    MUTE = "mute"  # what the server answers is dropped
    SWALLOW = "swallow"  # carries the question, and resets the connection in place of the answer


@dataclass(slots=True)
class Counts:
    """What a proxy did. Sizes in bytes."""

    connections: int = 0
    carried: int = 0
    cut: int = 0
    dropped_to_server: int = 0
    dropped_to_client: int = 0
    answers_swallowed: int = 0
    delayed: int = 0


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and ours to the server behind it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    hurt: bool = False

    def reset(self) -> None:
        """Both ends hear that the connection is gone."""
        for writer in (self.client, self.server):
            _reset(writer)


@dataclass(eq=False, slots=True)
class Proxy:
    """Stands before `host`:`port`. `allows(client port)` False: that client's connections are as in `mood`.

    `mood` may be changed at any time through `be`; `delay_s` holds each chunk back, in both directions.
    """

    host: str
    port: int
    mood: Mood = Mood.FAITHFUL
    delay_s: float = 0.0
    concerns: Callable[[int], bool] = lambda port: True
    counts: Counts = field(default_factory=Counts)
    _links: set[_Link] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def open(self) -> str:
        """Begin to listen on a free port of loopback; answers host:port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        return self.address

    @property
    def address(self) -> str:
        """Where clients find it, as host:port."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def links(self) -> int:
        """How many connections go through it now."""
        return len(self._links)

    def be(self, mood: Mood, delay_s: float = 0.0) -> None:
        """Change what is done from now on. Connections that lost something are reset when it is over."""
        self.mood, self.delay_s = mood, delay_s
        for link in list(self._links):
            if mood is Mood.CUT or (mood is Mood.FAITHFUL and link.hurt):
                if mood is not Mood.CUT or self._concerned(link):
                    self.counts.cut += 1
                    link.reset()

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _concerned(self, link: _Link) -> bool:
        peer = link.client.get_extra_info("peername")
        return peer is None or self.concerns(int(peer[1]))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.mood is Mood.CUT and self.concerns(int(writer.get_extra_info("peername")[1])):
                self.counts.cut += 1
                _reset(writer)
                return
            with suppress(OSError, asyncio.CancelledError):  # cancelled by our own close alone
                their_reader, their_writer = await asyncio.open_connection(self.host, self.port, limit=CHUNK)
                await self._carry(_Link(writer, their_writer), reader, their_reader)
            _reset(writer)
        finally:
            self._tasks.discard(task)

    async def _carry(self, link: _Link, asked: asyncio.StreamReader, answered: asyncio.StreamReader) -> None:
        self._links.add(link)
        ways = (
            asyncio.ensure_future(self._way(link, asked, link.server, to_server=True)),
            asyncio.ensure_future(self._way(link, answered, link.client, to_server=False)),
        )
        try:
            await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)
            link.reset()

    async def _way(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        """One direction, chunk by chunk, until its sender is done."""
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if self.delay_s:
                    self.counts.delayed += len(chunk)
                    await asyncio.sleep(self.delay_s)
                if self.mood is not Mood.FAITHFUL and self._concerned(link):
                    if self._loses(link, len(chunk), to_server=to_server):
                        continue
                writer.write(chunk)
                self.counts.carried += len(chunk)
                await writer.drain()
            if not link.hurt:
                writer.write_eof()

    def _loses(self, link: _Link, size: int, *, to_server: bool) -> bool:
        """Whether this chunk is lost in the mood of now."""
        if self.mood is Mood.SWALLOW and not to_server:
            self.counts.answers_swallowed += 1
            self.counts.dropped_to_client += size
            link.reset()
            return True
        if to_server and self.mood in (Mood.SILENT, Mood.DEAF, Mood.CUT):
            self.counts.dropped_to_server += size
        elif not to_server and self.mood in (Mood.SILENT, Mood.MUTE, Mood.CUT):
            self.counts.dropped_to_client += size
        else:
            return False
        link.hurt = True
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: the other side hears that the connection broke, not that all was said."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(RuntimeError):
        writer.transport.abort()


def addresses(url: str) -> list[tuple[str, int]]:
    """The host:port pairs that a URL names, in order. Hosts by number or localhost only."""
    place = url.partition("?")[0]
    return [(host, int(port)) for host, port in dict.fromkeys(_ADDRESS.findall(place))]


def redirected(url: str, through: dict[tuple[str, int], str]) -> str:
    """The same URL, with each address replaced by the one that `through` gives for it."""
    place, mark, query = url.partition("?")

    def instead(found: re.Match[str]) -> str:
        return through.get((found[1], int(found[2])), found[0])

    return _ADDRESS.sub(instead, place) + mark + query
