"""Notices: which keys the last commits touched, as the server rang them, so that few need to look.

The slips a postman leaves in a shared hall. Each names the flats it is for and the number of the slip before
it; who finds no slip for their own flat and no number missing goes back to bed, and a slip that says "moved
out" needs no walk to the letter box.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

REMEMBERED = 256
"""Commits remembered; whoever is further behind looks."""


class Line(NamedTuple):
    """One key that one transaction touched. `put`: it has a value now, else it is gone."""

    revision: int
    put: bool
    key: str


class Notice(NamedTuple):
    """One commit: the revisions after `before` up to `newest`. `lines` None: what it touched is not said."""

    before: int
    newest: int
    lines: Sequence[Line] | None


class Heard(NamedTuple):
    """What one watch may conclude. It knows all up to `through`: the keys `removed`, and no others.

    `more`: something after `through` concerns it, or may; to learn what, one has to look.
    """

    through: int
    removed: tuple[tuple[int, tuple[str, ...]], ...]
    more: bool


def concerns(told: Notice, through: int, prefix: str | None) -> bool:
    """Whether to wake who watches `prefix` (None: everything) and knows all up to `through`."""
    if prefix is None or told.lines is None or told.before > through:
        return True
    return any(line.revision > through and line.key.startswith(prefix) for line in told.lines)


def notice(payload: str) -> Notice:
    """What the server rang: `before newest`, then for each key its revision, + or -, and it in hexadecimal.

    A star for the keys: too many to say. A number alone: ring without saying anything.
    """
    words = payload.split(" ")
    if len(words) == 1:
        return Notice(-1, int(payload), None)
    before, newest = int(words[0]), int(words[1])
    if words[2:] == ["*"]:
        return Notice(before, newest, None)
    return Notice(before, newest, tuple(_line(word) for word in words[2:] if word))


def _line(word: str) -> Line:
    sign = "+" if "+" in word else "-"
    revision, _, key = word.partition(sign)
    return Line(int(revision), sign == "+", bytes.fromhex(key).decode())


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
        removed: list[tuple[int, tuple[str, ...]]] = []
        for told in self._kept:
            if told.newest <= through:
                continue
            if prefix is None or told.lines is None or told.before > through:
                return Heard(through, tuple(removed), True)
            mine = [line for line in told.lines if line.revision > through and line.key.startswith(prefix)]
            for revision, lines in groupby(mine, key=lambda line: line.revision):
                touched = list(lines)
                if any(line.put for line in touched):
                    return Heard(revision - 1, tuple(removed), True)
                removed.append((revision, tuple(line.key for line in touched)))
            through = told.newest
        return Heard(through, tuple(removed), through < self.newest)
