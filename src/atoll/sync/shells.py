"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple

from atoll.blocks.barrier import Barrier as AsyncBarrier
from atoll.blocks.barrier import DoubleBarrier as AsyncDoubleBarrier
from atoll.blocks.config import Config as AsyncConfig
from atoll.blocks.config import Version
from atoll.blocks.counter import Counter as AsyncCounter
from atoll.blocks.election import Election as AsyncElection
from atoll.blocks.election import Term as AsyncTerm
from atoll.blocks.latch import Latch as AsyncLatch
from atoll.blocks.lock import Held as AsyncHeld
from atoll.blocks.lock import Holder
from atoll.blocks.lock import Lock as AsyncLock
from atoll.blocks.membership import Group as AsyncGroup
from atoll.blocks.membership import Member
from atoll.blocks.membership import Membership as AsyncMembership
from atoll.blocks.outbox import Outbox as AsyncOutbox
from atoll.blocks.queue import Queue as AsyncQueue
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
from atoll.sync.handles import Broker, Database, Store

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Held:
    """A held lock: what `async with Lock(...) as held` gives. Goes where a `guard` is asked for."""

    def __init__(self, inner: AsyncHeld) -> None:
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


class Term:
    """A term of office: what the leader's function is given. Goes where a `guard` is asked for."""

    def __init__(self, inner: AsyncTerm) -> None:
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

    def resign(self) -> None:
        """Step down; whoever is first in line leads next."""
        portal.run(self._inner.resign())

    def hand_over(self, candidate: str) -> None:
        """Step down as by `resign`, in favour of who waits in line under this owner's name."""
        portal.run(self._inner.hand_over(candidate))


class Lock:
    """An exclusive lock by name, for an `async with`; it may be entered again and again, by many tasks."""

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
        self._inner = AsyncLock(
            portal.inner(store),
            name,
            ttl_s=ttl_s,
            wait_s=wait_s,
            reentrant=reentrant,
            best_effort=best_effort,
            owner=owner,
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Held:
        return Held(portal.enter(self._inner))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)


class Election:
    """Chooses a leader by name among all processes that campaign on one store."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        ttl_s: float = 15.0,
        best_effort: bool = False,
        owner: str | None = None,
    ) -> None:
        self._inner = AsyncElection(
            portal.inner(store), name, ttl_s=ttl_s, best_effort=best_effort, owner=owner
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def lead(self, function: Callable[[Term, *Arguments], AnswerT], *arguments: *Arguments) -> AnswerT:
        """Campaign for ever; while leading run `function(term, *arguments)` in a thread; answer its answer.

        A thread cannot be stopped: the function asks `term.check()`, and a next term waits for its end.
        """
        return portal.run(self._inner.lead(portal.in_thread(function, Term), *arguments))

    def leader(self) -> Holder | None:
        """Who leads now and who waits to; None if nobody does either. One read."""
        return portal.run(self._inner.leader())

    def watch(self) -> Iterator[Holder | None]:
        """Who leads, now and at each change; None while nobody does. Observers need not campaign."""
        return portal.iterate(self._inner.watch())


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


class Barrier:
    """A barrier by name, passed again and again: `await Barrier(state, "x", parties=3).wait()`."""

    def __init__(
        self, store: Store, name: str, *, parties: int, ttl_s: float = 15.0, owner: str | None = None
    ) -> None:
        self._inner = AsyncBarrier(portal.inner(store), name, parties=parties, ttl_s=ttl_s, owner=owner)

    def __repr__(self) -> str:
        return repr(self._inner)

    def wait(self, wait_s: float | None = None) -> int:
        """Until `parties` have come; answers the generation passed, 0 for the first."""
        return portal.run(self._inner.wait(wait_s))


class DoubleBarrier:
    """All begin together and all have ended before one goes on: `async with DoubleBarrier(...):`."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        parties: int,
        ttl_s: float = 15.0,
        wait_s: float | None = None,
        owner: str | None = None,
    ) -> None:
        self._inner = AsyncDoubleBarrier(
            portal.inner(store), name, parties=parties, ttl_s=ttl_s, wait_s=wait_s, owner=owner
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> int:
        return portal.enter(self._inner)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)


class Latch:
    """A latch by name. All who name it must mean the same `count`: else ConfigurationError."""

    def __init__(self, store: Store, name: str, *, count: int) -> None:
        self._inner = AsyncLatch(portal.inner(store), name, count=count)

    def __repr__(self) -> str:
        return repr(self._inner)

    def count_down(self, number: int = 1) -> int:
        """Count, and answer how many are left; an open latch stays at 0."""
        return portal.run(self._inner.count_down(number))

    def left(self) -> int:
        """How many are missing; 0: it is open."""
        return portal.run(self._inner.left())

    def wait(self, wait_s: float | None = None) -> None:
        """Until it is open, at most `wait_s` and the deadline in force; then NotReady. 0: only look."""
        portal.run(self._inner.wait(wait_s))

    def reset(self) -> None:
        """Close it again, with nothing counted."""
        portal.run(self._inner.reset())


