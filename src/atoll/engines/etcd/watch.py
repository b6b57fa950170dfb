"""Watch: one stream of news for all who watch in an event loop, resumed at another member when it breaks.

A news agency with one wire. Each subscriber has a place in the order of events; when the wire breaks, or has
been silent for so long that it must be dead, another office is rung and every subscriber goes on from where
they were. What an office cannot tell any more, it says; and half a piece of news is never handed out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from atoll import clock
from atoll.engines.etcd import card as cards
from atoll.engines.etcd import wire
from atoll.engines.etcd.call import Ended
from atoll.engines.etcd.client import AnotherCluster
from atoll.engines.etcd.endpoint import Stream
from atoll.engines.etcd.keys import after as behind
from atoll.engines.etcd.translation import Failure

if TYPE_CHECKING:
    from atoll.engines.etcd.attachment import Attachment

WAITING_MAX = 2000
"""Transactions kept for one subscriber; a slower one leaves the stream until it has read them."""
AGAIN_S = 0.05
_WatchRequest = wire.MESSAGES["WatchRequest"]

News = tuple[int, list[Any]]
"""A revision, and etcd's events of that transaction."""


class Gap(Exception):
    """The stream cannot go on. `compacted`: the newest revision that is gone, 0: for another reason."""

    def __init__(self, reason: str, compacted: int = 0) -> None:
        super().__init__(reason)
        self.compacted = compacted


class Subscriber:
    """One reader's place. `after`: the last revision handed to it or waiting for it."""

    def __init__(self, watcher: Watcher, low: bytes, high: bytes, after: int) -> None:
        self.low, self.high, self.after = low, high, after
        self.waiting: deque[News] = deque()
        self.bell = asyncio.Event()
        self.gap: Gap | None = None
        self.number = 0
        """Of its watch in the stream that stands, 0: it is in none."""
        self.fragments: list[Any] = []
        self.replayed_to = after
        self._watcher = watcher

    async def news(self, wait_s: float) -> list[News]:
        """What has come, as soon as anything has, at the latest after `wait_s`. Raises Gap."""
        if not self.waiting:
            if self.gap is not None:
                raise self.gap
            if self.number == 0:
                self._watcher.begin(self)
            self.bell.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0.001)):
                    await self.bell.wait()
        found = list(self.waiting)
        self.waiting.clear()
        return found

    def heard(self, response: Any) -> None:
        """Take one answer of the stream; whole transactions are handed on."""
        self.fragments.extend(response.events)
        if response.fragment:
            return
        events, self.fragments = self.fragments, []
        for revision, group in itertools.groupby(events, key=lambda event: event.kv.mod_revision):
            if revision <= self.after:
                if revision > self.replayed_to:
                    self.gap = Gap(f"revision {revision} was told in two parts")
                    break
                continue
            self.after = revision
            self.waiting.append((revision, list(group)))
        if self.waiting or self.gap:
            self.bell.set()

    def leave(self) -> None:
        """It reads no more."""
        self._watcher.end(self)


