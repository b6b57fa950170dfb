"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from atoll.ports.broker import Accepted, BrokerClaims, Message, Settled, Taken
from atoll.ports.broker import Broker as AsyncBroker
from atoll.ports.joined import Database as AsyncDatabase
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import Compare, Guard, Operation, Ranged, StoreClaims
from atoll.ports.store import Store as AsyncStore
from atoll.sync import portal

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Store:
    """What coordination stands on."""

    def __init__(self, inner: AsyncStore) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Self:
        portal.enter(self._inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    @property
    def url(self) -> str:
        """Where it is, passwords masked."""
        return self._inner.url

    def open(self) -> StoreClaims:
        """Connect, check the format, read the claims. Cheap when already open."""
        return portal.run(self._inner.open())

    def close(self) -> None:
        """As `await close(...)`."""
        portal.run(self._inner.close())

    def get(self, key: str) -> Got:
        """The newest entry: never older than any answer given before this call began."""
        return portal.run(self._inner.get(key))

    def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        """Write if the entry's revision is still `revision` (ABSENT: if there is no such key)."""
        return portal.run(self._inner.put_if(key, value, revision))

    def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        """Remove if the entry's revision is still `revision`."""
        return portal.run(self._inner.delete_if(key, revision))

    def observe(self, prefix: str) -> Iterator[Observation]:
        """The state below `prefix`, then what changes, for as long as it is iterated."""
        return portal.iterate(self._inner.observe(prefix))

    def epoch(self) -> int:
        """The store's epoch, the first half of every token; 1 for a store never restored or moved."""
        return portal.run(self._inner.epoch())

    def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, in bytewise key order, as of one revision."""
        return portal.run(self._inner.range(prefix, start=start, end=end, limit=limit))

    def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        """All of `then`, if all of `compare` hold, at one revision; else nothing, and Unmet says why."""
        return portal.run(self._inner.transact(*then, compare=compare, guard=guard, request_id=request_id))


class Broker:
    """Queues by name; a queue exists once something was put. Inert until first use."""

    def __init__(self, inner: AsyncBroker) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Self:
        portal.enter(self._inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    @property
    def url(self) -> str:
        """url"""
        return self._inner.url

    @property
    def delaying(self) -> bool:
        """Whether `delay_s` is kept."""
        return self._inner.delaying

    def open(self) -> BrokerClaims:
        """As `await open(...)`."""
        return portal.run(self._inner.open())

    def close(self) -> None:
        """As `await close(...)`."""
        portal.run(self._inner.close())

    def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        """All of them or none; durable when it returns, as the claims say."""
        return portal.run(self._inner.put(queue, messages))

    def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        """At least one and at most `most` as soon as there are any; none after `wait_s`."""
        return portal.run(self._inner.take(queue, most, lease_s=lease_s, wait_s=wait_s))

    def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        """The work is done. LATE is a warning to the worker: somebody else will do it again."""
        return portal.run(self._inner.acknowledge(queue, receipts))

    def give_back(self, queue: str, receipt: str, *, delay_s: float = 0.0, counted: bool = True) -> Settled:
        """Not done; hand it out again after `delay_s`. The attempt stays counted."""
        return portal.run(self._inner.give_back(queue, receipt, delay_s=delay_s, counted=counted))

    def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        """Never hand it out again; keep it with `reason` among the dead."""
        return portal.run(self._inner.bury(queue, receipt, reason))


class Database:
    """A database of the user's: its transactions, and what Atoll does inside them."""

    def __init__(self, inner: AsyncDatabase) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Self:
        portal.enter(self._inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    @property
    def name(self) -> str:
        """Names it in errors, decisions and reports; unique among the databases of a transaction."""
        return self._inner.name

    def open(self) -> None:
        """Connect, and make or check Atoll's tables where the engine may."""
        portal.run(self._inner.open())

    def close(self) -> None:
        """As `await close(...)`."""
        portal.run(self._inner.close())
