"""Breaking: an operator takes a lock away from who cannot give it back.

The caretaker opens a room whose guest has vanished. He writes it into the book, changes the lock, and lets
the next guest in when the rent of the last one has certainly run out; in an emergency at once, on his own
head.

Promise: from this moment guards refuse the old holder; its body is stopped at its next renewal; the next one
in line owns it when the old holder can no longer believe in it, unless `now`; who, when and why stands in the
store.
What can break it: `now` on a holder that still lives: until it hears of it, both believe to hold, and only
guard and fence stand between them.
Proved by: tests/blocks/test_lock_break.py
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from atoll import clock
from atoll.blocks.lock import checked_name
from atoll.blocks.notice import NOTICES_MAX, Notice, Posted, notice_key, notices
from atoll.blocks.ownership import Keys, Owner, read_owner
from atoll.blocks.session import again, leasing_of
from atoll.errors import AtollError, ConfigurationError, Conflict, NotReady
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Granted, Operation, Store, absent, delete, put, unchanged

log = logging.getLogger("atoll.lock")

UNKNOWN_TTL_S = 60.0
"""What is waited out where neither the holder nor the store says how long its lease is."""
_ATTEMPTS = 10


async def break_lock(
    store: Store, name: str, *, by: str, reason: str = "", now: bool = False, kind: str = "lock"
) -> Notice:
    """Take the lock `name` away from its holder (kind "election": the term from its leader).

    The holder's guarded writes are refused from now on. The next in line gets it after `free_in_s` of the
    answer, when the holder's lease is certainly over; with `now` at once. `by` and `reason` are kept in the
    store, see `breaks`. Raises NotReady when nobody holds it, Conflict when it was broken already and is
    waiting its time out (`now` ends that), ConfigurationError without `by`.
    """
    checked_name(kind, name)
    if not by:
        raise ConfigurationError("found no name of who breaks the lock; expected by='ann', for the record.")
    shadow = store.shadow
    for one in [store] if shadow is None else [shadow, store]:
        try:
            broken = await _Breaking(one, Keys.of(kind, name), kind, by, reason).done(now)
        except NotReady:
            if one is store:
                raise
    log.warning("%s was taken away from %s by %s: %s", name, broken.owner, by, reason or "no reason given")
    return broken


async def breaks(store: Store) -> list[Notice]:
    """What was broken, the oldest first; the last `NOTICES_MAX` are kept."""
    return [posted.notice for posted in await again(lambda: notices(store))]


class _Breaking:
    """One breaking, tried until it is known to have happened once."""

    def __init__(self, store: Store, keys: Keys, *words: Any) -> None:
        self._store, self._keys = store, keys
        self._kind, self._by, self._reason = words
        self._nonce = clock.unique_id()

    async def done(self, now: bool) -> Notice:
        key = self._keys.owner
        for _ in range(_ATTEMPTS):
            entry = (await again(lambda: self._store.get(key))).entry
            if entry is None:
                raise NotReady(f"nobody holds {self._keys.name}, so nothing was broken.")
            holder = read_owner(entry)
            if holder.broken and not now:
                raise Conflict(
                    f"{self._keys.name} is {holder.owner}; the next one has it when that lease is over. "
                    "Wait, or break it with --now (now=True)."
                )
            if (notice := await self._try(entry, holder, now)) is not None:
                return notice
        raise Conflict(f"{self._keys.name} changed hands {_ATTEMPTS} times meanwhile. Ask again.")

    async def _try(self, entry: Entry, holder: Owner, now: bool) -> Notice | None:
        """One transaction: the mark over the owner's key, or nothing there; and the notice."""
        granted = None if now else await self._mark_for(await self._belief_s(entry, holder))
        posted = await again(lambda: notices(self._store))
        number = posted[-1].number + 1 if posted else 1
        notice = Notice(
            kind=self._kind,
            name=self._keys.name,
            key=entry.key,
            revision=entry.revision,
            owner=holder.owner,
            by=self._by,
            reason=self._reason,
            at=round(clock.wall_now(), 3),
            now=now,
            free_in_s=granted.ttl_s if granted is not None else 0.0,
            nonce=self._nonce,
        )
        then = [self._over(entry, holder, granted), put(notice_key(number), msgspec.json.encode(notice))]
        then += _pruned(posted)
        compare = [unchanged(entry.key, entry.revision), absent(notice_key(number))]

        async def once() -> Applied | Unmet:
            return await self._store.transact(*then, compare=compare)

        answer = await again(once)
        if isinstance(answer, Applied):
            return notice
        there = answer.entries.get(notice_key(number))
        if there is not None and msgspec.json.decode(there.value, type=Notice).nonce == self._nonce:
            return notice  # it was applied before, and the answer was lost
        if granted is not None:
            await self._store_revoke(granted.lease)
        return None

    def _over(self, entry: Entry, holder: Owner, granted: Granted | None) -> Operation:
        if granted is None:
            return delete(entry.key)
        mark = Owner(
            owner=f"broken by {self._by}, was {holder.owner}",
            since=round(clock.wall_now(), 3),
            nonce=self._nonce,
            ttl_s=granted.ttl_s,
            broken=True,
        )
        return put(entry.key, msgspec.json.encode(mark), lease=granted.lease)

    async def _belief_s(self, entry: Entry, holder: Owner) -> float:
        """How long from now the holder may believe in it: its deadline counts from a renewal it has sent."""
        if holder.ttl_s > 0:
            return holder.ttl_s
        leasing, lease = leasing_of(self._store), entry.lease
        left_s = await again(lambda: leasing.remaining(lease)) if lease is not None else None
        return max(UNKNOWN_TTL_S, left_s or 0.0)

    async def _mark_for(self, seconds: float) -> Granted:
        """A lease of at least so long, which nobody renews."""
        leasing, wish_s = leasing_of(self._store), seconds
        for _ in range(3):
            granted = await again(lambda wish_s=wish_s: leasing.grant(wish_s))  # type: ignore[misc]
            if granted.ttl_s >= seconds:
                return granted
            await self._store_revoke(granted.lease)
            wish_s *= 1.01 * seconds / granted.ttl_s
        raise ConfigurationError(
            f"{self._store!r} grants no lease of {seconds:.3g} s, so the holder's time cannot be waited out. "
            "Break it with --now (now=True), or wait for its lease."
        )

    async def _store_revoke(self, lease: str) -> None:
        try:
            await leasing_of(self._store).revoke(lease)
        except AtollError as error:
            log.debug("the lease of a mark not revoked, it ends by itself: %r", error)


def _pruned(posted: list[Posted]) -> list[Operation]:
    """The oldest notice, when there are too many."""
    return [delete(notice_key(posted[0].number))] if len(posted) >= NOTICES_MAX else []
