"""Feed: what a watch and a reader of history are told, page by page.

Somebody who has gone to bed. When the watchman knocks and has seen it all himself, what he tells is taken;
when he has not, or on the hour, they get up and look for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.parts import pages
from atoll.engines.parts.pages import Page
from atoll.engines.redis import scripts
from atoll.engines.redis.watchman import EVENTS_MAX, Event, Sleeper, Watchman
from atoll.ports import refusal
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.redis.store import RedisStore

LIVENESS_S = 10.0


class Pages:
    """What observing and history stand on; see parts/pages.py."""

    liveness_s = LIVENESS_S

    def __init__(self, store: RedisStore, watchman: Watchman) -> None:
        self._store, self._ledger, self._watchman = store, store.ledger, watchman
        self._sleeper = Sleeper()
        self._due = 0.0  # by when the store itself is to be asked again, by the loop clock

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def life(self) -> int:
        return self._ledger.roads.life

    async def look(self, prefix: str, after: int | None, *, all: bool) -> Page:
        """The next page: told by the watchman if he can, else read from the stream with no lease over."""
        self._sleeper.prefix, self._sleeper.all = prefix.encode(), all
        if after is not None and not all and (told := self._told(after)) is not None:
            return told
        low, high = refusal.span(prefix)
        from_, everything = "" if after is None else after, "1" if all else "0"
        words = (low, high or "", prefix, from_, everything, EVENTS_MAX)
        asked = clock.loop_now()
        head, rest = await self._ledger.run("read", "look", *words)
        self._due = asked + min(head.due_s, LIVENESS_S)
        oldest = int(rest[0])
        if rest[1] == b"snapshot":
            snapshot = scripts.entries(rest[2], rest[3])
            return Page(head.epoch, head.revision, oldest, snapshot, (), head.due_s)
        changes = tuple(_change(head.epoch, int(number), pairs) for number, pairs in rest[4])
        return Page(head.epoch, int(rest[3]), oldest, None, changes, head.due_s, full=rest[2] == b"1")

    def _told(self, after: int) -> Page | None:
        """A page from what was heard; None where only the store can tell it.

        What is put under a lease may end before anybody is due to look, and only the store knows when.
        """
        left_s = self._due - clock.loop_now()
        events = self._watchman.heard(after) if left_s > 0 else None
        if not events:
            return None
        epoch, changes = self._ledger.receipt.epoch, []
        for event in events:
            if event.touches(self._sleeper.prefix):
                change = _change(epoch, event.number, _below(self._sleeper.prefix, event))
                if any(entry.lease for entry in change.changed):
                    return None
                changes.append(change)
        if not changes and len(events) < EVENTS_MAX:
            return None
        self._ledger.has_seen(events[-1].number)
        return Page(epoch, events[-1].number, 0, None, tuple(changes), left_s)

    async def news(self, page: Page, wait_s: float) -> None:
        """See Watchman.sleep."""
        if page.revision < 0:
            await asyncio.sleep(wait_s)
        else:
            await self._watchman.sleep(self._sleeper, page.revision, wait_s)

    def gone_for_good(self) -> str | None:
        return None

    def __enter__(self) -> Pages:
        self._watchman.enter(self._sleeper)
        return self

    def __exit__(self, *exc: object) -> None:
        self._watchman.leave(self._sleeper)


def _below(prefix: bytes, event: Event) -> list[bytes]:
    """Of its pairs of key and entry those below `prefix`."""
    pairs: list[bytes] = []
    for name, packed in zip(event.fields[::2], event.fields[1::2], strict=True):
        if name and name.startswith(prefix):
            pairs += (name, packed)
    return pairs


def _change(epoch: int, number: int, pairs: Sequence[bytes]) -> Change:
    names = [name.decode() for name in pairs[::2]]
    put = (scripts.entry(name, packed) for name, packed in zip(names, pairs[1::2], strict=True) if packed)
    removed = tuple(name for name, packed in zip(names, pairs[1::2], strict=True) if not packed)
    return Change(Bookmark(epoch, number), tuple(one for one in put if one is not None), removed)


class RedisHistory:
    """About the last `history_max` transactions."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        head, _ = await self._store.ledger.run("read", "state")
        return Bookmark(head.epoch, head.revision)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port."""
        await self._store.open()
        with Pages(self._store, await self._store.watchmen.get()) as source:
            async for change in pages.changes(source, prefix, after):
                yield change
