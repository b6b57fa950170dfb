"""History: who watches, and what they are told, read from the store's second book.

The book lies on the server and every transaction has its lines there; a page of it is one list of
statements, and the bell says when to turn it. What readers do with pages stands in `parts/pages.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from atoll.engines.mysql import ledger, reading
from atoll.engines.mysql.reading import Head
from atoll.engines.mysql.wire import Row
from atoll.engines.parts import pages
from atoll.engines.parts.pages import Page
from atoll.ports import refusal
from atoll.ports.register import Entry
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.mysql.store import MysqlStore

REVISIONS_MAX = 500
"""Transactions read at once: bounds what one slow watcher holds in memory."""
LIVENESS_S = 10.0
_NO_EPOCH = 0


def page_of(head: Head, rows: Sequence[Row], after: int, prefix: str) -> Page:
    """The transactions after `after`, whole."""
    changes = []
    for number, lines in groupby(rows, key=lambda line: int(line[0])):
        mine = [(key.decode(), *rest) for _, key, *rest in lines if key is not None]
        mine = [line for line in mine if line[0].startswith(prefix)]
        changed = tuple(
            Entry(key, value, number, int(created), None if lease is None else lease.decode())
            for key, value, created, lease in mine
            if value is not None
        )
        removed = tuple(key for key, value, _, _ in mine if value is None)
        changes.append(Change(Bookmark(head.epoch, number), changed, removed))
    last = min(head.revision, after + REVISIONS_MAX)
    return Page(head.epoch, last, head.oldest, None, tuple(changes), head.due_s, full=last < head.revision)


class Pages:
    """What observing and history stand on: reads a page, waits for the bell."""

    liveness_s = LIVENESS_S

    def __init__(self, store: MysqlStore) -> None:
        self._store = store
        self._server: str | None = None
        """Which life of the data answered this reader last."""

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def life(self) -> int:
        return self._store.life

    async def look(self, prefix: str, after: int | None, *, all: bool) -> Page:
        """One page of the second book, in which no lease is over.

        After a failover the same numbers may name other transactions: an observer starts over then, and
        whoever resumes a history is told that its epoch is over, until somebody bumps.
        """
        low, high = refusal.span(prefix)
        if after is not None:
            question = reading.events(after, REVISIONS_MAX, low, high, all=all)
            head, rows = await self._store.read("a look at the news", question)
            before, self._server = self._server or head.here, head.here
            if all and head.here != head.noted:
                return Page(_NO_EPOCH, head.revision, head.oldest, ())
            if head.here == before and head.oldest - 1 <= after <= head.revision:
                return page_of(head, rows, after, prefix)
            (await self._store.desk()).bell.went_back(head.revision)
        head, rows = await self._store.read("a look at the state", reading.range_(low, high, None))
        self._server = head.here
        state = tuple(map(ledger.entry_of, rows))
        return Page(head.epoch, head.revision, head.oldest, state, (), head.due_s)

    async def news(self, page: Page, wait_s: float) -> None:
        """Until something was committed after `page`, at most `wait_s`."""
        if page.revision < 0:
            await asyncio.sleep(wait_s)
            return
        desk = await self._store.desk()
        await desk.bell.wait(page.revision, wait_s)

    def gone_for_good(self) -> str | None:
        return None


class MysqlHistory:
    """Every transaction, as far back as `history_max` and `history_s_max` keep it."""

    def __init__(self, store: MysqlStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        head, _ = await self._store.read("a look at the revision")
        return Bookmark(head.epoch, head.revision)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port."""
        await self._store.open()
        async for change in pages.changes(Pages(self._store), prefix, after):
            yield change
