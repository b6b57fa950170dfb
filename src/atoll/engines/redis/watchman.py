"""Watchman: one blocked read of the stream for all watches of an event loop, and what it has heard so far.

One night watchman for all sleepers of a house. He sits at the window, knows whose street each noise is in,
and wakes only those. While he has missed nothing he can tell them himself what it was; else they go and look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from atoll import clock
from atoll.engines.redis import scripts
from atoll.engines.redis.ledger import Ledger
from atoll.engines.redis.place import Kind
from atoll.engines.redis.road import Road, Unreachable
from atoll.errors import AtollError

EVENTS_MAX = 500
"""Transactions read at once, or passed over before a watch is told that it has fallen behind."""
BLOCK_S = 2.0
LINGER_S = 10.0
"""How long the connection is kept when nobody watches any more."""
_REMEMBERED = 1000
_AT_ONCE = 20
_PAUSE_S = 0.1
_PART = 2 * 1000  # fields in one item of the stream; a larger transaction is several items, see prologue.lua


class Event(NamedTuple):
    """One transaction as the stream tells it. `whole`: all of it is here."""

    number: int
    fields: Sequence[bytes]
    whole: bool

    def touches(self, prefix: bytes) -> bool:
        """Whether it may have touched something below `prefix`."""
        return not self.whole or any(name.startswith(prefix) for name in self.fields[::2])


class Sleeper:
    """One watch: whom to wake for what."""

    def __init__(self) -> None:
        self.prefix, self.all = b"", False
        self.after, self.passed = -1, 0
        self.woken = asyncio.Event()

    def hears(self, event: Event) -> bool:
        """Whether this transaction is for this watch."""
        self.passed += 1
        return self.all or self.passed >= EVENTS_MAX or event.touches(self.prefix)


class Watchman:
    """Reads the stream for all watches of one event loop, while there are any.

    What it remembers is a run without a gap: every transaction after number `_start` up to number `_last`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sleepers: set[Sleeper] = set()
        self._run: deque[Event] = deque()
        self._start: int | None = None
        self._last, self._item = 0, ""
        events = ledger.keys[scripts.KEYS.index("events")]
        words = ("XREAD", "COUNT", _AT_ONCE, "BLOCK", int(BLOCK_S * 1000), "STREAMS", events, self._item)
        self._words = scripts.command(*words).removesuffix(scripts.packed((self._item,)))
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._road: Road | None = None
        self._connection: Any = None

    def enter(self, sleeper: Sleeper) -> None:
        """`sleeper` begins to watch."""
        self._sleepers.add(sleeper)
        self._be_there()

    def leave(self, sleeper: Sleeper) -> None:
        """`sleeper` has ended; a while after the last one the watchman goes home."""
        self._sleepers.discard(sleeper)

    async def close(self) -> None:
        """Wake everybody, and go."""
        task, self._task = self._task, None
        self._wake()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def sleep(self, sleeper: Sleeper, after: int, wait_s: float) -> None:
        """Until something of the sleeper's happens after transaction `after`, at most `wait_s`."""
        sleeper.after, sleeper.passed = after, 0
        sleeper.woken.clear()
        if self._start is None:
            self._begin(after)
        elif after < self._start:
            return  # what happened between is not remembered: look again
        self._asked.set()
        if any(sleeper.hears(event) for event in self._since(after)):
            return
        try:
            async with asyncio.timeout(wait_s):
                await sleeper.woken.wait()
        except TimeoutError:
            return

    def heard(self, after: int) -> Sequence[Event] | None:
        """Every transaction after `after` up to now, none missing; None where only the store can tell.

        So it is where a part was not heard or is forgotten, or where who told it leads no more.
        """
        if self._start is None or not self._start <= after < self._last:
            return None
        if not self._leads():
            return None
        events = list(self._since(after))
        return events if all(event.whole for event in events) else None

    def _be_there(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch(), context=clock.detached())

    def _leads(self) -> bool:
        """Whether we listen to whoever is known to take writes."""
        return self._connection is not None and self._road is not None and self._road.leads(self._connection)

    def _since(self, after: int) -> Iterator[Event]:
        """What is remembered of after `after`. Numbers follow one another, so its place is known."""
        return islice(self._run, max(0, after - (self._start or 0)), None)

    def _begin(self, after: int | None) -> None:
        """Remember nothing, and listen from `after` on; None: whoever looks next says from where."""
        self._run.clear()
        self._start, self._last = after, after or 0
        self._item = scripts.last_item(self._last)

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            sleeper.woken.set()

    async def _watch(self) -> None:
        failed = False
        try:
            while True:
                try:
                    if self._connection is None:
                        await self._connect()
                        if failed:
                            self._wake()
                    while await self._wanted():
                        await self._listen(self._connection)
                        failed = False
                    return
                except (Unreachable, AtollError, RedisError, OSError, TimeoutError):
                    failed = True
                    await self._hang_up()
                    self._wake()
                    await asyncio.sleep(_PAUSE_S)
        finally:
            await self._hang_up()

    async def _connect(self) -> None:
        self._road = await self._ledger.roads.get()
        self._connection = await self._road.connect(self._ledger.options.connect_s)

    async def _hang_up(self) -> None:
        """What happens from now on is not heard."""
        connection, self._connection = self._connection, None
        self._begin(None)
        self._asked.clear()
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _wanted(self) -> bool:
        """Wait until somebody sleeps. False: nobody has watched for a while, and the watchman has gone."""
        if self._sleepers and self._start is not None:
            return True
        if not self._sleepers:
            self._begin(None)
            self._asked.clear()
        while True:
            try:
                async with asyncio.timeout(LINGER_S):
                    await self._asked.wait()
                return True
            except TimeoutError:
                if not self._sleepers:
                    self._task = None
                    return False

    async def _listen(self, connection: Any) -> None:
        """Blocked reads of the stream, one after the other, for BLOCK_S or until nobody sleeps any more."""
        if self._ledger.place.kind is not Kind.ALONE and not self._leads():
            raise Unreachable("somebody else leads now")
        until = clock.loop_now() + BLOCK_S
        async with asyncio.timeout(2 * BLOCK_S + 1):  # one for many: it costs as much as a read
            while self._sleepers and self._start is not None:
                words = scripts.packed((self._item,))
                await connection.send_packed_command(self._words + words, check_health=False)
                for _, items in await connection.read_response() or ():  # nothing: BLOCK_S have passed
                    for name, fields in items:
                        self._item = name.decode()
                        number, _, part = self._item.partition("-")
                        self._heard(Event(int(number), fields, part == "0" and len(fields) < _PART))
                if clock.loop_now() >= until:
                    return

    def _heard(self, event: Event) -> None:
        if self._start is None:
            return
        if event.number == self._last + 1:
            self._run.append(event)
            if len(self._run) > _REMEMBERED:
                self._run.popleft()
                self._start += 1
        elif event.number != self._last or event.whole:
            # a gap: trimmed away before it was read, or another life of the store. Everybody looks.
            self._run.clear()
            self._start = event.number
            self._wake()
        self._last = event.number
        for sleeper in self._sleepers:
            if event.number > sleeper.after and not sleeper.woken.is_set() and sleeper.hears(event):
                sleeper.woken.set()
