"""Wire: the requests that kazoo's own verbs lack, in ZooKeeper's encoding.

A form in several lines, filled in and read back: many nodes in one read, many changes in one write, and on
every answer the number (zxid) of the last transaction it knows of. Until kazoo's thread picks a form up it
can be taken back, so whoever gives up knows whether it was ever sent.

Source: zookeeper.jute and MultiOperationRecord, MultiResponse of ZooKeeper 3.6 and later.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

_INT = struct.Struct("!i")
_HEADER = struct.Struct("!iBi")
_REPLY = struct.Struct("!iqi")
_STAT = struct.Struct("!qqqqiiiqiiq")

EXISTS, SYNC, MULTI, MULTI_READ = 3, 9, 14, 22
CREATE, DELETE, GET, SET, CHILDREN, CHECK = 1, 2, 4, 5, 8, 13
CREATE_2, CREATE_CONTAINER, CREATE_TTL = 15, 19, 21
EPHEMERAL, CONTAINER = 1, 4

NO_NODE, NO_AUTH, BAD_VERSION, NODE_EXISTS = -101, -102, -103, -110
SESSION_EXPIRED, SESSION_MOVED, QUOTA_EXCEEDED = -112, -118, -125
ROLLED_BACK, NOT_REACHED = 0, -2


class Stat(NamedTuple):
    """What ZooKeeper knows of a node. Times in milliseconds of the leader's wall clock."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    children: int
    pzxid: int


class Node(NamedTuple):
    data: bytes
    stat: Stat


class Failed(NamedTuple):
    """A line of the form that failed, by ZooKeeper's own number."""

    code: int


class Reply(NamedTuple):
    """`zxid`: of the last transaction known to the server that answered; the answer is as of it."""

    zxid: int
    results: list[Any]


class Line(NamedTuple):
    """One operation of a request."""

    kind: int
    body: bytes
    path: str = ""


class Acl(NamedTuple):
    scheme: str
    id: str


def text(value: str) -> bytes:
    data = value.encode()
    return _INT.pack(len(data)) + data


def _bytes(value: bytes) -> bytes:
    return _INT.pack(len(value)) + value


def get(path: str) -> Line:
    return Line(GET, text(path) + b"\0", path)


def children(path: str) -> Line:
    return Line(CHILDREN, text(path) + b"\0", path)


def check(path: str, version: int) -> Line:
    return Line(CHECK, text(path) + _INT.pack(version), path)


def set_data(path: str, data: bytes, version: int = -1) -> Line:
    return Line(SET, text(path) + _bytes(data) + _INT.pack(version), path)


def delete(path: str, version: int = -1) -> Line:
    return Line(DELETE, text(path) + _INT.pack(version), path)


def create(path: str, data: bytes, acl: Acl, flags: int = 0) -> Line:
    """`flags`: EPHEMERAL dies with its session, CONTAINER some time after its last child."""
    everything = _INT.pack(1) + _INT.pack(31) + text(acl.scheme) + text(acl.id)
    body = text(path) + _bytes(data) + everything + _INT.pack(flags)
    return Line(CREATE_CONTAINER if flags == CONTAINER else CREATE, body, path)


class _State(Enum):
    WAITING = 1
    SENT = 2
    WITHDRAWN = 3


class Request:
    """One request, as kazoo's connection takes it from its queue: `type`, `serialize`, `deserialize`."""

    __slots__ = ("_body", "_kind", "_lock", "_read", "_state")

    def __init__(self, kind: int, body: bytes, read: Callable[[bytes, int], list[Any]]) -> None:
        self._kind, self._body, self._read = kind, body, read
        self._state, self._lock = _State.WAITING, threading.Lock()

    @property
    def sent(self) -> bool:
        return self._state is _State.SENT

    @property
    def type(self) -> int:
        """Asked for by the connection just before it writes: from here on it counts as sent."""
        with self._lock:
            if self._state is _State.WAITING:
                self._state = _State.SENT
            return self._kind if self._state is _State.SENT else EXISTS

    def withdraw(self) -> bool:
        """Take it back; False: it was sent. A withdrawn one goes out as a harmless question."""
        with self._lock:
            if self._state is _State.WAITING:
                self._state = _State.WITHDRAWN
            return self._state is _State.WITHDRAWN

    def serialize(self) -> bytes:
        return self._body if self._state is _State.SENT else text("/") + b"\0"

    def deserialize(self, buffer: bytes, offset: int) -> Reply:
        """The whole answer, its header included, stands in `buffer`."""
        _, zxid, _ = _REPLY.unpack_from(buffer, 0)
        return Reply(zxid, [] if self._state is _State.WITHDRAWN else self._read(buffer, offset))


def sync(path: str) -> Request:
    """The server catches up with its leader; later requests of this session see that state."""
    return Request(SYNC, text(path), lambda buffer, offset: [])


def read(lines: Sequence[Line]) -> Request:
    """Several nodes as of one moment: the server answers all before its next transaction."""
    return Request(MULTI_READ, _form(lines), _results)


def write(lines: Sequence[Line]) -> Request:
    """All or nothing, in one transaction."""
    return Request(MULTI, _form(lines), _results)


def size(lines: Sequence[Line]) -> int:
    """Bytes of the request on the wire, without the length itself."""
    return 8 + sum(_HEADER.size + len(line.body) for line in lines) + _HEADER.size


def _form(lines: Sequence[Line]) -> bytes:
    parts = []
    for line in lines:
        parts += [_HEADER.pack(line.kind, 0, -1), line.body]
    return b"".join([*parts, _HEADER.pack(-1, 1, -1)])


def _results(buffer: bytes, offset: int) -> list[Any]:
    """One per line: a Node, a list of names, a Stat, a path, None, or Failed."""
    found: list[Any] = []
    while True:
        kind, done, _ = _HEADER.unpack_from(buffer, offset)
        offset += _HEADER.size
        if done:
            return found
        result: Any = None
        if kind == GET:
            data, offset = _read_bytes(buffer, offset)
            result, offset = Node(data, _stat(buffer, offset)), offset + _STAT.size
        elif kind == CHILDREN:
            result, offset = _read_names(buffer, offset)
        elif kind == SET:
            result, offset = _stat(buffer, offset), offset + _STAT.size
        elif kind in (CREATE, CREATE_2, CREATE_CONTAINER, CREATE_TTL):
            data, offset = _read_bytes(buffer, offset)
            offset += _STAT.size if kind != CREATE else 0
            result = data.decode()
        elif kind == -1:
            result, offset = Failed(_INT.unpack_from(buffer, offset)[0]), offset + _INT.size
        found.append(result)


def _stat(buffer: bytes, offset: int) -> Stat:
    return Stat._make(_STAT.unpack_from(buffer, offset))


def _read_bytes(buffer: bytes, offset: int) -> tuple[bytes, int]:
    length = _INT.unpack_from(buffer, offset)[0]
    offset += _INT.size
    return bytes(buffer[offset : offset + max(length, 0)]), offset + max(length, 0)


def _read_names(buffer: bytes, offset: int) -> tuple[list[str], int]:
    count = _INT.unpack_from(buffer, offset)[0]
    offset += _INT.size
    names = []
    for _ in range(count):
        name, offset = _read_bytes(buffer, offset)
        names.append(name.decode())
    return names, offset
