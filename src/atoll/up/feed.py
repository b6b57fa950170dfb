"""The feed: the last changes of state, each with its cause.

A ship's log. It has no line for calm weather: only what changed, when, and why, the newest kept.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from atoll import clock

KEPT = 100
log = logging.getLogger("atoll.up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One change of state. `at`: wall clock, Unix seconds; `who`: an instance, a service or `up`."""

    at: float
    who: str
    what: str
    cause: str = ""
    bad: bool = False


class Feed:
    """The newest happenings, and how many there were of each kind."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[Happening] = deque(maxlen=kept)
        self._listeners: list[Callable[[Happening], None]] = []
        self.counts: Counter[str] = Counter()

    def say(self, who: str, what: str, cause: str = "", *, bad: bool = False) -> None:
        """Write a line, and tell whoever listens."""
        happening = Happening(at=clock.wall_now(), who=who, what=what, cause=cause, bad=bad)
        self._kept.append(happening)
        self.counts["bad" if bad else "good"] += 1
        log.log(logging.WARNING if bad else logging.INFO, "%s %s%s", who, what, f": {cause}" if cause else "")
        for listener in self._listeners:
            listener(happening)

    def listen(self, listener: Callable[[Happening], None]) -> None:
        self._listeners.append(listener)

    def newest(self) -> list[dict[str, Any]]:
        """The newest first, as plain values."""
        return [asdict(happening) for happening in reversed(self._kept)]
