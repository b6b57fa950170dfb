"""Names: where a key stands in ZooKeeper's tree, and what is written beside its value.

A library with two levels of rooms and one shelf in each. The first two segments of a key name the room, the
rest names the book, so a recipe's keys stand on one shelf and are listed at once. Rooms and books begin with
different letters: a key may be another key's prefix, and a leased book can hold nothing.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from urllib.parse import quote, unquote

from atoll.errors import FormatRefused

DEPTH = 2
LIVES = 256
_SAFE = "-_.~!$&'()*+,;=:@"
_HEADER = struct.Struct(">BQ")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of one store. `base` is the full path of its root, chroot included."""

    base: str

    @property
    def meta(self) -> str:
        return f"{self.base}/meta"

    @property
    def counter(self) -> str:
        return f"{self.base}/counter"

    @property
    def keys(self) -> str:
        return f"{self.base}/keys"

    @property
    def leases(self) -> str:
        return f"{self.base}/leases"

    @property
    def requests(self) -> str:
        return f"{self.base}/requests"

    @property
    def lives(self) -> str:
        return f"{self.base}/lives"

    def ancestors(self) -> list[str]:
        """`/a`, `/a/b` ... down to the base itself."""
        parts = self.base.split("/")
        return ["/".join(parts[:n]) for n in range(2, len(parts) + 1)]

    def life(self, key: str) -> str:
        """The node whose version rises whenever this key, or one of its bucket, is created."""
        return self.life_node(zlib.crc32(key.encode()) % LIVES)

    def life_node(self, number: int) -> str:
        return f"{self.lives}/{number:02x}"

    def lease(self, id: str) -> str:
        return f"{self.leases}/{id}"

    def request(self, id: str) -> str:
        return f"{self.requests}/r{_encoded(id)}"

    def path(self, key: str) -> str:
        """The node of a key."""
        rooms, rest = split(key)
        return f"{self.room(rooms)}/e{_encoded(rest)}"

    def room(self, rooms: tuple[str, ...]) -> str:
        """The node of a directory."""
        return "/".join((self.keys, *(f"d{_encoded(segment)}" for segment in rooms)))

    def rooms_above(self, key: str) -> list[str]:
        """The directories a key stands in, the outermost first, without the one that always is there."""
        rooms, _ = split(key)
        return [self.room(rooms[: n + 1]) for n in range(len(rooms))]


def split(key: str) -> tuple[tuple[str, ...], str]:
    """The directories of a key and its name within them."""
    parts = key.split("/")
    depth = min(DEPTH, len(parts) - 1)
    return tuple(parts[:depth]), "/".join(parts[depth:])


def joined(rooms: tuple[str, ...], rest: str) -> str:
    """The key again."""
    return "/".join((*rooms, rest))


def child(name: str) -> tuple[bool, str]:
    """A node's name below a directory: whether it is a directory itself, and what it stands for."""
    return name.startswith("d"), unquote(name[1:])


def _encoded(text: str) -> str:
    return quote(text, safe=_SAFE)


def packed(value: bytes, create_revision: int = 0) -> bytes:
    """What a node holds. `create_revision`: 0 where the node's own creation is the key's."""
    return _HEADER.pack(_FORMAT, create_revision) + value


def unpacked(data: bytes, path: str) -> tuple[bytes, int]:
    """The value and the create_revision that was written beside it."""
    if len(data) < _HEADER.size or data[0] != _FORMAT:
        raise FormatRefused(
            f"found {data[:16]!r}... at {path}; expected a value written by this version of Atoll. "
            "Somebody else writes below our root, or a newer Atoll has: update, or give a root of your own."
        )
    return bytes(data[_HEADER.size :]), _HEADER.unpack_from(data)[1]
