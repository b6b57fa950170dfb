"""Scripts: the transactions as the server runs them, and what it answers.

The forms that the clerk keeps in a drawer. We name a form by its digest; a clerk who has lost it says so
before doing anything, and is handed a new one. The forms themselves stand in `lua/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from atoll.ports.register import Entry

KEYS = ("meta", "data", "order", "leases", "held", "events", "asked", "asked_at")


class Script(NamedTuple):
    """Its text, and the digest by which a server that has it can be asked to run it."""

    text: bytes
    digest: str


@cache
def script(name: str) -> Script:
    """`transact`, `read`, `lease` or `moving`, with what every transaction begins with before it."""
    folder = resources.files("atoll.engines.redis") / "lua"
    text = b"".join((folder / f"{part}.lua").read_bytes() for part in ("prologue", name))
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@cache
def rights() -> bytes:
    """The script that tries what the others do, and answers what was denied."""
    return (resources.files("atoll.engines.redis") / "lua" / "rights.lua").read_bytes()


def keys(prefix: str) -> list[str]:
    """The store's own keys, all in one slot of a cluster."""
    return [f"{{{prefix}}}:{name}" for name in KEYS]


class Head(NamedTuple):
    """What every answer begins with. `due_s`: seconds until the next lease ends. `copied`: has replicas."""

    status: str
    id: str
    revision: int
    epoch: int
    certain: bool
    why: str
    due_s: float
    life: str
    copied: bool


def parse(answer: Sequence[Any]) -> tuple[Head, Sequence[Any]]:
    """An answer's head, and what follows it."""
    parts = answer[0].decode(errors="replace").split(" ", 8)
    status, id, revision, epoch, certain, due, life, copied, why = parts
    due_s = max(0.0, int(due) / 1e6) if due else float("inf")
    head = Head(status, id, int(revision), int(epoch), certain == "1", why, due_s, life, copied == "1")
    return head, answer[1:]


def packed(words: Iterable[Any]) -> bytes:
    """Words as the protocol carries them."""
    texts = [word if type(word) is bytes else str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts])


def last_item(number: int) -> str:
    """The last item that transaction `number` can have in the stream."""
    return f"{number}-{2**64 - 1}"


def command(*words: Any) -> bytes:
    """A whole command."""
    return b"*%d\r\n%b" % (len(words), packed(words))


def entry(key: str, packed: bytes) -> Entry | None:
    """What stands at `key`, from revision:create_revision:lease:value; None where there is nothing."""
    if not packed:
        return None
    revision, create_revision, lease, value = packed.split(b":", 3)
    return Entry(key, value, int(revision), int(create_revision), lease.decode() or None)


def entries(names: Sequence[bytes], packed: Sequence[bytes]) -> tuple[Entry, ...]:
    """Names and entries side by side."""
    found = (entry(name.decode(), one) for name, one in zip(names, packed, strict=True))
    return tuple(one for one in found if one is not None)
