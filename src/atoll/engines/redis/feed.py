"""Feed: who watches, and what they are told, read from the stream that every transaction is entered in.

One night watchman for all sleepers of a house. He sits at the window (one blocked read of the stream), knows
whose street each noise is in, and wakes only those; they then go and look for themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from atoll import clock
from atoll.engines.parts import pages
from atoll.engines.parts.pages import Page
from atoll.engines.redis import scripts
from atoll.engines.redis.ledger import Ledger
from atoll.engines.redis.road import Unreachable
from atoll.errors import AtollError
from atoll.ports import refusal
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.redis.store import RedisStore

LIVENESS_S = 10.0
EVENTS_MAX = 500
"""Transactions read at once."""
BLOCK_S = 2.0
_REMEMBERED = 1000
_AT_ONCE = 20
_PAUSE_S = 0.1
_LAST = 2**64 - 1


class Sleeper:
    """One watch: whom to wake for what."""

    def __init__(self) -> None:
        self.prefix, self.all = b"", False
        self.after, self.passed = -1, 0
        self.woken = asyncio.Event()

    def hears(self, names: Sequence[bytes]) -> bool:
        """Whether a transaction that touched these keys is for this watch."""
        self.passed += 1
        return self.all or self.passed >= EVENTS_MAX or any(name.startswith(self.prefix) for name in names)


class Watchman:
    """Reads the stream for all watches of one event loop, while there are any."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sleepers: set[Sleeper] = set()
        self._recent: deque[tuple[int, tuple[bytes, ...]]] = deque(maxlen=_REMEMBERED)
        self._from: int | None = None
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def enter(self, sleeper: Sleeper) -> None:
        """`sleeper` begins to watch."""
        self._sleepers.add(sleeper)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch(), context=clock.detached())

    def leave(self, sleeper: Sleeper) -> None:
        """`sleeper` has ended; with the last one the watchman goes home."""
        self._sleepers.discard(sleeper)
        if not self._sleepers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """Wake everybody, and go."""
        task, self._task = self._task, None
        self._wake()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def sleep(self, sleeper: Sleeper, page: Page, wait_s: float) -> None:
        """Until something of the sleeper's happens after `page`, at most `wait_s`."""
        if page.revision < 0:
            await asyncio.sleep(wait_s)
            return
        sleeper.after, sleeper.passed = page.revision, 0
        sleeper.woken.clear()
        if not self._recent and (self._from is None or page.revision < self._from):
            self._from = page.revision
        self._asked.set()
        if self._recent and page.revision < self._recent[0][0] - 1 and page.revision < (self._from or 0):
            return  # more was heard meanwhile than is remembered
        if any(number > page.revision and sleeper.hears(names) for number, names in self._recent):
            return
        try:
            async with asyncio.timeout(wait_s):
                await sleeper.woken.wait()
        except TimeoutError:
            return

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            sleeper.woken.set()

    async def _watch(self) -> None:
        connection: Any = None
        try:
            while True:
                try:
                    if connection is None:
                        self._recent.clear()
                        self._from = None
                        self._asked.clear()
                        road = await self._ledger.roads.get()
                        connection = await road.connect(self._ledger.options.connect_s)
                        self._wake()
                        await self._asked.wait()
                    async with asyncio.timeout(2 * BLOCK_S + 1):
                        await self._listen(connection)
                except (Unreachable, AtollError, RedisError, OSError, TimeoutError):
                    if connection is not None:
                        await connection.disconnect(nowait=True)
                        connection = None
                    self._wake()
                    await asyncio.sleep(_PAUSE_S)
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)

    async def _listen(self, connection: Any) -> None:
        """One blocked read of the stream."""
        events, after = self._ledger.keys[scripts.KEYS.index("events")], f"{self._from}-{_LAST}"
        words = ("XREAD", "COUNT", _AT_ONCE, "BLOCK", int(BLOCK_S * 1000), "STREAMS", events, after)
        await connection.send_command(*words, check_health=False)
        answer = await connection.read_response()
        if not answer:
            return
        streams = answer.items() if isinstance(answer, dict) else answer
        for _, items in streams:
            for name, fields in items:
                number = int(name.partition(b"-")[0])
                self._heard(number, tuple(fields[::2]))

    def _heard(self, number: int, names: tuple[bytes, ...]) -> None:
        self._from = number
        self._recent.append((number, names))
        for sleeper in self._sleepers:
            if number > sleeper.after and not sleeper.woken.is_set() and sleeper.hears(names):
                sleeper.woken.set()


class Pages:
    """What observing and history stand on; see parts/pages.py."""

    liveness_s = LIVENESS_S

    def __init__(self, store: RedisStore, watchman: Watchman) -> None:
        self._store, self._ledger, self._watchman = store, store.ledger, watchman
        self._sleeper = Sleeper()

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def life(self) -> int:
        return self._ledger.roads.life

    async def look(self, prefix: str, after: int | None, *, all: bool) -> Page:
        """One page of the stream, with no lease over."""
        low, high = refusal.span(prefix)
        self._sleeper.prefix, self._sleeper.all = prefix.encode(), all
        from_, everything = "" if after is None else after, "1" if all else "0"
        words = (low, high or "", prefix, from_, everything, EVENTS_MAX)
        head, rest = await self._ledger.run("read", "look", *words)
        oldest = int(rest[0])
        if rest[1] == b"snapshot":
            snapshot = scripts.entries(rest[2], rest[3])
            return Page(head.epoch, head.revision, oldest, snapshot, (), head.due_s)
        changes = tuple(_change(head.epoch, int(number), pairs) for number, pairs in rest[4])
        return Page(head.epoch, int(rest[3]), oldest, None, changes, head.due_s, full=rest[2] == b"1")

    async def news(self, page: Page, wait_s: float) -> None:
        """See Watchman.sleep."""
        await self._watchman.sleep(self._sleeper, page, wait_s)

    def gone_for_good(self) -> str | None:
        return None

    def __enter__(self) -> Pages:
        self._watchman.enter(self._sleeper)
        return self

    def __exit__(self, *exc: object) -> None:
        self._watchman.leave(self._sleeper)


def _change(epoch: int, number: int, pairs: Sequence[bytes]) -> Change:
    names = [name.decode() for name in pairs[::2]]
    put = (scripts.entry(name, packed) for name, packed in zip(names, pairs[1::2], strict=True) if packed)
    removed = tuple(name for name, packed in zip(names, pairs[1::2], strict=True) if not packed)
    return Change(Bookmark(epoch, number), tuple(one for one in put if one is not None), removed)


class RedisHistory:
    """About the last `history_max` transactions."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        head, _ = await self._store.ledger.run("read", "state")
        return Bookmark(head.epoch, head.revision)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port."""
        await self._store.open()
        with Pages(self._store, await self._store.watchmen.get()) as source:
            async for change in pages.changes(source, prefix, after):
                yield change
