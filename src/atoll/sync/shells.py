"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple

from atoll.blocks.election import Election as AsyncElection
from atoll.blocks.election import Term as AsyncTerm
from atoll.blocks.lock import Held as AsyncHeld
from atoll.blocks.lock import Holder
from atoll.blocks.lock import Lock as AsyncLock
from atoll.blocks.outbox import Outbox as AsyncOutbox
from atoll.blocks.queue import Queue as AsyncQueue
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
