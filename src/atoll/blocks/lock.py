"""Lock: one holder at a time, in the order of asking, with a token that proves who is newest.

A key on a hook, with a number stamped on it at every taking. A lock alone cannot stop a holder that was
frozen and wakes too late; so show the number where it matters: `held.fence(db)` in a SQL transaction,
`guard=held` on the store. Whoever comes with an older number is refused.

Promise: one holder in the store at a time, first come first served; tokens rise from holder to holder;
a body that awaits is cancelled when its lease is over, every other meets LockLost at the end of the block.
What can break it: without fence or guard, a frozen or stopped process acts late.
Proved by: atoll verify --workload lock
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from atoll import clock
from atoll.blocks.holding import Exclusive, asking
from atoll.blocks.ownership import Keys, look, read_owner
from atoll.blocks.taking import held_by, mark, own, popped, refuse_reentry
from atoll.errors import ConfigurationError, LockLost
from atoll.ports.observer import Event, LockAcquired, LockReleased, LockWasLost, emit
from atoll.ports.store import Store, Token

log = logging.getLogger("atoll.lock")


class Held(Exclusive):
    """A held lock: what `async with Lock(...) as held` gives. Goes where a `guard` is asked for."""

    kind: ClassVar[str] = "lock"
    error: ClassVar[type[LockLost]] = LockLost
    _depth = 1  # how often it is entered

    def _was_lost(self, reason: str) -> Event:
        return LockWasLost(
            at=clock.wall_now(), name=self.name, owner=self.owner, token=str(self.token), reason=reason
        )

    def _was_left(self, held_s: float) -> Event:
        return LockReleased(
            at=clock.wall_now(), name=self.name, owner=self.owner, token=str(self.token), held_s=held_s
        )


class Lock:
    """An exclusive lock by name, for an `async with`; it may be entered again and again, by many tasks.

    `ttl_s`: the lease; after a crash the lock is free again after at most this. `wait_s`: how long to
    wait in line, then Taken; 0: do not wait; None: as long as the deadline in force allows. `owner`: how
    others read who holds it; by default the instance or host, and the pid. `reentrant`: the same task (sync:
    the same thread) may enter again what it holds, by any Lock object on the same store and name; it is
    given up when it was left as often. `best_effort`: accept a store that may give it to two.

    Raises Taken, LockLost when the lease ended before the block was left, WouldDeadlock for a caller that
    holds it already, ConfigurationError for a store that is too weak.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        ttl_s: float = 15.0,
        wait_s: float | None = None,
        reentrant: bool = False,
        best_effort: bool = False,
        owner: str | None = None,
    ) -> None:
        checked_name("lock", name)
        checked_times(ttl_s, wait_s)
        self.store, self.name = store, name
        self.ttl_s, self.wait_s, self.best_effort, self.owner = ttl_s, wait_s, best_effort, owner
        self.reentrant = reentrant
        self._entries: dict[object, list[Held]] = {}

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} on {self.store!r}>"

    async def __aenter__(self) -> Held:
        who = asking()
        mine = held_by(self.store, Held.kind, self.name, who) if self.reentrant else None
        if isinstance(mine, Held):
            mine.check()
            mine._depth += 1
            self._entries.setdefault(who, []).append(mine)
            return mine
        refuse_reentry(self.store, Held.kind, self.name, who)
        began = clock.loop_now()
        held = await own(
            Held,
            self.store,
            self.name,
            ttl_s=self.ttl_s,
            wait_s=self.wait_s,
            owner=self.owner,
            best_effort=self.best_effort,
        )
        self._entries.setdefault(who, []).append(held)
        mark(held, self.store, True)
        waited_s = clock.loop_now() - began
        log.debug("%s was taken by %s, token %s, after %.3g s", self.name, held.owner, held.token, waited_s)
        emit(
            LockAcquired(
                at=clock.wall_now(),
                name=self.name,
                owner=held.owner,
                token=str(held.token),
                waited_s=waited_s,
            )
        )
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held = popped(self._entries, self.name)
        held._depth -= 1
        if held._depth:
            if error is None and held.lost:
                held.check()
            return
        mark(held, self.store, False)
        await held.close(error)


def checked_name(kind: str, name: str) -> None:
    """A name is some text; everything in it is allowed."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"found {name!r} as the name of a {kind}; expected a text such as 'order/81'."
        )


def checked_times(ttl_s: float, wait_s: float | None) -> None:
    """A lease lasts a while; nobody waits a negative time."""
    if not 0 < ttl_s < math.inf:
        raise ConfigurationError(f"found ttl_s={ttl_s}; expected seconds greater than 0, 15 is usual.")
    if wait_s is not None and not wait_s >= 0:
        raise ConfigurationError(f"found wait_s={wait_s}; expected 0 or more seconds, or None to wait on.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a name and who waits for it, as of one look.

    `owner` None: it is being handed over. `since`: wall clock, Unix seconds. `lease_left_s`: None where
    the store does not tell. `first_waiting`: the next in line, in line since `first_since`.
    """

    name: str
    owner: str | None
    token: Token | None
    since: float | None
    lease_left_s: float | None
    waiting: int
    first_waiting: str | None
    first_since: float | None


async def holders(store: Store, kind: str = "lock") -> list[Holder]:
    """Every lock (kind "election": every election) that is held or waited for, by name. Reads only."""
    epoch = await store.epoch()
    found: list[Holder] = []
    start, end = f"{kind}/", f"{kind}0"
    while True:
        page = await store.range(start=start, end=end, limit=1)
        if not page.entries:
            return found
        prefix = "/".join(page.entries[0].key.split("/")[:2]) + "/"
        keys = Keys(prefix)
        view = await look(store, keys)
        if view.owner is not None or view.queue:
            owner = read_owner(view.owner) if view.owner else None
            first = read_owner(view.queue[0]) if view.queue else None
            found.append(
                Holder(
                    name=keys.name,
                    owner=owner.owner if owner else None,
                    token=Token(epoch, view.owner.revision) if view.owner else None,
                    since=known(owner.since) if owner else None,
                    lease_left_s=None,
                    waiting=len(view.queue),
                    first_waiting=first.owner if first else None,
                    first_since=known(first.since) if first else None,
                )
            )
        start = prefix[:-1] + "0"


def known(seconds: float) -> float | None:
    """None for a time that was not readable."""
    return None if math.isnan(seconds) else seconds
