"""Ownership: what stands in the store about one owned thing, and who may remove it.

The book on the counter: who is being served, whether there is a line, and the tickets drawn. Every
value carries a nonce, so whoever wrote it recognises it again although the answer was lost.

Promise: what this file removes was written by the attempt that removes it.
What can break it: somebody who writes these keys by hand.
Proved by: atoll verify --workload lock
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec

from atoll.blocks.session import Session, again
from atoll.ports.register import Applied, Entry
from atoll.ports.store import Store, Token, delete, equals, unchanged

_PAGE = 1000


class Owner(msgspec.Struct, frozen=True):
    """What stands in an owner's or a waiter's key. `since`: wall clock. `nonce`: unique to one attempt.

    `ttl_s`: how long its owner may believe in it without asking; 0: an older Atoll wrote it. `broken`: no
    owner, but the mark that keeps the next one out until the one before has run out.
    """

    owner: str
    since: float
    nonce: str
    format: int = 1
    ttl_s: float = 0.0
    broken: bool = False


def read_owner(entry: Entry | None) -> Owner:
    """The owner an entry tells of; an unreadable one is said to be unknown."""
    try:
        return msgspec.json.decode(entry.value if entry else b"", type=Owner)
    except msgspec.DecodeError:
        return Owner(owner="an unknown owner", since=math.nan, nonce="")


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the recipe keeps what it knows of one name."""

    prefix: str

    @classmethod
    def of(cls, kind: str, name: str) -> Keys:
        return cls(f"{kind}/{quote(name, safe='')}/")

    @property
    def name(self) -> str:
        """The name that `of` was given."""
        return unquote(self.prefix.split("/")[1])

    @property
    def owner(self) -> str:
        return f"{self.prefix}owner"

    @property
    def line(self) -> str:
        return f"{self.prefix}line"

    @property
    def heir(self) -> str:
        """Names by its nonce who in the line is next, whatever its place."""
        return f"{self.prefix}heir"

    def place(self, nonce: str) -> str:
        return f"{self.prefix}queue/{nonce}"


@dataclass(frozen=True, slots=True)
class View:
    """Owner and sign as of one revision, and everybody in line, the first first."""

    owner: Entry | None
    line: Entry | None
    queue: tuple[Entry, ...]
    heir: Entry | None = None


async def below(store: Store, prefix: str) -> list[Entry]:
    """Every entry below `prefix`, which ends in "/". Later pages may be newer than the first."""
    page = await store.range(prefix, limit=_PAGE)
    entries = list(page.entries)
    while page.more:
        page = await store.range(start=entries[-1].key + "\0", end=prefix[:-1] + "0", limit=_PAGE)
        entries += page.entries
    return entries


async def look(store: Store, keys: Keys) -> View:
    """Read it. What a later page shows is newer: places before ours can only have gone since."""
    entries = await below(store, keys.prefix)
    known = {entry.key: entry for entry in entries}
    queue = [e for e in entries if e.key.startswith(keys.place(""))]
    queue.sort(key=lambda entry: entry.create_revision)
    return View(known.get(keys.owner), known.get(keys.line), tuple(queue), known.get(keys.heir))


@dataclass(frozen=True, slots=True, kw_only=True)
class Won:
    """What was won: the key that says so, the session it stands on, and the proof of when it began."""

    store: Store
    key: str
    session: Session
    me: Owner
    token: Token
    doubt: Doubt
    in_doubt: bool

    async def give_up(self) -> None:
        """Remove the key; whoever is next has it then. One transaction."""

        async def once() -> None:
            await self.store.transact(delete(self.key), compare=[unchanged(self.key, self.token.revision)])

        settled = False
        try:
            await again(once)
            if self.in_doubt:
                await again(self.doubt.settle)
            settled = not self.in_doubt
        finally:
            if not settled:
                self.session.retire(self.doubt.settle)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Writes of one attempt that may have happened, or may happen yet: `value` in any of `keys`."""

    store: Store
    keys: tuple[str, ...]
    value: bytes

    async def settle(self) -> bool:
        """Undo them. True only if the undone write was really there, so nothing is left to come."""
        answers = await asyncio.gather(
            *[self.store.transact(delete(key), compare=[equals(key, self.value)]) for key in self.keys],
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return any(isinstance(answer, Applied) and any(answer.results) for answer in answers)


def said(since: float | None) -> str:
    """ " since 14:02:11", by this machine's time zone; nothing where it is not known."""
    return f" since {time.strftime('%H:%M:%S', time.localtime(since))}" if since is not None else ""
