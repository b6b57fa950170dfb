"""Notices: which keys the last commits touched, so that few of those who watch need to look.

The slips a postman leaves in a shared hall. Each names the flats it is for and the number of the slip
before it; who finds none for their own flat and no number missing goes back to bed, and a slip that says all
there is to say needs no walk to the letter box.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from atoll import clock
from atoll.engines.parts.pages import Page
from atoll.ports.register import Entry
from atoll.ports.store import Bookmark, Change

REMEMBERED = 256
"""Commits remembered; whoever is further behind looks."""


class Line(NamedTuple):
    """One key that one transaction touched. `put`: it has a value now, else it is gone.

    `entry`: what was put, where that is said; with a lease only where its end is told by itself.
    """

    revision: int
    put: bool
    key: str
    entry: Entry | None = None


class Notice(NamedTuple):
    """One commit: the revisions after `before` up to `newest`. `lines` None: what it touched is not said."""

    before: int
    newest: int
    lines: Sequence[Line] | None


class Heard(NamedTuple):
    """What one watch may conclude: the transactions `news` up to `through`, and none besides that concern it.

    `more`: something after `through` concerns it, or may; to learn what, one has to look.
    """

    through: int
    news: tuple[tuple[int, tuple[Line, ...]], ...]
    more: bool


def concerns(told: Notice, through: int, prefix: str | None) -> bool:
    """Whether to wake who watches `prefix` (None: everything) and knows all up to `through`."""
    if prefix is None or told.lines is None or told.before > through:
        return True
    return any(line.revision > through and line.key.startswith(prefix) for line in told.lines)


class Notices:
    """The last ones, in order. `newest`: the newest revision that is known to be there."""

    def __init__(self) -> None:
        self._kept: deque[Notice] = deque(maxlen=REMEMBERED)
        self.newest = -1

    def forget(self, newest: int) -> None:
        """Nothing is known but that there is `newest`."""
        self._kept.clear()
        self.newest = newest

    def add(self, told: Notice) -> bool:
        """Whether it is news."""
        if told.newest <= self.newest:
            return False
        self._kept.append(told)
        self.newest = told.newest
        return True

    def since(self, after: int, prefix: str | None) -> Heard:
        """What is known of `prefix` after revision `after`; None: everything concerns whoever asks."""
        through = after
        news: list[tuple[int, tuple[Line, ...]]] = []
        for told in self._kept:
            if told.newest <= through:
                continue
            if prefix is None or told.lines is None or told.before > through:
                return Heard(through, tuple(news), True)
            mine = [line for line in told.lines if line.revision > through and line.key.startswith(prefix)]
            for revision, lines in groupby(mine, key=lambda line: line.revision):
                touched = tuple(lines)
                if any(line.put and line.entry is None for line in touched):
                    return Heard(revision - 1, tuple(news), True)
                news.append((revision, touched))
            through = told.newest
        return Heard(through, tuple(news), through < self.newest)


class Reading:
    """Where one watch of a prefix stands, by its own looks and by what it was told since."""

    def __init__(self) -> None:
        self.through = -1
        """Nothing of the prefix that it does not know happened up to here."""
        self._epoch, self._oldest, self._due = 0, 0, 0.0

    def looked(self, page: Page) -> Page:
        """It looked, and that is what it found."""
        self.through, self._epoch, self._oldest = page.revision, page.epoch, page.oldest
        self._due = clock.loop_now() + page.due_s
        return page

    def told(self, heard: Heard) -> Page | None:
        """The page that makes a look needless; None: look, at what is after `through`."""
        left = self._due - clock.loop_now()
        if not heard.news:
            self.through = heard.through
        if not heard.news or left <= 0:
            return None
        changes = tuple(_change(self._epoch, revision, lines) for revision, lines in heard.news)
        self.through = heard.through
        return Page(self._epoch, heard.through, self._oldest, None, changes, left, full=heard.more)


def _change(epoch: int, revision: int, lines: Sequence[Line]) -> Change:
    changed = tuple(line.entry for line in lines if line.entry is not None)
    return Change(Bookmark(epoch, revision), changed, tuple(line.key for line in lines if not line.put))
