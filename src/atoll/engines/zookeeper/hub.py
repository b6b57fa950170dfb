"""Hub: the lists of directories that several observers of one process watch together.

A notice board with one bell. Who wants the list takes it from the board while it hangs there; when the bell
rings the list is torn down, everybody who read it is told, and the first who asks has a new one written. So
sixteen who wait in one line cost the servers one answer a change, not sixteen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.serialization import GetChildren

from atoll.engines.zookeeper import bridge
from atoll.engines.zookeeper.link import Link

_LISTS_MAX = 10_000

Flag = Callable[[str], None]


class Hub:
    """Lists as of the last bell. Belongs to one event loop and one link."""

    def __init__(self, link: Link) -> None:
        self._link, self._loop = link, asyncio.get_running_loop()
        self._lists: dict[str, asyncio.Future[list[str] | None]] = {}
        self._readers: dict[str, set[Flag]] = {}

    async def listed(self, path: str, flag: Flag) -> list[str] | None:
        """The names in a directory, None where there is none; `flag(path)` is called once, when they change.

        A directory that is not there is not watched: watch the one above it.
        """
        if len(self._lists) > _LISTS_MAX and path not in self._lists:
            for one in [one for one, future in self._lists.items() if future.done()]:
                self._torn(one)
        future = self._lists.get(path)
        if future is None:
            future = self._lists[path] = bridge.post(self._link.client, GetChildren(path, self._bell(path)))
            future.add_done_callback(lambda done: self._settled(path, done))
        self._readers.setdefault(path, set()).add(flag)
        try:
            return await asyncio.shield(future)
        except NoNodeError:
            return None

    def leave(self, flag: Flag) -> None:
        """Nobody is told any more."""
        for path, readers in list(self._readers.items()):
            readers.discard(flag)
            if not readers:
                del self._readers[path]

    def _settled(self, path: str, future: asyncio.Future[list[str] | None]) -> None:
        if (future.cancelled() or future.exception() is not None) and self._lists.get(path) is future:
            del self._lists[path]

    def _bell(self, path: str) -> Callable[[Any], None]:
        def rung(event: Any) -> None:
            """Called in kazoo's thread, also for all at once when the connection is gone."""
            if not self._loop.is_closed():
                try:
                    self._loop.call_soon_threadsafe(self._torn, path)
                except RuntimeError:
                    return

        return rung

    def _torn(self, path: str) -> None:
        self._lists.pop(path, None)
        for flag in tuple(self._readers.pop(path, ())):
            flag(path)
