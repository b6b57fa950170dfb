"""Read/write lock: many may read together, one writes alone, everybody in the order of asking.

A reading room. Readers sit together; whoever wants to rearrange the shelves waits until those before him have
left, and those who come after him wait until he is done. So neither keeps the other out for ever.

Promise: while one holds the write lock nobody else holds either; first come first served, so neither readers
nor writers starve; writers' tokens rise; a body that awaits is cancelled when its lease is over.
What can break it: a frozen or stopped process acts late. A writer shows its token by fence or guard; a read
lock carries none, because several hold at once: what reads late must not write.
Proved by: tests/blocks/test_read_write_lock.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Generic, TypeVar

from atoll import clock
from atoll.blocks.holding import Exclusive, Holding, Standing, asking
from atoll.blocks.lock import checked_name, checked_times
from atoll.blocks.ownership import Keys
from atoll.blocks.semaphore import Shared, acquired
from atoll.blocks.sharing import Place, Rule, Ticket, Turn, line, names
from atoll.blocks.taking import check_strength, described, hold, mark, popped, refuse_reentry
from atoll.errors import LockLost
from atoll.ports.observer import Event, LockReleased, LockWasLost
from atoll.ports.store import Store, StoreClaims

KIND = "read_write"


class ReadHeld(Shared):
    """A read lock that is held. It carries no token; see `guard`."""

    kind: ClassVar[str] = KIND


class WriteHeld(Exclusive):
    """The write lock, held. Goes where a `guard` is asked for, as a held Lock does.

    Its token is the revision of its place in line: in this line nobody is overtaken and no place changes
    hands, so places and tokens rise together.
    """

    kind: ClassVar[str] = KIND
    error: ClassVar[type[LockLost]] = LockLost

    def _was_lost(self, reason: str) -> Event:
        return LockWasLost(
            at=clock.wall_now(), name=self.resource, owner=self.owner, token=str(self.token), reason=reason
        )

    def _was_left(self, held_s: float) -> Event:
        return LockReleased(
            at=clock.wall_now(), name=self.resource, owner=self.owner, token=str(self.token), held_s=held_s
        )


@dataclass(frozen=True, slots=True)
class ReadRule:
    """Inside is who has no writer before him; he waits for the last of them."""

    wants: str = "read"
    permits: int = 0
    told: bool = False

    def awaits(self, before: Sequence[Place], me: Ticket) -> Sequence[Place]:
        """His last preceding writer."""
        return [place for place in before if place.ticket.wants == "write"][-1:]

    def taken(self, title: str, before: Sequence[Place]) -> str:
        """The sentence of Taken."""
        writers = [place for place in before if place.ticket.wants == "write"]
        return f"{title} is wanted for writing before us by {names(writers)}"


@dataclass(frozen=True, slots=True)
class WriteRule:
    """Inside is who has nobody before him; he waits for his predecessor."""

    wants: str = "write"
    permits: int = 0
    told: bool = False

    def awaits(self, before: Sequence[Place], me: Ticket) -> Sequence[Place]:
        """His predecessor."""
        return before[-1:]

    def taken(self, title: str, before: Sequence[Place]) -> str:
        """The sentence of Taken."""
        return f"{title} is held or waited for before us by {names(before)}"


HoldingT = TypeVar("HoldingT", bound=Holding)


class Side(Generic[HoldingT]):
    """One side of a read/write lock."""

    def __init__(self, lock: ReadWriteLock, made: type[HoldingT], rule: Rule, wait_s: float | None) -> None:
        self._lock, self._made, self._rule, self._wait_s = lock, made, rule, wait_s
        self._entries: dict[object, list[HoldingT]] = {}

    def __repr__(self) -> str:
        return f"<{self._rule.wants} of {self._lock!r}>"

    async def _enter(self) -> HoldingT:
        lock = self._lock
        who = asking()
        refuse_reentry(lock.store, KIND, lock.name, who)

        def made(won: Standing) -> HoldingT:
            return self._made(lock.name, won)

        began = clock.loop_now()
        held = await hold(made, lock.store, self._turn, self._wait_s)
        token = str(held.token) if isinstance(held, WriteHeld) else ""
        acquired(held, clock.loop_now() - began, token)
        self._entries.setdefault(who, []).append(held)
        mark(held, lock.store, True)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held = popped(self._entries, self._lock.name)
        mark(held, self._lock.store, False)
        await held.close(error)

    def _turn(self, store: Store) -> Turn:
        lock, keys = self._lock, Keys.of(KIND, self._lock.name)

        def suits(claims: StoreClaims) -> None:
            check_strength(store, claims, keys.place("0" * 32), lock.best_effort)

        return Turn(
            store, keys, rule=self._rule, ttl_s=lock.ttl_s, owner=lock.owner or described(), suits=suits
        )


class Reading(Side[ReadHeld]):
    """What `ReadWriteLock.read()` gives, for an `async with`."""

    async def __aenter__(self) -> ReadHeld:
        return await self._enter()


class Writing(Side[WriteHeld]):
    """What `ReadWriteLock.write()` gives, for an `async with`."""

    async def __aenter__(self) -> WriteHeld:
        return await self._enter()


class ReadWriteLock:
    """A read/write lock by name: `async with lock.read()`, `async with lock.write() as held`.

    `ttl_s`: the lease; after a crash its place is free again after at most this. `owner`: how others read who
    holds it. `best_effort`: accept a store that may let a writer in beside others. It is not re-entrant, and
    a reader cannot become a writer: WouldDeadlock.

    Entering raises Taken after `wait_s`, leaving LockLost when the lease ended before; ConfigurationError for
    a store that is too weak.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        ttl_s: float = 15.0,
        best_effort: bool = False,
        owner: str | None = None,
    ) -> None:
        checked_name("read/write lock", name)
        checked_times(ttl_s, None)
        self.store, self.name = store, name
        self.ttl_s, self.best_effort, self.owner = ttl_s, best_effort, owner

    def __repr__(self) -> str:
        return f"<ReadWriteLock {self.name!r} on {self.store!r}>"

    def read(self, *, wait_s: float | None = None) -> Reading:
        """To read, beside other readers. `wait_s`: as of a Lock."""
        checked_times(self.ttl_s, wait_s)
        return Reading(self, ReadHeld, ReadRule(), wait_s)

    def write(self, *, wait_s: float | None = None) -> Writing:
        """To write, alone. `wait_s`: as of a Lock."""
        checked_times(self.ttl_s, wait_s)
        return Writing(self, WriteHeld, WriteRule(), wait_s)

    async def holders(self) -> list[tuple[str, str]]:
        """("read" or "write", owner) of everybody who holds or waits, in the order of the line."""
        places = await line(self.store, Keys.of(KIND, self.name))
        return [(place.ticket.wants, place.ticket.owner) for place in places]
