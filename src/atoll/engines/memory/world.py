"""World: the state of one memory store, as its server would keep it.

The ledger itself and the clerk who keeps it. Everything here happens at once, in the order of the
revisions; handles talk to it through a link, and leases end by the clerk's own clock.
"""

from __future__ import annotations

import asyncio
import math
import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field

from atoll import clock
from atoll.engines.memory.feed import Feed
from atoll.engines.memory.knobs import StoreKnobs
from atoll.errors import Compacted, EpochChanged
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry, Got, Unmet
from atoll.ports.store import (
    Bookmark,
    Change,
    Compare,
    Granted,
    Guard,
    Operation,
    Put,
    Ranged,
)

TICK_S = 0.001


@dataclass(slots=True)
class Lease:
    """A right that ends at `due` by the server's lease clock, and the keys that die with it."""

    id: str
    ttl_s: float
    due: float
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One transaction as it was asked."""

    then: Sequence[Operation]
    compare: Sequence[Compare]
    guard: Guard | None
    request_id: str | None


class StoreWorld:
    """Entries, leases, history and who listens. Safe to call from any thread and event loop."""

    def __init__(self, knobs: StoreKnobs) -> None:
        self.knobs = knobs
        self.url = "memory://"
        self.clock = clock.current()
        self.context: Context = clock.server_context()
        self.guarding = threading.RLock()
        self.epoch = 1
        self.frozen: str | None = None
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        self.keys: list[str] = []
        self.leases: dict[str, Lease] = {}
        self.next_due = math.inf
        self.history: deque[Change] = deque(maxlen=knobs.history_max)
        self.requests: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.feeds: dict[Feed, None] = {}  # a set that keeps its order, for replays
        self.timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    # What is there.

    def get(self, key: str) -> Got:
        with self.guarding:
            self.sweep()
            return Got(self.entries.get(key), self.revision)

    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        with self.guarding:
            self.sweep()
            found: list[Entry] = []
            for key in self._keys_from(max(prefix, start or "")):
                if not key.startswith(prefix) or (end is not None and key >= end):
                    break
                if len(found) == limit:
                    return Ranged(tuple(found), self.revision, more=True)
                found.append(self.entries[key])
            return Ranged(tuple(found), self.revision)

    def below(self, prefix: str) -> tuple[Entry, ...]:
        """Every entry whose key starts with `prefix`, in key order."""
        found = []
        for key in self._keys_from(prefix):
            if not key.startswith(prefix):
                break
            found.append(self.entries[key])
        return tuple(found)

    def _keys_from(self, start: str) -> Iterator[str]:
        # Python orders text by code point, which is the bytewise order of its UTF-8.
        for at in range(bisect_left(self.keys, start), len(self.keys)):
            yield self.keys[at]

    # What happens.

    def transact(self, request: Request) -> Applied | Unmet:
        with self.guarding:
            self.sweep()
            replay = self._remembered(request.request_id)
            if replay is not None:
                return Applied(replay, (), replayed=True)
            if self.frozen is not None and request.then:
                raise refusal.frozen(self.url, self.frozen)
            if request.guard is not None:
                refusal.check_guard(
                    request.guard, self.entries.get(request.guard.owner_key), self.epoch, self.revision
                )
            if not all(compare.holds(self.entries.get(compare.key)) for compare in request.compare):
                seen = {compare.key: self.entries.get(compare.key) for compare in request.compare}
                return Unmet(seen, self.revision)
            for operation in request.then:
                if isinstance(operation, Put) and operation.lease is not None:
                    self._living(operation.lease)
            if not request.then:
                return Applied(self.revision)
            results = self.apply(request.then)
            self._remember(request.request_id)
            return Applied(self.revision, results)

    def apply(self, then: Sequence[Operation]) -> tuple[Entry | None, ...]:
        """Write and remove, as the next revision; tell whoever listens."""
        self.revision += 1
        results: list[Entry | None] = []
        changed: list[Entry] = []
        removed: list[str] = []
        for operation in then:
            if isinstance(operation, Put):
                entry = self._write(operation)
                changed.append(entry)
                results.append(entry)
            else:
                gone = self._remove(operation.key)
                if gone is not None:
                    removed.append(operation.key)
                results.append(gone)
        self._tell(Change(Bookmark(self.epoch, self.revision), tuple(changed), tuple(removed)))
        return tuple(results)

    def _write(self, operation: Put) -> Entry:
        before = self.entries.get(operation.key)
        if before is None:
            insort(self.keys, operation.key)
        elif before.lease in self.leases:
            self.leases[before.lease].keys.discard(operation.key)
        if operation.lease is not None:
            self.leases[operation.lease].keys.add(operation.key)
        entry = Entry(
            operation.key,
            operation.value,
            self.revision,
            before.create_revision if before else self.revision,
            operation.lease,
        )
        self.entries[operation.key] = entry
        return entry

    def _remove(self, key: str) -> Entry | None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            del self.keys[bisect_left(self.keys, key)]
            if entry.lease in self.leases:
                self.leases[entry.lease].keys.discard(key)
        return entry

    def _tell(self, change: Change) -> None:
        self.history.append(change)
        for feed in tuple(self.feeds):
            feed.offer(change)

    def _remembered(self, request_id: str | None) -> int | None:
        forgotten = self.clock.lease_now() - self.knobs.dedupe_window_s
        while self.requests and next(iter(self.requests.values()))[1] <= forgotten:
            self.requests.popitem(last=False)
        known = None if request_id is None else self.requests.get(request_id)
        return known[0] if known else None

    def _remember(self, request_id: str | None) -> None:
        if request_id is not None and self.knobs.dedupe_window_s > 0:
            self.requests[request_id] = (self.revision, self.clock.lease_now())
            while len(self.requests) > self.knobs.dedupe_max:
                self.requests.popitem(last=False)

    def bump(self, above: int = 0) -> int:
        with self.guarding:
            self.epoch = max(self.epoch, above) + 1
            for feed in tuple(self.feeds):
                feed.restart()
            return self.epoch

    # Leases.

    def grant(self, ttl_s: float) -> Granted:
        with self.guarding:
            self.sweep()
            granted = max(ttl_s, self.knobs.ttl_min_s) * self.knobs.granted_ttl_factor
            granted = max(granted, self.knobs.ttl_min_s)
            id = f"{self.clock.chance.getrandbits(64):016x}"
            self.leases[id] = Lease(id, granted, self.clock.lease_now() + granted)
            self.next_due = min(self.next_due, self.leases[id].due)
            self.arm()
            return Granted(id, granted)

    def keep_alive(self, lease: str) -> float:
        with self.guarding:
            self.sweep()
            living = self._living(lease)
            living.due = self.clock.lease_now() + living.ttl_s
            return living.ttl_s

    def revoke(self, lease: str) -> None:
        with self.guarding:
            self.sweep()
            if lease in self.leases:
                self.end(self.leases[lease])

    def remaining(self, lease: str) -> float | None:
        with self.guarding:
            self.sweep()
            living = self.leases.get(lease)
            left_s = 0.0 if living is None else living.due - self.clock.lease_now()
            return left_s if left_s > 0 else None

    def _living(self, id: str) -> Lease:
        lease = self.leases.get(id)
        if lease is None or lease.due <= self.clock.lease_now():
            raise refusal.lease_over(id)
        return lease

    def sweep(self) -> None:
        """End every lease whose time is over, the earliest first."""
        swept = self.clock.lease_now() - self.knobs.expiry_late_s
        if swept < self.next_due:
            return
        for lease in sorted(self.leases.values(), key=lambda lease: lease.due):
            if lease.due <= swept:
                self.end(lease)
        self.next_due = min((lease.due for lease in self.leases.values()), default=math.inf)

    def end(self, lease: Lease) -> None:
        """Remove the lease and, as one transaction, its keys."""
        self.leases.pop(lease.id, None)
        removed = tuple(sorted(lease.keys))
        if removed:
            self.revision += 1
            for key in removed:
                self._remove(key)
            self._tell(Change(Bookmark(self.epoch, self.revision), (), removed))

    def arm(self) -> None:
        """Have every loop that listens, and this one, wake the clerk when the next lease is due."""
        running = asyncio.get_running_loop()
        self._arm_here()
        for loop in {feed.bell.loop for feed in self.feeds} - {running}:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._arm_here, context=self.context)

    def _arm_here(self) -> None:
        loop = asyncio.get_running_loop()
        with self.guarding:
            if self.next_due == math.inf:
                return
            wait_s = self.next_due + self.knobs.expiry_late_s - self.clock.lease_now()
            when = loop.time() + max(wait_s, TICK_S)
            armed = self.timers.get(loop)
            if armed is not None and armed.when() <= when:
                return
            if armed is not None:
                armed.cancel()
            for gone in [other for other in self.timers if other.is_closed()]:
                del self.timers[gone]
            self.timers[loop] = loop.call_at(when, self._ring, context=self.context)

    def _ring(self) -> None:
        with self.guarding:
            self.timers.pop(asyncio.get_running_loop(), None)
            self.sweep()
            self._arm_here()

    # Who listens.

    def listen(self, feed: Feed) -> tuple[tuple[Entry, ...], int]:
        """Everything below the feed's prefix; the feed is offered what comes after."""
        with self.guarding:
            self.sweep()
            self.feeds[feed] = None
            self.arm()
            return self.below(feed.prefix), self.revision

    def leave(self, feed: Feed) -> None:
        with self.guarding:
            self.feeds.pop(feed, None)

    def bookmark(self) -> Bookmark:
        with self.guarding:
            self.sweep()
            return Bookmark(self.epoch, self.revision)

    def changes_after(self, after: Bookmark) -> list[Change]:
        """The transactions after `after` that are kept, or the reason why that cannot be said."""
        with self.guarding:
            self.sweep()
            if after.epoch != self.epoch or after.revision > self.revision:
                raise EpochChanged(
                    f"the bookmark is of epoch {after.epoch}, revision {after.revision}; the store is at "
                    f"epoch {self.epoch}, revision {self.revision}. Read all again, then take a new one."
                )
            oldest = self.revision - len(self.history) + 1
            if after.revision < oldest - 1:
                raise Compacted(
                    f"revision {after.revision + 1} is no longer kept; the oldest one is {oldest}. "
                    "Read everything again and take a new bookmark.",
                    oldest=oldest,
                )
            missed = self.revision - after.revision
            return [self.history[at] for at in range(len(self.history) - missed, len(self.history))]
