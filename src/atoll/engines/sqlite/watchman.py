"""Watchman: reads each commit once for everybody in one event loop who watches the file's store.

One night watchman for all sleepers of a house. When the bell rings he alone goes to the door, reads for whom
it is, and wakes only those; what is short he tells them at once. Small news are not read twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import apsw

from atoll import clock
from atoll.engines.parts.notices import Heard, Line, Notice, Notices, concerns
from atoll.engines.sqlite import ledger
from atoll.errors import AtollError
from atoll.ports.register import Entry

if TYPE_CHECKING:
    from atoll.engines.sqlite.file import SqliteFile
    from atoll.engines.sqlite.store import SqliteStore

LINES_MAX = 500
"""Lines read at once; where there were more, everybody looks for themselves."""
VALUE_MAX = 1024
"""Bytes of a value that is told; who wants a longer one looks for it."""
LINGER_S = 0.25
"""How long he stays up when nobody sleeps."""

_LINES = (
    f"SELECT revision, key, value IS NOT NULL, CASE WHEN lease IS NULL AND length(value) <= {VALUE_MAX} "
    "THEN value END, create_revision FROM atoll_event WHERE revision > ? ORDER BY revision, place LIMIT ?"
)


def read(connection: apsw.Connection, after: int) -> Notice:
    """What was committed after revision `after`; with `after` -1 only how far it has come."""
    newest = ledger.revision(connection)
    if after < 0 or newest <= after:
        return Notice(newest, newest, ())
    rows: list[tuple[Any, ...]] = connection.execute(_LINES, (after, LINES_MAX + 1)).fetchall()
    if len(rows) > LINES_MAX or rows[0][0] != after + 1:
        return Notice(after, newest, None)
    return Notice(after, newest, tuple(_line(*row) for row in rows if row[1] is not None))


def _line(revision: int, key: str, put: int, value: bytes | None, created: int) -> Line:
    entry = None if value is None else Entry(key, value, revision, created, None)
    return Line(revision, bool(put), key, entry)


@dataclass(slots=True, eq=False)
class _Sleeper:
    """One watch: it knows all of `prefix` up to `through`; None: it is woken whenever the bell rings."""

    store: SqliteStore
    life: int
    through: int
    prefix: str | None
    woken: asyncio.Future[None]

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class Watchman:
    """Of one file in one event loop."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._seen = -1
        self._notices = Notices()
        self._sleepers: set[_Sleeper] = set()
        self._task: asyncio.Task[None] | None = None

    def since(self, after: int, prefix: str) -> Heard:
        """What he has read of `prefix` after revision `after`."""
        return self._notices.since(after, prefix)

    async def sleep(
        self, store: SqliteStore, seen: int, after: int, prefix: str | None, wait_s: float
    ) -> int:
        """Until something of `prefix` was committed after `after`, at most `wait_s`; None: anything.

        `seen`: the file's version before `after` was read. Answers up to where nothing of it happened.
        """
        if prefix is None and self._file.version != seen:
            return after
        heard = self._notices.since(after, prefix)
        if heard.more or heard.news:
            return after if heard.news else heard.through
        mine = _Sleeper(store, store.life, heard.through, prefix, asyncio.get_running_loop().create_future())
        self._sleepers.add(mine)
        if self._task is None or self._task.done():
            self._seen = seen if self._notices.newest < 0 else min(seen, self._seen)
            self._notices.newest = max(self._notices.newest, after)
            self._task = asyncio.get_running_loop().create_task(self._watch(), context=clock.detached())
        try:
            async with asyncio.timeout(wait_s):
                await mine.woken
        except TimeoutError:
            pass
        finally:
            self._sleepers.discard(mine)
            if not self._sleepers:
                asyncio.get_running_loop().call_later(LINGER_S, self._go_home)
        return mine.through

    def _go_home(self) -> None:
        if not self._sleepers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        try:
            while True:
                seen = await self._file.changed(self._seen)
                after = self._notices.newest
                told = await self._file.read(partial(read, after=after))
                self._seen = seen
                self._tell(told)
        except AtollError:
            self._notices.forget(-1)  # who wakes looks, and meets it in their own words
        finally:
            if self._task is asyncio.current_task():
                self._task = None
            for one in self._sleepers:
                one.wake()

    def _tell(self, told: Notice) -> None:
        back = told.newest < self._notices.newest
        if back:
            self._notices.forget(told.newest)
        self._notices.add(told)
        for one in self._sleepers:
            over = one.store.life != one.life or one.store.failed is not None
            if back or over or one.prefix is None or concerns(told, one.through, one.prefix):
                one.wake()
            else:
                one.through = max(one.through, told.newest)


def of(file: SqliteFile) -> Watchman:
    """The one of this file in this event loop."""
    loop = asyncio.get_running_loop()
    found = file.watchmen.get(loop)
    if found is None:
        found = file.watchmen[loop] = Watchman(file)
    return found
