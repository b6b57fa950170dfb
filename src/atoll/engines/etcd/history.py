"""History: who watches, and what they are told: the present state, then every transaction, whole.

A reader of the council's minutes. They begin with the state of things, read on line by line, and when pages
have been burnt meanwhile an observer begins anew, while one who must miss nothing is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from atoll import clock
from atoll.engines.etcd import transaction, wire
from atoll.engines.etcd.client import AGAIN_S, AnotherCluster
from atoll.engines.etcd.watch import Gap, News, Subscriber
from atoll.errors import Compacted, EpochChanged, NotSent, OutcomeUnknown, Overloaded, WatchLost
from atoll.ports.register import Entry, Observation
from atoll.ports.store import Bookmark, Change

if TYPE_CHECKING:
    from atoll.engines.etcd.attachment import Attachment
    from atoll.engines.etcd.keys import Keys
    from atoll.engines.etcd.store import EtcdStore

PAGE = 5000
"""Entries of a snapshot that are asked for at once."""


async def observed(store: EtcdStore, prefix: str) -> AsyncIterator[Observation]:
    """The state below `prefix`, then one observation for each transaction that touches it."""
    await store.attached()
    life = store.life
    while True:
        try:
            at, entries, revision = await _snapshot(store, prefix, life)
        except AnotherCluster:
            await _reattach(store, await store.attached())
            continue
        low, high = store.keys.span(prefix)
        doubt = at.doubt
        subscriber = at.watcher.subscribe(low, high, revision)
        try:
            yield Observation(True, entries, (), revision)
            while True:
                for number, events in await _next(store, at, subscriber, prefix, life):
                    changed, removed = told(events, store.keys)
                    yield Observation(False, changed, removed, number)
                if at.client.closed or at.doubt != doubt:
                    break  # it may have gone back in time: the whole state anew
        except Gap:
            await _reattach(store, at)
        finally:
            subscriber.leave()


async def _reattach(store: EtcdStore, at: Attachment) -> None:
    if at.client.stranger:
        await store.drop(at)


async def _snapshot(store: EtcdStore, prefix: str, life: int) -> tuple[Attachment, tuple[Entry, ...], int]:
    """All entries below `prefix` as of one revision; asked for until `liveness_s` is over."""
    until = clock.loop_now() + store.options.liveness_s
    while True:
        _living(store, life, prefix)
        try:
            at = await store.attached()
            return at, *await _all(store, at, prefix)
        except (NotSent, OutcomeUnknown, Overloaded) as error:
            if clock.loop_now() > until:
                raise _lost(store, prefix, str(error)) from error
            await asyncio.sleep(AGAIN_S)


async def _all(store: EtcdStore, at: Attachment, prefix: str) -> tuple[tuple[Entry, ...], int]:
    low, high = store.keys.span(prefix)
    entries: list[Entry] = []
    revision = 0
    while True:
        data = wire.message("RangeRequest", key=low, range_end=high, limit=PAGE, revision=revision)
        answer = await at.client.read("Range", data, "a snapshot")
        revision = revision or answer.header.revision
        entries += (transaction.entry(one, store.keys) for one in answer.kvs)
        if not answer.more:
            return tuple(entries), revision
        low = answer.kvs[-1].key + b"\0"


async def _next(
    store: EtcdStore, at: Attachment, subscriber: Subscriber, prefix: str, life: int
) -> list[News]:
    """News, or nothing after a while; WatchLost when the handle was closed or no stream says anything."""
    _living(store, life, prefix)
    news = await subscriber.news(store.options.liveness_s / 4)
    _living(store, life, prefix)
    silent = clock.loop_now() - at.watcher.heard
    if not news and silent > store.options.liveness_s:
        raise _lost(store, prefix, f"no member has said anything for {silent:.1f} s.")
    return news


def _living(store: EtcdStore, life: int, prefix: str) -> None:
    if store.life != life:
        raise WatchLost(f"{store.url} was closed while {prefix!r} was watched. Watch it again.")


def _lost(store: EtcdStore, prefix: str, why: str) -> WatchLost:
    return WatchLost(
        f"{store.url} has not answered a watch of {prefix!r} for {store.options.liveness_s:g} s: {why} "
        f"Watch it again."
    )


def told(events: list[Any], keys: Keys) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """What the events of one transaction changed and removed."""
    changed = tuple(transaction.entry(one.kv, keys) for one in events if one.type == wire.PUT)
    removed = tuple(keys.outside(one.kv.key) for one in events if one.type == wire.DELETED)
    return changed, removed


class EtcdHistory:
    """Every transaction since the last compaction, which the servers' operator decides on."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    async def now(self) -> Bookmark:
        async def question(at: Attachment) -> Bookmark:
            header = await at.fresh("the question for a bookmark")
            return Bookmark(at.card.epoch, header.revision)

        return await self._store.asked(question)

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """See the port. There are no bookmarks between changes: etcd below 3.4.25 tells them too early."""
        store = self._store
        at = await store.attached()
        life = store.life
        newest = await self.now()
        if after.epoch != newest.epoch or after.revision > newest.revision:
            raise _another_epoch(after, newest)
        low, high = store.keys.span(prefix)
        subscriber = at.watcher.subscribe(low, high, after.revision)
        try:
            while True:
                news = await _next(store, at, subscriber, prefix, life)
                if at.client.closed or at.doubt is not None:
                    raise Gap(at.doubt or "another cluster has taken its place")
                if at.card.epoch != after.epoch:
                    raise _another_epoch(after, Bookmark(at.card.epoch, at.card.revision))
                for number, events in news:
                    yield Change(Bookmark(after.epoch, number), *told(events, store.keys))
        except Gap as gap:
            if gap.compacted:
                raise Compacted(
                    f"found a bookmark at revision {after.revision}; the servers have compacted everything "
                    f"up to "
                    f"{gap.compacted}. Read everything again and take a new bookmark, or have them compact "
                    f"less "
                    "(--auto-compaction-retention).",
                    oldest=gap.compacted + 1,
                ) from None
            if at.client.stranger or at.doubt is not None:
                raise EpochChanged(
                    f"{store.url}: {gap}. Read everything again and take a new bookmark."
                ) from None
            raise WatchLost(f"{store.url}: {gap}. Go on from the last bookmark.") from None
        finally:
            subscriber.leave()


def _another_epoch(after: Bookmark, newest: Bookmark) -> EpochChanged:
    return EpochChanged(
        f"found the bookmark {after.epoch}:{after.revision}; the store is at "
        f"{newest.epoch}:{newest.revision}: it was "
        "restored, moved or bumped. Read everything again and take a new bookmark."
    )
