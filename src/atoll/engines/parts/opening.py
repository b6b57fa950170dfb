"""Opening: one connection, pool or channel for each event loop of this process, opened at first use.

A shop with a door for every street it stands on. Who comes first unlocks it and the others wait beside
them; a door that jammed is tried again by the next; a forked child builds doors of its own and leaves its
parent's alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Door(Generic[T]):
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    inside: T | None = None


class Opening(Generic[T]):
    """Holds what `make` answered, once for each event loop, until `close` or a fork.

    `make` is called by one caller at a time in a loop; when it raises, that caller gets the error and the
    next one tries again. `life` rises at each close and in each forked child: a watch that began in an
    earlier life ends.
    """

    def __init__(self, make: Callable[[], Awaitable[T]], shut: Callable[[T], Awaitable[None]]) -> None:
        self._make, self._shut = make, shut
        self._doors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Door[T]]
        self._doors = weakref.WeakKeyDictionary()
        self._lock, self._pid = threading.Lock(), os.getpid()
        self.life = 0

    async def get(self) -> T:
        """What is open in this loop, opened now if it is not."""
        door = self._door()
        if door.inside is not None:
            return door.inside
        async with door.gate:
            if door.inside is None:
                life = self.life
                inside = await self._make()
                if life != self.life:  # closed meanwhile
                    await self._shut(inside)
                    return await self.get()
                door.inside = inside
            return door.inside

    @property
    def inside(self) -> T | None:
        """What is open in this loop, None if nothing is."""
        return self._door().inside

    async def drop(self, broken: T) -> None:
        """Shut `broken` if it is still what is open here; the next `get` opens anew."""
        door = self._door()
        if door.inside is broken:
            door.inside = None
            await self._shut(broken)

    async def close(self) -> None:
        """Shut what this loop has open; what other loops have open is theirs to shut."""
        door = self._door()
        inside, door.inside = door.inside, None
        self.life += 1
        if inside is not None:
            await self._shut(inside)

    def _door(self) -> _Door[T]:
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._doors = weakref.WeakKeyDictionary()
            self.life += 1
        door = self._doors.get(loop)
        if door is not None:
            return door
        with self._lock:
            return self._doors.setdefault(loop, _Door())
