"""Pages: observing and history on any store that keeps its transactions in a table or a stream.

A reader with a bookmark. When the bell rings they go on from their page; when the page has been torn
out meanwhile, an observer starts over from the present state and a resuming reader is told so. The engine
says only how one page is read and how long to wait for the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from atoll import clock
from atoll.errors import Compacted, EpochChanged, NotSent, OutcomeUnknown, Overloaded, WatchLost
from atoll.ports.register import Entry, Observation
from atoll.ports.store import Bookmark, Change

BOOKMARK_EVERY = 1000
RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Page:
    """What one look found, all as of `revision`.

    `oldest`: the first transaction kept. `snapshot`: the present state below the prefix, where no bookmark
    was given or its place is gone; None otherwise. `changes`: the transactions after the bookmark. `full`:
    there may be more right away. `due_s`: seconds until the next lease ends, by which to look again.
    """

    epoch: int
    revision: int
    oldest: int
    snapshot: tuple[Entry, ...] | None
    changes: tuple[Change, ...] = ()
    due_s: float = float("inf")
    full: bool = False


class Source(Protocol):
    """What an engine brings. `life` rises when its handle is closed, which ends the watches begun before."""

    @property
    def url(self) -> str: ...
    @property
    def life(self) -> int: ...
    @property
    def liveness_s(self) -> float: ...

    async def look(self, prefix: str, after: int | None, *, all: bool) -> Page:
        """Transactions after `after` in one snapshot; `all`: also those that touch nothing below it."""
        ...

    async def news(self, page: Page, wait_s: float) -> None:
        """Return when something may have been committed after `page`, at the latest after `wait_s`."""
        ...

    def gone_for_good(self) -> str | None:
        """Why no look can succeed any more, None while one may."""
        ...


class Watch:
    """One reader: looks, waits for the bell or the next lease's end, looks again."""

    def __init__(self, source: Source, prefix: str) -> None:
        self._source, self._prefix = source, prefix
        self._life = source.life
        self._heard = clock.loop_now()

    async def look(self, after: int | None, *, all: bool = False) -> Page:
        """A page, as soon as the store answers; WatchLost when it has not for `liveness_s`."""
        while True:
            self.check()
            try:
                page = await self._source.look(self._prefix, after, all=all)
            except (NotSent, Overloaded, OutcomeUnknown) as error:
                gone = self._source.gone_for_good()
                if gone or clock.loop_now() - self._heard > self._source.liveness_s:
                    raise WatchLost(
                        f"{self._source.url} has not answered a watch of {self._prefix!r} for "
                        f"{self._source.liveness_s:g} s: {error} Watch it again."
                    ) from error
                await self._source.news(NOTHING, RETRY_S)
                continue
            self._heard = clock.loop_now()
            return page

    async def wait(self, page: Page) -> None:
        """Until something was committed since `page`, or a lease is due."""
        self.check()
        await self._source.news(page, min(max(page.due_s, 0.001), self._source.liveness_s))
        self._heard = clock.loop_now()

    def check(self) -> None:
        """Raise WatchLost when the handle was closed."""
        if self._source.life != self._life:
            raise WatchLost(
                f"{self._source.url} was closed while {self._prefix!r} was watched. Watch it again."
            )


NOTHING = Page(0, -1, 0, None)
"""Before the first look."""


async def observe(source: Source, prefix: str) -> AsyncIterator[Observation]:
    """The state below `prefix`, then one observation for each transaction that touches it."""
    watch = Watch(source, prefix)
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


async def changes(source: Source, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
    """One item per transaction after `after`. A long stretch without news is told by a bookmark alone."""
    watch = Watch(source, prefix)
    silent = 0
    while True:
        page = await watch.look(after.revision, all=True)
        check_bookmark(after, page)
        for change in page.changes:
            silent = 0 if change.changed or change.removed else silent + 1
            after = change.at
            if silent % BOOKMARK_EVERY == 0:
                yield change
        if not page.full:
            await watch.wait(page)


def check_bookmark(after: Bookmark, page: Page) -> None:
    """Raise EpochChanged or Compacted where nobody can go on from `after`."""
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