class Watcher:
    """The stream of one event loop, begun with the first subscriber and ended with the last."""

    def __init__(self, at: Attachment, liveness_s: float) -> None:
        self._at, self._liveness_s = at, liveness_s
        self._subscribers: dict[Subscriber, None] = {}
        self._numbers: dict[int, Subscriber | None] = {}
        self._number = itertools.count(1)
        self._call: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self.heard = clock.loop_now()
        """When a stream last said anything."""
        self.closed = False

    def subscribe(self, low: bytes, high: bytes, after: int) -> Subscriber:
        """A place in the news of low <= key < high, from behind revision `after`."""
        subscriber = Subscriber(self, low, high, after)
        self._subscribers[subscriber] = None
        if self._task is None or self._task.done():
            self.heard = clock.loop_now()
            self._task = asyncio.create_task(self._keep())
        return subscriber

    def begin(self, subscriber: Subscriber) -> None:
        """Put it into the stream that stands; one that begins later asks for everybody by itself."""
        if self._call is not None and subscriber in self._subscribers:
            number = subscriber.number = next(self._number)
            self._numbers[number] = subscriber
            subscriber.fragments, subscriber.replayed_to = [], subscriber.after
            self._send(_create(number, subscriber.low, subscriber.high, subscriber.after))

    def end(self, subscriber: Subscriber) -> None:
        """Take it out of the stream; with the last one the stream ends."""
        self._subscribers.pop(subscriber, None)
        self._cancel(subscriber)
        if not self._subscribers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """End the stream; who reads hears it."""
        self.closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        for subscriber in self._subscribers:
            subscriber.bell.set()

    # -- one stream --------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Hold a stream open for as long as anybody reads."""
        while True:
            try:
                await self._one()
            except (Failure, Ended):
                await asyncio.sleep(AGAIN_S * (0.5 + clock.chance().random()))
            except AnotherCluster as error:
                self._fail(Gap(str(error)))
                return

    async def _one(self) -> None:
        client = self._at.client
        endpoint = await client.entered(self._liveness_s / 3)
        tending: asyncio.Task[None] | None = None
        call: Stream | None = None
        try:
            call = await endpoint.stream("Watch", client.attempt_s, client.token or "")
            self._call, self._numbers = call, {}
            card_number = next(self._number)
            self._numbers[card_number] = None
            card = self._at.card
            self._send(_create(card_number, self._at.keys.meta, behind(self._at.keys.meta), card.revision))
            for subscriber in self._subscribers:
                self.begin(subscriber)
            tending = asyncio.create_task(self._tend(call))
            while (response := await call.read()) is not None:
                self.heard = clock.loop_now()
                self._take(response)
            client.leave(endpoint)
            await asyncio.sleep(AGAIN_S)
        except Ended:
            client.leave(endpoint)
            raise
        finally:
            self._call = None
            for subscriber in self._subscribers:
                subscriber.number = 0
            if tending is not None:
                tending.cancel()
            if call is not None:
                call.cancel()

    async def _tend(self, call: Stream) -> None:
        """Ask a silent stream whether it is there; give it up when it does not answer."""
        while True:
            await asyncio.sleep(self._liveness_s / 6)
            silent = clock.loop_now() - self.heard
            if silent > self._liveness_s * 2 / 3:
                call.cancel()
                return
            if silent > self._liveness_s / 4:
                request = _WatchRequest()
                request.progress_request.SetInParent()
                self._send(request)

    def _take(self, response: Any) -> None:
        """Hand one answer to the one it is for."""
        number = response.watch_id
        if number not in self._numbers:
            return
        subscriber = self._numbers[number]
        if response.canceled:
            self._numbers.pop(number)
            self._refused(subscriber, response)
        elif subscriber is None:
            self._carded(response)
        else:
            subscriber.heard(response)
            if len(subscriber.waiting) > WAITING_MAX:
                self._cancel(subscriber)

    def _refused(self, subscriber: Subscriber | None, response: Any) -> None:
        if subscriber is None:
            return
        subscriber.number = 0
        if response.compact_revision:
            gap = Gap("compacted", response.compact_revision)
            subscriber.gap = gap
            subscriber.bell.set()
        elif self._call is not None:
            self._call.cancel()  # for another reason: another member may be able to

    def _carded(self, response: Any) -> None:
        """The card was changed: everybody who reads is to look at it."""
        for event in response.events:
            if event.type == wire.PUT and event.kv.mod_revision > self._at.card.revision:
                with suppress(Exception):
                    self._at.card = cards.read(event.kv, self._at.url)
                for subscriber in self._subscribers:
                    subscriber.bell.set()

    def _cancel(self, subscriber: Subscriber) -> None:
        if subscriber.number:
            self._numbers.pop(subscriber.number, None)
            request = _WatchRequest()
            request.cancel_request.watch_id = subscriber.number
            subscriber.number = 0
            self._send(request)

    def _fail(self, gap: Gap) -> None:
        for subscriber in self._subscribers:
            subscriber.gap = gap
            subscriber.bell.set()

    def _send(self, request: Any) -> None:
        if self._call is not None:
            self._call.send(request.SerializeToString())


def _create(number: int, low: bytes, high: bytes, after: int) -> Any:
    """Asks from `after` itself: so a compaction of anything behind it is told, never passed over."""
    request = _WatchRequest()
    create = request.create_request
    create.key, create.range_end, create.watch_id = low, high, number
    create.start_revision = max(1, after)
    create.fragment = True
    return request
