"""History: who watches, and what they are told, read from the store's second book.

The file is a book in which every transaction has its lines; a page of it is read in one snapshot, and the
bell of the file says when there is more. What readers do with pages stands in `parts/pages.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import apsw

from atoll import clock
from atoll.engines.parts import pages
from atoll.engines.parts.notices import Reading
from atoll.engines.parts.pages import Page
from atoll.engines.sqlite import leases, ledger
from atoll.ports import refusal
from atoll.ports.register import Entry
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.sqlite.store import SqliteStore

EVENTS_MAX = 2000
"""Lines read at once: bounds what one slow watcher holds in memory and how long it holds the reader."""
LIVENESS_S = 10.0


def look(connection: apsw.Connection, prefix: str, after: int | None, *, all: bool = False) -> Page:
    """The transactions after `after`, or where they are gone, or `after` is None, the present state.

    `all`: also those that touch nothing below `prefix`.
    """
    epoch, newest = ledger.epoch(connection), ledger.revision(connection)
    oldest = int(connection.execute("SELECT min(revision) FROM atoll_event").get or 1)
    due = leases.next_due(connection) - clock.lease_now()
    if after is None or after < oldest - 1 or after > newest:
        snapshot = ledger.ranged(connection, prefix, None, None, -1).entries
        return Page(epoch, newest, oldest, snapshot, (), due)
    if after == newest:
        return Page(epoch, newest, oldest, None, (), due)
    where, values = ledger.bounds("key", *refusal.span(prefix))
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT revision, key, value, create_revision, lease FROM atoll_event WHERE revision > ? AND "
        f"revision <= ? AND {'1' if all else where} ORDER BY revision, place",
        (after, min(newest, after + EVENTS_MAX), *(() if all else values)),
    ).fetchall()
    changes = []
    for number, lines in groupby(rows, key=lambda row: row[0]):
        mine = [row for row in lines if row[1] is not None and row[1].startswith(prefix)]
        changed = tuple(
            Entry(key, value, number, created, lease)
            for _, key, value, created, lease in mine
            if value is not None
        )
        removed = tuple(row[1] for row in mine if row[2] is None)
        changes.append(Change(Bookmark(epoch, number), changed, removed))
    last = min(newest, after + EVENTS_MAX)
    return Page(epoch, last, oldest, None, tuple(changes), due, full=last < newest)


class Pages:
    """What observing and history stand on: reads a page of the file, waits for its bell."""

    liveness_s = LIVENESS_S

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._seen = -1
        self._prefix: str | None = None
        self._reading = Reading()

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def life(self) -> int:
        return self._store.life

    async def look(self, prefix: str, after: int | None, *, all: bool) -> Page:
        """One page of the second book, with no lease over."""
        self._prefix = None if all else prefix
        mine = self._reading
        if after is not None and not all and (man := self._store.watchman()) is not None:
            if (told := mine.told(man.since(max(after, mine.through), prefix))) is not None:
                return told
            after = max(after, mine.through)
        self._seen = self._store.version
        return mine.looked(await self._store.read(lambda c: look(c, prefix, after, all=all)))

    async def news(self, page: Page, wait_s: float) -> None:
        """Until a commit after the last look that concerns the prefix."""
        mine, man = self._reading, self._store.watchman()
        if page.revision < 0:
            await asyncio.sleep(wait_s)
        elif man is not None:
            after = max(page.revision, mine.through)
            mine.through = await man.sleep(self._store, self._seen, after, self._prefix, wait_s)

    def gone_for_good(self) -> str | None:
        return self._store.failed


class SqliteHistory:
    """Every transaction, as far back as `history_max` and `history_s_max` keep it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        return await self._store.read(lambda c: Bookmark(ledger.epoch(c), ledger.revision(c)))

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port."""
        await self._store.open()
        async for change in pages.changes(Pages(self._store), prefix, after):
            yield change
