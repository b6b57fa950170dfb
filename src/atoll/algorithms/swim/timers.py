"""Timers: what is due when, for a machine that has no clock.

A kitchen shelf of egg timers, each with a label. Setting one anew moves it; the next to ring is the deadline.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """Labelled deadlines. The heap keeps what was moved or dropped until its turn; bounded by what is set."""

    def __init__(self) -> None:
        self._due: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def set(self, key: Key, due: float) -> None:
        """`key` rings at `due`, and at no other time."""
        self._count += 1
        self._due[key] = (due, self._count)
        heapq.heappush(self._heap, (due, self._count, key))
        if len(self._heap) > 64 + 4 * len(self._due):
            self._heap = [(at, count, one) for one, (at, count) in self._due.items()]
            heapq.heapify(self._heap)

    def drop(self, key: Key) -> None:
        """`key` does not ring."""
        self._due.pop(key, None)

    def __contains__(self, key: Key) -> bool:
        return key in self._due

    @property
    def next(self) -> float | None:
        """When the next one rings."""
        heap = self._heap
        while heap:
            due, count, key = heap[0]
            if self._due.get(key) == (due, count):
                return due
            heapq.heappop(heap)
        return None

    def ringing(self, now: float) -> Iterator[Key]:
        """Each that is due, oldest first; it is taken off the shelf before it is given."""
        while (due := self.next) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            yield key
