"""History: who watches, and what they are told, read from the book that every member keeps.

The same book lies at each member's, so any of them may be read; who needs to be sure that nothing newer was
entered elsewhere has the one who reads ask first. What readers do with pages stands in `parts/pages.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.parts import pages
from atoll.engines.parts.notices import Reading
from atoll.engines.parts.pages import Page
from atoll.engines.raft import wire
from atoll.ports.register import Entry
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.raft.store import RaftStore


def page_of(leaf: wire.Leaf) -> Page:
    """A member's answer as a page."""
    return Page(
        leaf.epoch,
        leaf.revision,
        leaf.oldest,
        None if leaf.snapshot is None else tuple(Entry(*row) for row in leaf.snapshot),
        tuple(
            Change(Bookmark(leaf.epoch, revision), tuple(Entry(*row) for row in rows), tuple(removed))
            for revision, rows, removed in leaf.changes
        ),
        math.inf,
        leaf.full,
    )


class Pages:
    """What observing and history stand on: reads a page at some member, waits for the bell."""

    def __init__(self, store: RaftStore) -> None:
        self._store = store
        self._prefix: str | None = None
        self._reading = Reading()

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def life(self) -> int:
        return self._store.life

    @property
    def liveness_s(self) -> float:
        return self._store.options.liveness_s

    async def look(self, prefix: str, after: int | None, *, all: bool) -> Page:
        """One page. A member that knows less than this reader catches up before it answers."""
        self._prefix = None if all else prefix
        at, mine = await self._store.attached(), self._reading
        if after is not None and not all:
            if (told := mine.told(at.bell.since(max(after, mine.through), prefix))) is not None:
                return told
            after = max(after, mine.through)
        fresh = after is None or not at.bell.hears
        verb = wire.Look(prefix, after, all, fresh, max(0, at.bell.newest))
        with clock.deadline(self.liveness_s / 2):
            page = page_of(await at.ask(verb, wire.Leaf, "a look at the news"))
        if after is not None and page.revision < after:
            at.bell.went_back()
        return mine.looked(page)

    async def news(self, page: Page, wait_s: float) -> None:
        """Until something was committed after `page`, at most `wait_s`."""
        if page.revision < 0:
            await asyncio.sleep(wait_s)
            return
        mine = self._reading
        after = max(page.revision, mine.through)
        until = clock.loop_now() + wait_s
        while (left := until - clock.loop_now()) > 0:
            bell = (await self._store.attached()).bell
            after, woken = await bell.wait(after, min(left, self.liveness_s / 4), self._prefix)
            if woken or not bell.hears:
                break
        mine.through = after

    def gone_for_good(self) -> str | None:
        return None


class RaftHistory:
    """Every transaction, as far back as the members keep it."""

    def __init__(self, store: RaftStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        card = await (await self._store.attached()).card(fresh=True)
        return Bookmark(card.epoch, card.revision)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port."""
        await self._store.attached()
        async for change in pages.changes(Pages(self._store), prefix, after):
            yield change
