"""Call: one call of HTTP/2, the frames it travels in, and how it ended.

A letter and its capsules. Each capsule says which letter it belongs to; the last one to come back says how
the matter ended, in a number and perhaps a sentence.

Source: RFC 9113, section 4; the gRPC protocol over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
Departure: only the frames that a client without push or priorities meets.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from urllib.parse import unquote

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
CANCEL, REFUSED_STREAM = 8, 7
HEAD = struct.Struct(">BHBBI")
CODES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE "
    "DATA_LOSS UNAUTHENTICATED"
).split()
"""gRPC's, by number."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, as it travels."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


class Ended(Exception):
    """A call ended without an answer. `code`: gRPC's name of it; `sent`: False where it never was begun."""

    def __init__(self, code: str, text: str, *, sent: bool = True) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text, self.sent = code, text, sent


class Call:
    """One call: what came back so far. A unary call is answered once, a stream as often as it likes."""

    __slots__ = ("bell", "buffer", "end", "messages", "number", "out", "received", "timer", "unary", "window")

    def __init__(self, number: int, window: int, bell: asyncio.Future[None], *, unary: bool) -> None:
        self.number, self.window, self.bell, self.unary = number, window, bell, unary
        self.buffer = b""
        self.messages: deque[bytes] = deque()
        self.out = b""
        self.end: Ended | bool | None = False
        """False: it goes on. None: it ended well."""
        self.received = 0
        self.timer: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        if not self.bell.done():
            self.bell.set_result(None)


def wrapped(data: bytes) -> bytes:
    """A message of gRPC, uncompressed."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def ended(said: dict[str, str]) -> Ended | None:
    """How a call ended that was told so; None: well."""
    status = said.get("grpc-status")
    if status == "0":
        return None
    if status is None:
        return Ended("UNAVAILABLE", f"HTTP status {said.get(':status', '?')}")
    code = CODES[int(status)] if status.isdigit() and int(status) < len(CODES) else "UNKNOWN"
    return Ended(code, unquote(said.get("grpc-message", "")))
