"""HTTP/2: one connection to one member, and the calls that share it, on asyncio alone.

A pneumatic post. Many letters travel in one tube, each in numbered capsules; the tube says how much may be in
it at once, and when it breaks we know of each letter whether a capsule of it had left the house. That
knowledge, and that it survives a fork, is why the tube is our own.

Source: RFC 9113; the gRPC protocol over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
Departure: a client only; no push, no priorities, no compression; what it may receive is bounded by the calls
it makes, not by windows.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any

from atoll import clock
from atoll.engines.etcd import hpack
from atoll.engines.etcd.call import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Call,
    Ended,
    ended,
    frame,
    wrapped,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TABLE_SIZE, _PUSH, _STREAMS_MAX, _WINDOW, _FRAME_MAX = 1, 2, 3, 4, 5
_WIDE = (1 << 31) - 1
_FIRST_WINDOW = 65535
_REFILL = 1 << 29
SILENT_S, PONG_S = 6.0, 3.0
"""After how long a silence a connection with calls is asked whether it lives, and how long it has to say so.
Below 5 s etcd calls it flooding and hangs up."""


class Connection(asyncio.Protocol):
    """A connection that stands, or did. `greeted` is done when it may be used."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.greeted: asyncio.Future[None] = self.loop.create_future()
        self.why = "the connection was closed"
        self.standing = False
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._tail = b""
        self._block: tuple[int, int, bytes] | None = None
        self._sending: list[bytes] = []
        self._window = self._stream_window = _FIRST_WINDOW
        self._frame_max = 16384
        self._streams_max = 100
        self._blocked: dict[int, Call] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._received = 0
        self._heard = clock.loop_now()
        self._asked: float | None = None
        self._watching: asyncio.TimerHandle | None = None

    # -- asking ------------------------------------------------------------------------------------

    async def ask(self, head: bytes, data: bytes, timeout: float) -> bytes:
        """The answer to one question; raises Ended."""
        call = await self._begin(head, timeout, unary=True)
        try:
            self._send(call, wrapped(data), end=True)
            await call.bell
        except asyncio.CancelledError:
            self.cancel(call)
            raise
        finally:
            if call.timer is not None:
                call.timer.cancel()
        if call.end is None:
            if call.messages:
                return call.messages[0]
            raise Ended("INTERNAL", "an answer without a message")
        assert isinstance(call.end, Ended)
        raise call.end

    async def stream(self, head: bytes) -> Call:
        """A call of many messages each way, without a time limit."""
        return await self._begin(head, None, unary=False)

    def send(self, call: Call, data: bytes) -> None:
        """One message into a stream; nothing happens when it has ended."""
        if call.end is False:
            self._send(call, wrapped(data), end=False)

    async def read(self, call: Call) -> bytes | None:
        """The stream's next message, None at its end; raises Ended when that is a bad one."""
        while not call.messages:
            if isinstance(call.end, Ended):
                raise call.end
            if call.end is None:
                return None
            if call.bell.done():
                call.bell = self.loop.create_future()
            await call.bell
        return call.messages.popleft()

    def cancel(self, call: Call) -> None:
        """We no longer want to hear of it."""
        if self._calls.pop(call.number, None) is not None:
            self._blocked.pop(call.number, None)
            self._write(frame(RST_STREAM, 0, call.number, struct.pack(">I", CANCEL)))
            self._room()
        if call.end is False:
            call.end = Ended("CANCELLED", "given up by us")
        call.ring()

    async def _begin(self, head: bytes, timeout: float | None, *, unary: bool) -> Call:
        while len(self._calls) >= self._streams_max and self.standing:
            turn: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(turn)
            asked = clock.loop_now()
            limit = None if timeout is None else self.loop.call_later(timeout, _give_up, turn)
            try:
                await turn
            finally:
                if limit is not None:
                    limit.cancel()
            if timeout is not None and (timeout := timeout - (clock.loop_now() - asked)) <= 0:
                self._room()
                why = f"{self._streams_max} calls were under way and none ended in time"
                raise Ended("DEADLINE_EXCEEDED", why, sent=False)
        if not self.standing:
            raise Ended("UNAVAILABLE", self.why, sent=False)
        number = self._next
        self._next += 2
        if self._next >= _WIDE:
            self.standing = False  # its numbers are used up; the next call connects anew
        call = self._calls[number] = Call(number, self._stream_window, self.loop.create_future(), unary=unary)
        if timeout is not None:
            head += hpack.literal("grpc-timeout", f"{max(1, int(timeout * 1000))}m")
            call.timer = self.loop.call_later(timeout, self._late, call)
        self._write(frame(HEADERS, END_HEADERS, number, head))
        if self._watching is None:
            self._heard = clock.loop_now()
            self._watching = self.loop.call_later(SILENT_S / 2, self._watch)
        return call

    def _late(self, call: Call) -> None:
        call.end = Ended("DEADLINE_EXCEEDED", "no answer in time")
        self.cancel(call)

    # -- sending -----------------------------------------------------------------------------------

    def _send(self, call: Call, data: bytes, *, end: bool) -> None:
        """As much as the windows let through now; the rest when they open."""
        size = len(data)
        if not call.out and size <= self._window and size <= call.window and size <= self._frame_max:
            self._window -= size
            call.window -= size
            self._write(frame(DATA, END_STREAM if end else 0, call.number, data))
        else:
            call.out += data
            self._blocked[call.number] = call
            self._pump(call)

    def _pump(self, call: Call) -> None:
        while call.out:
            size = min(len(call.out), self._window, call.window, self._frame_max)
            if size <= 0:
                return
            chunk, call.out = call.out[:size], call.out[size:]
            self._window -= size
            call.window -= size
            last = END_STREAM if call.unary and not call.out else 0
            self._write(frame(DATA, last, call.number, chunk))
        self._blocked.pop(call.number, None)

    def _write(self, data: bytes) -> None:
        """What is written in one turn of the loop leaves in one piece."""
        if not self._sending:
            self.loop.call_soon(self._flush)
        self._sending.append(data)

    def _flush(self) -> None:
        data, self._sending = b"".join(self._sending), []
        if self.transport is not None and data:
            self.transport.write(data)

    # -- the connection ----------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        settings = ((_TABLE_SIZE, 0), (_PUSH, 0), (_WINDOW, _WIDE), (_FRAME_MAX, 1 << 20))
        words = b"".join(struct.pack(">HI", *pair) for pair in settings)
        wider = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDE - _FIRST_WINDOW))
        transport.write(PREFACE + frame(SETTINGS, 0, 0, words) + wider)

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(f"the connection was lost: {error}" if error else "the connection was closed by the server")

    def fail(self, why: str) -> None:
        """It is over; of every call that waits nothing more is known."""
        if self.standing or not self.greeted.done():
            self.why = why
        self.standing = False
        if not self.greeted.done():
            self.greeted.set_exception(Ended("UNAVAILABLE", why, sent=False))
        for call in list(self._calls.values()):
            self._finish(call, Ended("UNAVAILABLE", why))
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        for turn in self._waiting:
            _give_up(turn)
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Hang up."""
        self._flush()
        self.fail("this handle was closed")

    def _finish(self, call: Call, end: Ended | None) -> None:
        self._calls.pop(call.number, None)
        self._blocked.pop(call.number, None)
        if call.end is False:
            call.end = end
        call.ring()
        self._room()

    def _room(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _watch(self) -> None:
        """A connection with calls that says nothing is asked; one that does not answer is given up."""
        self._watching = None
        if not self._calls:
            self._asked = None
            return
        now = clock.loop_now()
        if self._asked is not None and self._heard < self._asked and now - self._asked > PONG_S:
            self.fail(f"the connection has been silent for {now - self._heard:.1f} s")
            return
        if now - self._heard > SILENT_S and (self._asked is None or self._heard >= self._asked):
            self._asked = now
            self._write(frame(PING, 0, 0, b"are you?"))
        self._watching = self.loop.call_later(PONG_S / 3, self._watch)

    # -- receiving ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard = clock.loop_now()
        if self._tail:
            data = self._tail + data
        at, size = 0, len(data)
        try:
            while size - at >= 9:
                high, low, kind, flags, number = HEAD.unpack_from(data, at)
                end = at + 9 + (high << 16 | low)
                if end > size:
                    break
                self._frame(kind, flags, number & _WIDE, data[at + 9 : end])
                at = end
        except (hpack.BadBlock, struct.error, IndexError) as error:
            self.fail(f"the server does not speak HTTP/2 as expected: {error!r}")
            return
        self._tail = data[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            self._data(flags, number, payload)
        elif kind == HEADERS or kind == CONTINUATION:
            self._headers(kind, flags, number, payload)
        elif kind == SETTINGS:
            if not flags & ACK:
                self._settings(payload)
        elif kind == WINDOW_UPDATE:
            self._widen(number, struct.unpack(">I", payload)[0] & _WIDE)
        elif kind == PING:
            if not flags & ACK:
                self._write(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            if (call := self._calls.get(number)) is not None:
                code = struct.unpack(">I", payload)[0]
                text = f"the server ended the call with code {code}"
                self._finish(call, Ended("UNAVAILABLE", text, sent=code != REFUSED_STREAM))
        elif kind == GOAWAY:
            self._goaway(payload)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > _REFILL:
            self._write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        call = self._calls.get(number)
        if call is None:
            return
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        call.buffer = call.buffer + payload if call.buffer else payload
        while len(call.buffer) >= 5:
            end = 5 + int.from_bytes(call.buffer[1:5], "big")
            if len(call.buffer) < end:
                break
            call.messages.append(call.buffer[5:end])
            call.buffer = call.buffer[end:]
        if not call.unary:
            call.received += len(payload)
            if call.received > _REFILL:
                self._write(frame(WINDOW_UPDATE, 0, number, struct.pack(">I", call.received)))
                call.received = 0
            if call.messages:
                call.ring()
        if flags & END_STREAM:
            self._finish(call, Ended("UNKNOWN", "the answer ended without a status"))

    def _headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & PRIORITY:
                payload = payload[5:]
        elif self._block is not None:
            number, first, before = self._block
            flags, payload = flags | first & END_STREAM, before + payload
        if not flags & END_HEADERS:
            self._block = (number, flags, payload)
            return
        self._block = None
        said = hpack.headers(payload)
        call = self._calls.get(number)
        if call is not None and (flags & END_STREAM or "grpc-status" in said):
            self._finish(call, ended(said))

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == _WINDOW:
                for call in self._calls.values():
                    call.window += value - self._stream_window
                self._stream_window = value
            elif name == _FRAME_MAX:
                self._frame_max = value
            elif name == _STREAMS_MAX:
                self._streams_max = value
        self._write(frame(SETTINGS, ACK, 0))
        if not self.greeted.done():
            self.standing = True
            self.greeted.set_result(None)
        self._widen(0, 0)

    def _widen(self, number: int, by: int) -> None:
        if number == 0:
            self._window += by
            for call in list(self._blocked.values()):
                self._pump(call)
        elif number in self._calls:
            self._calls[number].window += by
            self._pump(self._calls[number])

    def _goaway(self, payload: bytes) -> None:
        """The server takes no new calls, and will never look at those behind the last it names."""
        last = struct.unpack_from(">I", payload)[0] & _WIDE
        self.standing, self.why = False, "the server is going away"
        for call in [c for c in self._calls.values() if c.number > last]:
            self._finish(call, Ended("UNAVAILABLE", self.why, sent=False))


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
