"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar, TypeVarTuple

from atoll.blocks.read_write_lock import ReadHeld as AsyncReadHeld
from atoll.blocks.read_write_lock import Reading as AsyncReading
from atoll.blocks.read_write_lock import ReadWriteLock as AsyncReadWriteLock
from atoll.blocks.read_write_lock import WriteHeld as AsyncWriteHeld
from atoll.blocks.read_write_lock import Writing as AsyncWriting
from atoll.blocks.semaphore import KeyGuard
from atoll.blocks.semaphore import Permit as AsyncPermit
from atoll.blocks.semaphore import Semaphore as AsyncSemaphore
from atoll.ports.store import Token
from atoll.sync import portal
from atoll.sync.handles import Store

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Semaphore:
    """At most `permits` holders by name at a time, for an `async with`; it may be entered by many tasks."""

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
        self._inner = AsyncSemaphore(
            portal.inner(store),
            name,
            permits=permits,
            ttl_s=ttl_s,
            wait_s=wait_s,
            best_effort=best_effort,
            owner=owner,
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Permit:
        return Permit(portal.enter(self._inner))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    def holders(self) -> list[str]:
        """Who holds a permit, and then who waits, in the order of the line. Reads only."""
        return portal.run(self._inner.holders())


class Permit:
    """What `async with Semaphore(...) as permit` gives. It carries no token; see `guard`."""

    def __init__(self, inner: AsyncPermit) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._inner.name

    @property
    def owner(self) -> str:
        """How the holder describes itself to others."""
        return self._inner.owner

    @property
    def resource(self) -> str:
        """The name under which databases note who holds it."""
        return self._inner.resource

    @property
    def deadline(self) -> float:
        """Until when it is certainly ours, by the lease clock; moves on with each renewal."""
        return self._inner.deadline

    @property
    def lost(self) -> bool:
        """Whether the lease ended before the block was left."""
        return self._inner.lost

    def check(self) -> None:
        """Raise LockLost (a term: LeaderLost) when the lease is over. No round trip; any thread may ask."""
        self._inner.check()

    @property
    def title(self) -> str:
        """How sentences call it."""
        return self._inner.title

    @property
    def guard(self) -> KeyGuard:
        """For `store.transact(..., guard=permit.guard)`: refused once the permit's key is gone."""
        return self._inner.guard


class ReadWriteLock:
    """A read/write lock by name: `async with lock.read()`, `async with lock.write() as held`."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        ttl_s: float = 15.0,
        best_effort: bool = False,
        owner: str | None = None,
    ) -> None:
        self._inner = AsyncReadWriteLock(
            portal.inner(store), name, ttl_s=ttl_s, best_effort=best_effort, owner=owner
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def read(self, *, wait_s: float | None = None) -> Reading:
        """To read, beside other readers. `wait_s`: as of a Lock."""
        return Reading(self._inner.read(wait_s=wait_s))

    def write(self, *, wait_s: float | None = None) -> Writing:
        """To write, alone. `wait_s`: as of a Lock."""
        return Writing(self._inner.write(wait_s=wait_s))

    def holders(self) -> list[tuple[str, str]]:
        """("read" or "write", owner) of everybody who holds or waits, in the order of the line."""
        return portal.run(self._inner.holders())


class Reading:
    """What `ReadWriteLock.read()` gives, for an `async with`."""

    def __init__(self, inner: AsyncReading) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> ReadHeld:
        return ReadHeld(portal.enter(self._inner))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)


class Writing:
    """What `ReadWriteLock.write()` gives, for an `async with`."""

    def __init__(self, inner: AsyncWriting) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> WriteHeld:
        return WriteHeld(portal.enter(self._inner))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)


class ReadHeld:
    """A read lock that is held. It carries no token; see `guard`."""

    def __init__(self, inner: AsyncReadHeld) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._inner.name

    @property
    def owner(self) -> str:
        """How the holder describes itself to others."""
        return self._inner.owner

    @property
    def resource(self) -> str:
        """The name under which databases note who holds it."""
        return self._inner.resource

    @property
    def deadline(self) -> float:
        """Until when it is certainly ours, by the lease clock; moves on with each renewal."""
        return self._inner.deadline

    @property
    def lost(self) -> bool:
        """Whether the lease ended before the block was left."""
        return self._inner.lost

    def check(self) -> None:
        """Raise LockLost (a term: LeaderLost) when the lease is over. No round trip; any thread may ask."""
        self._inner.check()

    @property
    def title(self) -> str:
        """How sentences call it."""
        return self._inner.title

    @property
    def guard(self) -> KeyGuard:
        """For `store.transact(..., guard=permit.guard)`: refused once the permit's key is gone."""
        return self._inner.guard


class WriteHeld:
    """The write lock, held. Goes where a `guard` is asked for, as a held Lock does."""

    def __init__(self, inner: AsyncWriteHeld) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._inner.name

    @property
    def owner(self) -> str:
        """How the holder describes itself to others."""
        return self._inner.owner

    @property
    def resource(self) -> str:
        """The name under which databases note who holds it."""
        return self._inner.resource

    @property
    def deadline(self) -> float:
        """Until when it is certainly ours, by the lease clock; moves on with each renewal."""
        return self._inner.deadline

    @property
    def lost(self) -> bool:
        """Whether the lease ended before the block was left."""
        return self._inner.lost

    def check(self) -> None:
        """Raise LockLost (a term: LeaderLost) when the lease is over. No round trip; any thread may ask."""
        self._inner.check()

    @property
    def title(self) -> str:
        """How sentences call it."""
        return self._inner.title

    @property
    def token(self) -> Token:
        """Proof of when this ownership began; a later owner's is greater."""
        return self._inner.token

    @property
    def owner_key(self) -> str:
        """The key whose revision is the token's revision while this is held."""
        return self._inner.owner_key

    def fence(self, tx: object) -> None:
        """Let the database of this open transaction refuse every older holder from now on."""
        portal.here(self._inner.fence(tx))
