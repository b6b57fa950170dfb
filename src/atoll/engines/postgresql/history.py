"""History: who watches, and what they are told, read from the store's second book.

The book lies on the server and every transaction has its lines there; a page of it is one statement, and the
bell says when to turn it. What readers do with pages stands in `parts/pages.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby
from typing import TYPE_CHECKING

from atoll.engines.parts import pages
from atoll.engines.parts.notices import Reading
from atoll.engines.parts.pages import Page
from atoll.engines.postgresql import reading
from atoll.engines.postgresql.reading import HEAD, LOOK
from atoll.engines.postgresql.wires import Row
from atoll.ports import refusal
from atoll.ports.register import Entry
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.postgresql.store import PostgresStore

REVISIONS_MAX = 500
"""Transactions read at once: bounds what one slow watcher holds in memory."""
LIVENESS_S = 10.0


def page_of(rows: list[Row], after: int, prefix: str) -> Page:
    """The transactions after `after`, whole."""
    epoch, newest, oldest, due = rows[0][:HEAD]
    changes = []
    for number, lines in groupby((row[LOOK:] for row in rows), key=lambda line: line[0]):
        if number is None:
            continue
        mine = [(key.decode(), *rest) for _, key, *rest in lines if key is not None]
        mine = [line for line in mine if line[0].startswith(prefix)]
        changed = tuple(
            Entry(key, value, number, created, lease)
            for key, value, created, lease in mine
            if value is not None
        )
        removed = tuple(key for key, value, _, _ in mine if value is None)
        changes.append(Change(Bookmark(epoch, number), changed, removed))
    last = min(newest, after + REVISIONS_MAX)
    return Page(epoch, last, oldest, None, tuple(changes), _due_s(due), full=last < newest)


def snapshot_of(rows: list[Row]) -> Page:
    """The present state."""
    epoch, newest, oldest, due = rows[0][:HEAD]
    return Page(epoch, newest, oldest, reading.entries(rows, LOOK), (), _due_s(due))


def _due_s(due: float | None) -> float:
    return float("inf") if due is None else due


class Pages:
    """What observing and history stand on: reads a page, waits for the bell."""

    liveness_s = LIVENESS_S

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._server: str | None = None
        """Which life of the data answered this reader last."""
        self._prefix: str | None = None
        self._reading = Reading()

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
        self._prefix = None if all else prefix
        if after is not None and not all:
            mine, bell = self._reading, (await self._store.desk()).bell
            if (told := mine.told(bell.since(max(after, mine.through), prefix, self._server))) is not None:
                return told
            after = max(after, mine.through)
        return self._reading.looked(await self._asked(prefix, after, all=all))

    async def _asked(self, prefix: str, after: int | None, *, all: bool) -> Page:
        low, high = refusal.span(prefix)
        ends = (low.encode(), None if high is None else high.encode())
        if after is not None:
            words = (after, REVISIONS_MAX, *(() if all else ends))
            rows = await self._store.read("a look at the news", reading.events(ends[1], all=all), *words)
            _, newest, oldest, _, here, noted = rows[0][:LOOK]
            before, self._server = self._server or here, here
            if all and here != noted:
                return Page(_NO_EPOCH, newest, oldest, ())
            if here == before and oldest - 1 <= after <= newest:
                return page_of(rows, after, prefix)
            if here != before or after > newest:
                (await self._store.desk()).bell.went_back(newest)
        rows = await self._store.read("a look at the state", reading.state(ends[1]), _ALL, *ends)
        self._server = rows[0][HEAD]
        return snapshot_of(rows)

    async def news(self, page: Page, wait_s: float) -> None:
        """Until something was committed after `page`, at most `wait_s`."""
        if page.revision < 0:
            await asyncio.sleep(wait_s)
            return
        desk = await self._store.desk()
        mine = self._reading
        after = max(page.revision, mine.through)
        mine.through = await desk.bell.wait(after, wait_s, self._prefix, self._server)

    def gone_for_good(self) -> str | None:
        return None


_ALL = (1 << 63) - 1
_NO_EPOCH = 0


class PostgresHistory:
    """Every transaction, as far back as `history_max` and `history_s_max` keep it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        [(epoch, revision, *_)] = await self._store.read("a look at the revision", reading.COUNTER)
        return Bookmark(epoch, revision)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port."""
        await self._store.open()
        async for change in pages.changes(Pages(self._store), prefix, after):
            yield change
