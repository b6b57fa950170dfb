"""History: who watches, and what they are told, read from the store's second book.

A reader with a bookmark. When the bell rings they go on from their page; when the page has been torn
out meanwhile, an observer starts over from the present state and a resuming reader is told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import apsw

from atoll import clock
from atoll.engines.sqlite import leases, ledger
from atoll.errors import Compacted, EpochChanged, NotSent, Overloaded, WatchLost
from atoll.ports.register import Entry, Observation
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.sqlite.store import SqliteStore

EVENTS_MAX = 2000
"""Lines read at once: bounds what one slow watcher holds in memory and how long it holds the reader."""
BOOKMARK_EVERY = 1000
LIVENESS_S = 10.0


@dataclass(frozen=True, slots=True)
class Page:
    """What one look found. `oldest`: the first transaction kept; `full`: there may be more."""

    epoch: int
    revision: int
    oldest: int
    snapshot: tuple[Entry, ...] | None
    changes: tuple[Change, ...]
    due: float
    full: bool = False


def look(connection: apsw.Connection, prefix: str, after: int | None, *, all: bool = False) -> Page:
    """The transactions after `after`, or where they are gone, or `after` is None, the present state.

    `all`: also those that touch nothing below `prefix`.
    """
    epoch, newest = ledger.epoch(connection), ledger.revision(connection)
    oldest = int(connection.execute("SELECT min(revision) FROM atoll_event").get or 1)
    due = leases.next_due(connection)
    if after is None or after < oldest - 1 or after > newest:
        snapshot = ledger.ranged(connection, prefix, None, None, -1).entries
        return Page(epoch, newest, oldest, snapshot, (), due)
    if after == newest:
        return Page(epoch, newest, oldest, None, (), due)
    where, values = ledger.bounds("key", *ledger.span(prefix))
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


class Watch:
    """One reader of the second book: looks, waits for the bell or the next lease's end, looks again."""

    def __init__(self, store: SqliteStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._life = store.life
        self._heard = clock.loop_now()
        self._seen = -1

    async def look(self, after: int | None, *, all: bool = False) -> Page:
        """A page, as soon as the file answers; WatchLost when it has not for LIVENESS_S."""
        while True:
            self.check()
            self._seen = self._store.version
            try:
                page = await self._store.read(lambda c: look(c, self._prefix, after, all=all))
            except (NotSent, Overloaded) as error:
                if clock.loop_now() - self._heard > LIVENESS_S or self._store.failed:
                    raise WatchLost(
                        f"{self._store.url} has not answered a watch of {self._prefix!r} for "
                        f"{LIVENESS_S:g} s: {error} Watch it again."
                    ) from error
                await self._store.wait(self._seen, 0.05)
                continue
            self._heard = clock.loop_now()
            return page

    async def wait(self, page: Page) -> None:
        """Until something was committed since the last look, or a lease is due."""
        self._store.still(self._life, self._prefix)
        left_s = page.due - clock.lease_now()
        await self._store.wait(self._seen, min(max(left_s, 0.001), LIVENESS_S))
        self._heard = clock.loop_now()

    def check(self) -> None:
        """Raise WatchLost when the handle was closed."""
        self._store.still(self._life, self._prefix)


async def observe(store: SqliteStore, prefix: str) -> AsyncIterator[Observation]:
    """The state below `prefix`, then one observation for each transaction that touches it."""
    watch = Watch(store, prefix)
    last: int | None = None
    while True:
        page = await watch.look(last)
        if page.snapshot is not None:
            yield Observation(True, page.snapshot, (), page.revision)
        for change in page.changes:
            yield Observation(False, change.changed, change.removed, change.at.revision)
        last = page.revision
        if not page.full:
            await watch.wait(page)


class SqliteHistory:
    """Every transaction, as far back as `history_max` and `history_s_max` keep it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        return await self._store.read(lambda c: Bookmark(ledger.epoch(c), ledger.revision(c)))

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port. A long stretch without news below `prefix` is told by a bookmark alone."""
        await self._store.open()
        watch = Watch(self._store, prefix)
        silent = 0
        while True:
            page = await watch.look(after.revision, all=True)
            _check(after, page)
            for change in page.changes:
                silent = 0 if change.changed or change.removed else silent + 1
                after = change.at
                if silent % BOOKMARK_EVERY == 0:
                    yield change
            if not page.full:
                await watch.wait(page)


def _check(after: Bookmark, page: Page) -> None:
    if after.epoch != page.epoch or (page.snapshot is not None and after.revision > page.revision):
        raise EpochChanged(
            f"found the bookmark {after.epoch}:{after.revision}; the store is at {page.epoch}:{page.revision}"
            ": it was restored, moved or bumped. Read everything again and take a new bookmark."
        )
    if page.snapshot is not None:
        raise Compacted(
            f"found a bookmark at revision {after.revision}; the oldest transaction kept is {page.oldest}. "
            "Read everything again and take a new bookmark, or keep more with ?history_max=.",
            oldest=page.oldest,
        )
