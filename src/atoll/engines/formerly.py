"""FormerlyStore: one store made of two while a fleet moves from the old one to the new.

A shop that moves house. Until moving day the old address serves, whatever the letterhead says; on that day
its door is locked, everything is carried over, and the new door is opened. Whoever comes reads the note on
the old door, sees whether the new one is open, and goes where the business is. Nobody serves in both.

`atoll store move` is moving day: it freezes the old store with a note that names the move, copies, raises
the new store's epoch above the old one's, and last puts the move's mark into the new store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Self, TypeVar

from atoll import clock
from atoll.errors import ConfigurationError, EpochChanged, NotSent, OutcomeUnknown, Overloaded, ReadOnly
from atoll.ports import refusal
from atoll.ports.examining import Examining
from atoll.ports.moving import DRAINING, left, mark, move_of
from atoll.ports.register import Applied, Got, Observation, Unmet
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
    Put,
    Ranged,
    Reach,
    Store,
    StoreClaims,
    delete,
    put,
    unchanged,
)

LOOK_S = 0.5
"""A watch looks this often whether the store has moved."""
CEILING_S = 30.0
"""A write waits at most this long for a move under way, where no nearer deadline is set."""
_RETRY_S = 0.1

T = TypeVar("T")


class FormerlyStore:
    """Made by `atoll.store(new, formerly=old)`. The old one until it was moved, the new one from then on."""

    def __init__(self, new: Store, old: Store) -> None:
        if new is old or (new.url == old.url and new.url != "memory://"):
            raise ConfigurationError(
                f"found {new.url} as the store and as formerly; expected two. Drop the word formerly."
            )
        self._new, self._old = new, old
        self._moved = False
        self._looked = -1.0
        self.old_leases: set[str] = set()

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    @property
    def url(self) -> str:
        return f"{self._new.url} (formerly {self._old.url})"

    @property
    def book(self) -> Store:
        """The one that counts, as far as this handle has seen."""
        return self._new if self._moved else self._old

    @property
    def shadow(self) -> Store | None:
        """Where locks are taken as well: the new store, until the move."""
        return None if self._moved else self._new

    @property
    def leasing(self) -> Leasing | None:
        return FormerlyLeasing(self) if self._old.leasing and self._new.leasing else None

    @property
    def history(self) -> History | None:
        return FormerlyHistory(self) if self._old.history and self._new.history else None

    @property
    def moving(self) -> Moving | None:
        return None

    @property
    def examining(self) -> Examining | None:
        return self.book.examining

    async def open(self) -> StoreClaims:
        """Open both; answer the weaker of their claims."""
        old, new = await self._old.open(), await self._new.open()
        if self._old.moving is None:
            raise ConfigurationError(
                f"{self._old.url} cannot be frozen, so nothing could be moved from it while it is in use. "
                "Stop what uses it, then: atoll store copy OLD NEW."
            )
        await self.look()
        return weaker(old, new)

    async def close(self) -> None:
        await self._old.close()
        await self._new.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def look(self) -> str | None:
        """Has it moved? None: no, or yes and seen; else the note of what is under way or stands frozen."""
        if self._moved:
            return None
        assert self._old.moving is not None
        self._looked = clock.loop_now()
        found = await self._old.moving.frozen()
        if found is None:
            return None
        move = move_of(found)
        if move is not None and (await self._new.get(mark(move))).entry is not None:
            self._moved = True
            return None
        return found

    async def _read(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        """Ask the old store, and then whether it still was the book; if not, ask the new one."""
        if not self._moved:
            answer = await ask(self._old)
            await self.look()
            if not self._moved:
                return answer
        return await ask(self._new)

    async def epoch(self) -> int:
        return await self._read(lambda store: store.epoch())

    async def get(self, key: str) -> Got:
        return await self._read(lambda store: store.get(key))

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        return await self._read(lambda store: store.range(prefix, start=start, end=end, limit=limit))

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
        def send(store: Store) -> Awaitable[Applied | Unmet]:
            return store.transact(*then, compare=compare, guard=guard, request_id=request_id)

        if not then:
            return await self._read(send)
        until = clock.call_deadline(CEILING_S)
        if any(isinstance(operation, Put) and operation.lease is not None for operation in then):
            await self._until_nothing_drains(until)
        while not self._moved or request_id is not None:  # what was applied before the move is known there
            try:
                return await send(self._old)
            except ReadOnly:
                if self._moved:
                    break
                await self._say_what_was_left(then)
                await self._until_it_changes(until)
        for operation in then:
            if isinstance(operation, Put) and operation.lease in self.old_leases:
                raise refusal.lease_over(operation.lease or "")
        return await send(self._new)

    async def _say_what_was_left(self, then: Sequence[Operation]) -> None:
        """Removing what dies with a lease is giving it up; who moves the store waits for that, so it is said.

        Raises ReadOnly all the same: in the old store the key stands until its lease is over.
        """
        if any(isinstance(operation, Put) for operation in then):
            return
        entries = [(await self._old.get(operation.key)).entry for operation in then]
        found = await self.look()
        if found is None or (move := move_of(found)) is None:
            return
        if any(entry is not None and entry.lease is None for entry in entries):
            return
        for entry in entries:
            if entry is not None:
                await self._new.transact(put(left(move, entry.key), str(entry.revision).encode()))
        raise refusal.frozen(self._old.url, found)

    async def _until_it_changes(self, until: float) -> None:
        """Until the new store is the book, or the old one takes writes again; else ReadOnly at `until`."""
        while (found := await self.look()) is not None:
            if move_of(found) is None or clock.loop_now() + _RETRY_S >= until:
                raise refusal.frozen(self._old.url, found)
            await asyncio.sleep(_RETRY_S)

    async def _until_nothing_drains(self, until: float) -> None:
        """Who takes something waits while a move lets holders finish; ReadOnly at `until`."""
        while not self._moved and (word := (await self._new.get(DRAINING)).entry) is not None:
            if await self.look() is None and self._moved:
                return
            if clock.loop_now() + _RETRY_S >= until:
                raise refusal.frozen(self._old.url, word.value.decode(errors="replace"))
            await asyncio.sleep(_RETRY_S)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. At the move it begins again with a reset, from the new store."""
        if not self._moved:
            async for observation in self.until_moved(self._old.observe(prefix)):
                yield observation
        async for observation in self._new.observe(prefix):
            yield observation

    async def until_moved(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Pass on the old store's items; end when the store has moved."""
        following: asyncio.Future[T] | None = None
        try:
            while True:
                if following is None:
                    following = asyncio.ensure_future(_next(items))
                await asyncio.wait([following], timeout=LOOK_S)
                # The item is passed on before the move is looked for: it was true while the book was open.
                if following.done():
                    done, following = following, None
                    yield done.result()
                if clock.loop_now() - self._looked >= LOOK_S:
                    with suppress(
                        NotSent, OutcomeUnknown, Overloaded
                    ):  # the watch itself says when it is lost
                        await self.look()
                if self._moved:
                    return
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait([following])
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


class FormerlyLeasing:
    """Leases of the store that counts when they are granted; they end with it."""

    def __init__(self, store: FormerlyStore) -> None:
        self._store = store

    def _of(self, lease: str) -> Leasing:
        old = lease in self._store.old_leases or not self._store._moved
        store = self._store._old if old else self._store._new
        assert store.leasing is not None
        return store.leasing

    async def grant(self, ttl_s: float) -> Granted:
        await self._store.look()
        store = self._store.book
        assert store.leasing is not None
        granted = await store.leasing.grant(ttl_s)
        if store is self._store._old:
            self._store.old_leases.add(granted.lease)
        return granted

    async def keep_alive(self, lease: str) -> float:
        return await self._of(lease).keep_alive(lease)

    async def revoke(self, lease: str) -> None:
        await self._of(lease).revoke(lease)
        self._store.old_leases.discard(lease)

    async def remaining(self, lease: str) -> float | None:
        # Whoever only reads has granted nothing, so ask by where the entry stands.
        leasing = self._store.book.leasing
        assert leasing is not None
        return await leasing.remaining(lease)


class FormerlyHistory:
    """The history of the store that counts; a bookmark of before the move is out of date."""

    def __init__(self, store: FormerlyStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        return await self._store._read(_now)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port. EpochChanged at the move."""
        await self._store.look()
        history = self._store.book.history
        assert history is not None
        if self._store._moved:
            async for change in history.changes(prefix, after):
                yield change
        async for change in self._store.until_moved(history.changes(prefix, after)):
            yield change
            after = change.at
        raise EpochChanged(
            f"{self._store.url} was moved after the bookmark {after.epoch}:{after.revision}. Read everything "
            "again and take a new bookmark."
        )


async def _now(store: Store) -> Bookmark:
    assert store.history is not None
    return await store.history.now()


def weaker(one: StoreClaims, other: StoreClaims) -> StoreClaims:
    """What both keep."""
    durables, reaches = list(Durable), list(Reach)
    coalesced = Observing.COALESCED in (one.observe, other.observe)
    return StoreClaims(
        durable=min(one.durable, other.durable, key=durables.index),
        reach=min(one.reach, other.reach, key=reaches.index),
        ttl_min_s=max(one.ttl_min_s, other.ttl_min_s),
        expiry_late_max_s=max(one.expiry_late_max_s, other.expiry_late_max_s),
        never_early=one.never_early and other.never_early,
        key_bytes_max=min(one.key_bytes_max, other.key_bytes_max),
        value_bytes_max=min(one.value_bytes_max, other.value_bytes_max),
        operations_max=min(one.operations_max, other.operations_max),
        dedupe_window_s=min(one.dedupe_window_s, other.dedupe_window_s),
        epoch_source=f"the old store's until the move ({one.epoch_source}), then the new one's",
        observe=Observing.COALESCED if coalesced else Observing.PROMPT,
        liveness_s=max(one.liveness_s, other.liveness_s),
        linearizable=one.linearizable and other.linearizable,
        incarnation=other.incarnation,
        forgets_at_failover=one.forgets_at_failover or other.forgets_at_failover,
        remedy=one.remedy or other.remedy,
    )
