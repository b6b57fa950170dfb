"""Ear: one reader of what happens among members, who may be slow.

Letters are piled up for somebody who is away. When the pile is too high it is thrown out, and on his return
he is told only what is different from when he left.

Promise: a reader ends up knowing what is so; it misses what came and went meanwhile, only where it was far
behind.
What can break it: a reader that never reads again keeps one pile of a bounded height.
Proved by: tests/blocks/test_members.py
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from atoll.ports.observer import (
    MemberEvent,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberSuspected,
    MemberUpdated,
)

EVENTS_MAX = 1000


class Ear:
    """A bounded pile, and what its reader knows by now."""

    def __init__(self, present: Iterable[MemberEvent]) -> None:
        self._pile: deque[MemberEvent] = deque(present)
        self._most = EVENTS_MAX + len(self._pile)
        self._known: dict[str, MemberEvent] = {}
        self._behind = self._closed = False
        self._bell = asyncio.Event()

    def hear(self, event: MemberEvent) -> None:
        """Something happened."""
        if len(self._pile) >= self._most:
            self._behind = True
            self._pile.clear()
        if not self._behind:
            self._pile.append(event)
        self._bell.set()

    def close(self) -> None:
        """Nothing more happens; what is piled up is still read."""
        self._closed = True
        self._bell.set()

    async def next(self, present: Callable[[], list[MemberEvent]]) -> MemberEvent | None:
        """The next event; None at the end. `present`: who is in now, for a reader that was far behind."""
        while not self._pile:
            if self._behind:
                self._behind = False
                self._pile.extend(self._changes(present()))
                continue
            if self._closed:
                return None
            self._bell.clear()
            await self._bell.wait()
        event = self._pile.popleft()
        if isinstance(event, MemberFailed | MemberLeft):
            self._known.pop(event.name, None)
        else:
            self._known[event.name] = event
        return event

    def _changes(self, present: list[MemberEvent]) -> list[MemberEvent]:
        """From what the reader knows to what is so; `present`: MemberJoined of each, then MemberSuspected."""
        now = {event.name: event for event in present}  # the later of both
        found = [_as(MemberFailed, event) for name, event in self._known.items() if name not in now]
        for name, event in now.items():
            known = self._known.get(name)
            if known is None:
                found.append(_as(MemberJoined, event))
            elif (known.address, known.metadata) != (event.address, event.metadata):
                found.append(_as(MemberUpdated, event))
            doubted = isinstance(known, MemberSuspected)
            if doubted != isinstance(event, MemberSuspected):
                found.append(_as(MemberRefuted if doubted else MemberSuspected, event))
        return found


def _as(kind: type[MemberEvent], event: MemberEvent) -> MemberEvent:
    return kind(
        at=event.at,
        name=event.name,
        seen_by=event.seen_by,
        address=event.address,
        metadata=event.metadata,
    )