class Counter:
    """A whole number by name, which starts at 0. Any process may add to it."""

    def __init__(self, store: Store, name: str) -> None:
        self._inner = AsyncCounter(portal.inner(store), name)

    def __repr__(self) -> str:
        return repr(self._inner)

    def add(self, number: int = 1) -> int:
        """Add it, and answer the number after that. One read and one write while nobody else writes."""
        return portal.run(self._inner.add(number))

    def get(self) -> int:
        """The number now."""
        return portal.run(self._inner.get())

    def watch(self) -> Iterator[int]:
        """The number, now and when it has changed; quick changes are told together."""
        return portal.iterate(self._inner.watch())


class Group:
    """A group by name: join it, list it, watch it."""

    def __init__(self, store: Store, name: str, *, ttl_s: float = 15.0) -> None:
        self._inner = AsyncGroup(portal.inner(store), name, ttl_s=ttl_s)

    def __repr__(self) -> str:
        return repr(self._inner)

    def join(self, name: str | None = None, *, about: str = "") -> Membership:
        """Be a member for the length of an `async with`."""
        return Membership(self._inner.join(name, about=about))

    def members(self) -> list[Member]:
        """Who is here, the longest first."""
        return portal.run(self._inner.members())

    def watch(self) -> Iterator[list[Member]]:
        """Who is here, now and whenever that has changed."""
        return portal.iterate(self._inner.watch())


class Membership:
    """Being a member, for one `async with`; made by `Group.join`."""

    def __init__(self, inner: AsyncMembership) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Membership:
        return Membership(portal.enter(self._inner))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    @property
    def name(self) -> str:
        """The name it joined with."""
        return self._inner.name

    @property
    def present(self) -> bool:
        """Whether its lease is certainly standing; False while it is cut off, and joins again."""
        return self._inner.present


class Config(Generic[T]):
    """A setting by name, of one type: msgspec, dataclass, pydantic or builtins."""

    def __init__(
        self, store: Store, name: str, kind: type[T], *, default: T | None = None, versions_max: int = 20
    ) -> None:
        self._inner = AsyncConfig(portal.inner(store), name, kind, default=default, versions_max=versions_max)

    def __repr__(self) -> str:
        return repr(self._inner)

    def get(self) -> T:
        """The value in force. NotReady if nothing was ever set and there is no default."""
        return portal.run(self._inner.get())

    def version(self) -> Version[T] | None:
        """The version in force; None if nothing was ever set."""
        return portal.run(self._inner.version())

    def history(self) -> list[Version[T]]:
        """The versions that are kept, the oldest first."""
        return portal.run(self._inner.history())

    def set(self, value: T, *, expected: int | None = None, by: str | None = None) -> int:
        """Put it in force everywhere; answers the new version's number."""
        return portal.run(self._inner.set(value, expected=expected, by=by))

    def roll_back(self, version: int, *, expected: int | None = None, by: str | None = None) -> int:
        """Put the value of an old version in force, as a new version; answers its number."""
        return portal.run(self._inner.roll_back(version, expected=expected, by=by))

    def watch(self) -> Iterator[T]:
        """The value in force, now and at each change; begins with the default while nothing was set."""
        return portal.iterate(self._inner.watch())


class Queue(Generic[T]):
    """Messages of one type under one name on a broker."""

    def __init__(self, broker: Broker, name: str, message: type[T]) -> None:
        self._inner = AsyncQueue(portal.inner(broker), name, message)

    def __repr__(self) -> str:
        return repr(self._inner)

    def put(
        self,
        message: T,
        *,
        id: str | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Durable when it returns; answers the message's id."""
        return portal.run(self._inner.put(message, id=id, key=key, delay_s=delay_s, headers=headers))

    def put_many(self, messages: Sequence[T]) -> list[str]:
        """All of them or none, in one write; answers their ids."""
        return portal.run(self._inner.put_many(messages))


class Outbox:
    """Stages messages in transactions of `database`, and carries them to their queues."""

    def __init__(self, database: Database, *, idle_s_max: float = 0.25) -> None:
        self._inner = AsyncOutbox(portal.inner(database), idle_s_max=idle_s_max)

    def __repr__(self) -> str:
        return repr(self._inner)

    def put(
        self,
        tx: Any,
        queue: Queue[T],
        message: T,
        *,
        id: str | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Stage in the open transaction `tx`; answers the message's id. Commits nothing."""
        return portal.here(
            self._inner.put(
                tx, portal.inner(queue), message, id=id, key=key, delay_s=delay_s, headers=headers
            )
        )
