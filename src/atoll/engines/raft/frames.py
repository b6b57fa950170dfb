"""Frames: how bytes on a member's port become messages, and how two programs first greet each other.

Two strangers on the telephone. Before anything else each says who he is and which languages he speaks; if
they share none, or one has dialled the wrong house, they say so in a sentence and hang up. After that every
remark is announced by its length, and nobody listens to a remark that is announced longer than agreed.

A frame is four bytes of length (big endian), then that many bytes of msgpack. The first frame of whoever
dials is a `Hello`; the answer is a `Welcome` or a `Refusal`. A member's frames after it are `Letter`s, each
with the id of its cluster; a client's are the client's own affair.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar

import msgspec

from atoll.algorithms.raft.messages import Message
from atoll.errors import FormatRefused

MAGIC = "atoll-raft"
FORMAT = 1
FORMAT_OLDEST = 1
"""We speak from here to FORMAT: ours and the one before it, so that a cluster is renewed member by member."""
HELLO_BYTES_MAX = 4096
"""A first frame is small: what announces more is no caller of ours."""
FRAME_BYTES_MAX = 4 << 20
LENGTH_BYTES = 4


class Caller(IntEnum):
    """Who dials."""

    PEER = 1
    CLIENT = 2


class Why(IntEnum):
    """Why a caller was turned away. `DOUBLE` and `WIPED` are final: such a caller must not go on."""

    FORMAT = 1
    CLUSTER = 2
    DOUBLE = 3
    """Another process answers under that member's name."""
    WIPED = 4
    """The caller's name has been another data folder's."""
    NAME = 5
    """The certificate says another name, or the one dialled is not the one who answers, or not any more."""
    BUSY = 6


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of whoever dials. Fields are only ever added at the end."""

    magic: str
    oldest: int
    newest: int
    cluster: str
    """The caller's cluster; a client that does not know it yet says ""."""
    caller: int
    name: str
    """A member's name; for a client what a person shall read."""
    to: str = ""
    """The member who is meant; "" for whoever answers."""
    born: str = ""
    """Names the member's data folder, for ever."""
    incarnation: str = ""
    """Names this run of the member's process."""
    place: str = ""
    """Where the member is reached."""
    knew: str = ""
    """What the caller knows `to`'s folder to be named; "" where they never met."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The answer to a Hello: from now on both speak `format`."""

    format: int
    cluster: str
    name: str
    born: str = ""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The answer to a Hello that leads nowhere: why, and a sentence for a person."""

    why: int
    sentence: str


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Are you still there? Asked of a member when another calls under its name."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """I am."""


class Letter(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """What one member says to another, stamped with the cluster that it concerns."""

    cluster: str
    message: Message


_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode
_hello = msgspec.msgpack.Decoder(Hello)
_answer: msgspec.msgpack.Decoder[Welcome | Refusal] = msgspec.msgpack.Decoder(Welcome | Refusal)
_remark: msgspec.msgpack.Decoder[Letter | Ping | Pong] = msgspec.msgpack.Decoder(Letter | Ping | Pong)


def pack(record: Any) -> bytes:
    """A record as one frame."""
    body = _encode(record)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read_hello(body: bytes) -> Hello:
    """The first frame; FormatRefused where it is none of ours."""
    hello = _read(_hello, body, "a greeting")
    if hello.magic != MAGIC:
        raise FormatRefused(f"found the greeting {hello.magic!r:.40}; expected {MAGIC!r}")
    return hello


def read_answer(body: bytes) -> Welcome | Refusal:
    """What a Hello was answered with."""
    return _read(_answer, body, "the answer to a greeting")


def read_remark(body: bytes) -> Letter | Ping | Pong:
    """A frame between members, after their greeting."""
    return _read(_remark, body, "a message between members")


def _read(decoder: msgspec.msgpack.Decoder[_T], body: bytes, what: str) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatRefused(f"found {len(body)} bytes that are not {what}: {error}") from None


def agreed_format(hello: Hello, oldest: int = FORMAT_OLDEST, newest: int = FORMAT) -> int:
    """The newest format that both speak; FormatRefused, with both ranges, where there is none."""
    both = min(hello.newest, newest)
    if both < max(hello.oldest, oldest):
        raise FormatRefused(
            f"found a caller {hello.name!r:.60} that speaks formats {hello.oldest} to {hello.newest}; this "
            f"member speaks {oldest} to {newest}. Members may be one release apart: go through the "
            "releases between, one at a time."
        )
    return both


class Splitter:
    """Cuts what arrives into frames. `bytes_max` is checked when a length is read, before anything waits."""

    def __init__(self, bytes_max: int = HELLO_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now; FormatRefused for one that is announced too long, or as empty."""
        rest = self._rest
        rest += data
        found = []
        at = 0
        end = len(rest)
        while end - at >= LENGTH_BYTES:
            length = int.from_bytes(rest[at : at + LENGTH_BYTES], "big")
            if not 0 < length <= self.bytes_max:
                raise FormatRefused(
                    f"found a frame announced with {length} bytes; expected 1 to {self.bytes_max}"
                )
            if end - at - LENGTH_BYTES < length:
                break
            at += LENGTH_BYTES + length
            found.append(bytes(rest[at - length : at]))
        if at:
            del rest[:at]
        return found

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._rest)
