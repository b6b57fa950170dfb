"""Semaphore: at most so many at a time, in the order of asking.

A cloakroom with three hooks. Three coats hang, the fourth waits until one is taken away; whoever came first
is served first, whatever the others hurry.

Promise: at most `permits` hold in the store at a time; where processes name different numbers, the smallest
of those that hold or wait in front counts; first come first served; a body that awaits is cancelled when its
lease is over.
What can break it: a frozen or stopped process acts late; a permit carries no token, because several hold at
once. `guard=permit.guard` refuses its late writes on the same store, nothing refuses them elsewhere.
Proved by: tests/blocks/test_semaphore.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from atoll import clock
from atoll.blocks.holding import Holding, Standing, asking
from atoll.blocks.lock import checked_name, checked_times
from atoll.blocks.ownership import Keys
from atoll.blocks.sharing import Place, Ticket, Turn, line, names
from atoll.blocks.taking import check_strength, described, hold, popped
from atoll.errors import ConfigurationError, LockLost
from atoll.ports.observer import Event, LockAcquired, LockReleased, LockWasLost, emit
from atoll.ports.store import Store, StoreClaims, Token

_MANY = 1 << 62


@dataclass(frozen=True, slots=True)
class KeyGuard:
    """Makes a transaction happen only while one key of the store is of one life. Made by a holding."""

    holding: Holding
    owner_key: str
    token: Token

    def check(self) -> None:
        self.holding.check()


class Shared(Holding):
    """A holding of which there may be several: it carries no token, only a guard for its own store."""

    error: ClassVar[type[LockLost]] = LockLost

    @property
    def guard(self) -> KeyGuard:
        """For `store.transact(..., guard=permit.guard)`: refused once the permit's key is gone."""
        self._not_forked()
        return KeyGuard(self, self._won.key, self._won.token)

    def _was_lost(self, reason: str) -> Event:
        return LockWasLost(at=clock.wall_now(), name=self.resource, owner=self.owner, token="", reason=reason)

    def _was_left(self, held_s: float) -> Event:
        return LockReleased(
            at=clock.wall_now(), name=self.resource, owner=self.owner, token="", held_s=held_s
        )


def acquired(held: Holding, waited_s: float, token: str = "") -> None:
    """Tell the observers."""
    emit(
        LockAcquired(
            at=clock.wall_now(), name=held.resource, owner=held.owner, token=token, waited_s=waited_s
        )
    )


class Permit(Shared):
    """What `async with Semaphore(...) as permit` gives. It carries no token; see `guard`."""

    kind: ClassVar[str] = "semaphore"


@dataclass(frozen=True, slots=True)
class PermitRule:
    """Inside is who has fewer before him than anybody up to him has permits."""

    permits: int
    wants: str = "permit"
    told: bool = True

    def awaits(self, before: Sequence[Place], me: Ticket) -> Sequence[Place]:
        """The head of the line waits for any who is inside, every other one for his predecessor."""
        if len(before) < _fewest([*(place.ticket for place in before), me]):
            return ()
        head = len(before) == 0 or len(before) - 1 < _fewest([place.ticket for place in before])
        return before if head else before[-1:]

    def taken(self, title: str, before: Sequence[Place]) -> str:
        """The sentence of Taken."""
        inside = min(len(before), _fewest([place.ticket for place in before]), self.permits)
        more = f", {len(before) - inside} before us in line" if len(before) > inside else ""
        return f"all {inside} permits of {title} are out, to {names(before[:inside])}{more}"


def _fewest(tickets: Sequence[Ticket]) -> int:
    return min((ticket.permits for ticket in tickets if ticket.permits > 0), default=_MANY)


class Semaphore:
    """At most `permits` holders by name at a time, for an `async with`; it may be entered by many tasks.

    `ttl_s`: the lease; after a crash the permit is free again after at most this. `wait_s`: how long to wait
    in line, then Taken; 0: do not wait; None: as long as the deadline in force allows. `owner`: how others
    read who holds it. `best_effort`: accept a store that may give out more. A task may hold several permits.

    Raises Taken, LockLost when the lease ended before the block was left, ConfigurationError for a store
    that is too weak.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        permits: int,
        ttl_s: float = 15.0,
        wait_s: float | None = None,
        best_effort: bool = False,
        owner: str | None = None,
    ) -> None:
        checked_name("semaphore", name)
        checked_times(ttl_s, wait_s)
        if permits < 1:
            raise ConfigurationError(f"found permits={permits}; expected 1 or more.")
        self.store, self.name, self.permits = store, name, permits
        self.ttl_s, self.wait_s, self.best_effort, self.owner = ttl_s, wait_s, best_effort, owner
        self._entries: dict[object, list[Permit]] = {}

    def __repr__(self) -> str:
        return f"<Semaphore {self.name!r} of {self.permits} on {self.store!r}>"

    async def __aenter__(self) -> Permit:
        def made(won: Standing) -> Permit:
            return Permit(self.name, won)

        began = clock.loop_now()
        permit = await hold(made, self.store, self._turn, self.wait_s)
        acquired(permit, clock.loop_now() - began)
        self._entries.setdefault(asking(), []).append(permit)
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await popped(self._entries, self.name).close(error)

    async def holders(self) -> list[str]:
        """Who holds a permit, and then who waits, in the order of the line. Reads only."""
        return [place.ticket.owner for place in await line(self.store, Keys.of(Permit.kind, self.name))]

    def _turn(self, store: Store) -> Turn:
        keys = Keys.of(Permit.kind, self.name)

        def suits(claims: StoreClaims) -> None:
            check_strength(store, claims, keys.place("0" * 32), self.best_effort)

        return Turn(
            store,
            keys,
            rule=PermitRule(self.permits),
            ttl_s=self.ttl_s,
            owner=self.owner or described(),
            suits=suits,
        )
