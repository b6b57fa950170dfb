"""MemoryStore: the Store port in this process, as good as memory can be and as weak as you like.

A handle on a world. `memory://` is a world of its own for each handle; `memory://name` is one world
for every handle of that name in this process. A forked child has worlds of its own, empty ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Self

from atoll.engines.memory.feed import Feed
from atoll.engines.memory.knobs import StoreKnobs
from atoll.engines.memory.link import Link
from atoll.engines.memory.moving import MemoryExamining, MemoryMoving
from atoll.engines.memory.named import Named, Place
from atoll.engines.memory.world import Request, StoreWorld
from atoll.errors import WatchLost
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import (
    Bookmark,
    Change,
    Compare,
    Durable,
    Granted,
    Guard,
    History,
    Leasing,
    Moving,
    Observing,
    Operation,
    Ranged,
    Reach,
    StoreClaims,
    delete,
    put,
    unchanged,
)

SWEEP_LATE_S = 0.2
"""How late the sweep itself may be when its event loop is busy; any call to the store sweeps first."""
BOOKMARK_EVERY = 1000


class MemoryStore:
    """A store that lives and dies with this process. Durable: NONE. Reach: PROCESS."""

    world_type: type[StoreWorld] = StoreWorld
    _named: Named[StoreWorld] = Named()

    def __init__(self, *, name: str = "", knobs: StoreKnobs | None = None) -> None:
        self._knobs = knobs or StoreKnobs()
        self._link = Link(
            latency_s=self._knobs.latency_s,
            request_loss=self._knobs.request_loss,
            reply_loss=self._knobs.reply_loss,
            ceiling_s=self._knobs.ceiling_s,
        )
        self._url = str(Address(scheme="memory", host=name))
        self._place = Place(name, self._knobs, lambda: self.world_type(self._knobs), self._named)
        self._feeds: dict[Feed, None] = {}
        self._leasing = MemoryLeasing(self) if self._knobs.leasing else None
        self._history = MemoryHistory(self) if self._knobs.history else None
        self._moving = MemoryMoving(self._link, lambda: self.world)
        self._examining = MemoryExamining(self._knobs)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `memory://name?knob=value` names."""
        name = address.host + (f"/{address.path}" if address.path else "")
        store = cls(name=name, knobs=address.parse_options(StoreKnobs))
        store._url = str(address)
        return store

    def __repr__(self) -> str:
        return f"<Store {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leasing(self) -> Leasing | None:
        return self._leasing

    @property
    def history(self) -> History | None:
        return self._history

    @property
    def moving(self) -> Moving | None:
        return self._moving

    @property
    def examining(self) -> Examining | None:
        return self._examining

    @property
    def shadow(self) -> None:
        return None

    @property
    def world(self) -> StoreWorld:
        """The state behind this handle, made at its first use in this process."""
        return self._place.world

    async def open(self) -> StoreClaims:
        """Answer the claims; there is nothing to connect to."""
        knobs = self.world.knobs
        return StoreClaims(
            durable=Durable.NONE,
            reach=Reach.PROCESS,
            ttl_min_s=knobs.ttl_min_s,
            expiry_late_max_s=knobs.expiry_late_s + SWEEP_LATE_S,
            key_bytes_max=knobs.key_bytes_max,
            value_bytes_max=knobs.value_bytes_max,
            operations_max=knobs.operations_max,
            dedupe_window_s=knobs.dedupe_window_s,
            epoch_source="this process's memory; raised by moving.bump()",
            observe=self._knobs.observe,
            forgets_at_failover=self._knobs.forgets_at_failover,
        )

    async def close(self) -> None:
        """End this handle's observations with WatchLost. What was written stays; a verb reopens."""
        for feed in tuple(self._feeds):
            feed.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        return await self._link.call("epoch", lambda: self.world.epoch)

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self._knobs)
        return await self._link.call(f"get {key!r}", lambda: self.world.get(key))

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both; see the port."""
        refusal.check_limit(limit)
        return await self._link.call(f"range {prefix!r}", lambda: self.world.range(prefix, start, end, limit))

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        return await self.transact(put(key, value), compare=[unchanged(key, revision)])

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        return await self.transact(delete(key), compare=[unchanged(key, revision)])

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        refusal.check_transaction(then, compare, guard, self._knobs)
        if guard is not None:
            guard.check()
        request = Request(then=then, compare=tuple(compare), guard=guard, request_id=request_id)
        return await self._link.call("the transaction", lambda: self.world.transact(request), id=request_id)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port; with `observe_late_s` and `observe_reset` as late and as rough as they say."""
        world = self.world
        feed = Feed(prefix, coalesced=self._knobs.observe is Observing.COALESCED)
        self._feeds[feed] = None
        try:
            feed.reset = True
            world.listen(feed)
            while True:
                for observation in self._open_box(world, feed):
                    yield observation
                await feed.bell.wait()
                if self._knobs.observe_late_s:
                    await asyncio.sleep(self._knobs.observe_late_s)
                if feed.closed:
                    raise WatchLost(
                        f"{self._url} was closed while {prefix!r} was observed. Observe it again."
                    )
        finally:
            self._feeds.pop(feed, None)
            world.leave(feed)

    def _open_box(self, world: StoreWorld, feed: Feed) -> list[Observation]:
        with world.guarding:
            if self._knobs.observe_reset and world.clock.chance.random() < self._knobs.observe_reset:
                feed.restart()
            return feed.open(lambda: world.below(feed.prefix), world.entries.get, world.revision)


class MemoryLeasing:
    """Leases of a memory store; they end by the world's own lease clock."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        return await self._store._link.call("grant", lambda: self._store.world.grant(ttl_s))

    async def keep_alive(self, lease: str) -> float:
        return await self._store._link.call("keep_alive", lambda: self._store.world.keep_alive(lease))

    async def revoke(self, lease: str) -> None:
        await self._store._link.call("revoke", lambda: self._store.world.revoke(lease))

    async def remaining(self, lease: str) -> float | None:
        return await self._store._link.call("remaining", lambda: self._store.world.remaining(lease))


class MemoryHistory:
    """Every transaction of a memory store, as far back as `history_max`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        return await self._store._link.call("now", self._store.world.bookmark)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port. A long stretch without news below `prefix` is told by a bookmark alone."""
        store, world = self._store, self._store.world
        feed = Feed(prefix, coalesced=True)
        store._feeds[feed] = None
        world.listen(feed)
        silent = 0
        try:
            while True:
                feed.bell.clear()
                feed.dirty.clear()
                for change in world.changes_after(after):
                    after = change.at
                    mine = _below(prefix, change)
                    silent = 0 if mine.changed or mine.removed else silent + 1
                    if silent % BOOKMARK_EVERY == 0:
                        yield mine
                await feed.bell.wait()
                if feed.closed:
                    raise WatchLost(
                        f"{store.url} was closed while its changes were read. Go on from {after}."
                    )
        finally:
            store._feeds.pop(feed, None)
            world.leave(feed)


def _below(prefix: str, change: Change) -> Change:
    changed: tuple[Entry, ...] = tuple(entry for entry in change.changed if entry.key.startswith(prefix))
    return Change(change.at, changed, tuple(key for key in change.removed if key.startswith(prefix)))
