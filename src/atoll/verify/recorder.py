"""Recorder: a store or a broker that writes down every call, and is the store or broker it wraps.

A stenographer who sits between two people and changes nothing. An answer is OK, a NotApplied is FAIL, and
everything else (unknown, cancelled, broken off) is INFO: nobody knows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from atoll import clock
from atoll.errors import ConfigurationError, NotApplied
from atoll.ports.broker import Accepted, Broker, BrokerClaims, Inspecting, Leased, Message, Settled, Taken
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import (
    Bookmark,
    Change,
    Compare,
    Granted,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Ranged,
    Store,
    StoreClaims,
    delete,
    put,
    unchanged,
)
from atoll.verify import history
from atoll.verify.history import Settling, Span, Stream, Taking, Transaction, Type

ItemT = TypeVar("ItemT")


class Pen:
    """Writes down one client's calls under the name `process`."""

    def __init__(self, book: history.History, process: str) -> None:
        self.book = book
        self.process = process

    async def write(
        self,
        f: str,
        asked: Any,
        work: Callable[[], Awaitable[Any]],
        revision: Callable[[Any], int | None] = lambda answer: None,
        answered: Callable[[Any], Any] = lambda answer: answer,
    ) -> Any:
        """Do `work` between an asking and an answer."""
        call = self.book.begin(self.process, f, asked)
        try:
            answer = await work()
        except (NotApplied, ConfigurationError) as error:
            self.book.end(call, Type.FAIL, error=type(error).__name__)
            raise
        except BaseException as error:
            self.book.end(call, Type.INFO, error=type(error).__name__)
            raise
        self.book.end(call, Type.OK, answered(answer), revision=revision(answer))
        return answer


def _revision(answer: Any) -> int | None:
    found: int | None = answer.revision
    return found


class RecordingStore:
    """A Store that writes its history down. `process` names the client."""

    def __init__(self, inner: Store, book: history.History, process: str) -> None:
        self.inner = inner
        self.pen = Pen(book, process)
        self.leasing: Leasing | None = RecordingLeasing(inner.leasing, self.pen) if inner.leasing else None
        self.history: History | None = RecordingHistory(inner.history, self.pen) if inner.history else None
        self.moving: Moving | None = inner.moving
        self.examining: Examining | None = inner.examining

    @property
    def shadow(self) -> Store | None:
        """What is done there is not written down: its revisions are of another ledger."""
        return self.inner.shadow

    def __repr__(self) -> str:
        return f"<recording {self.inner!r}>"

    @property
    def url(self) -> str:
        return self.inner.url

    async def open(self) -> StoreClaims:
        return await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.inner.__aexit__(*exc)

    async def epoch(self) -> int:
        return await self.inner.epoch()

    async def get(self, key: str) -> Got:
        answer: Got = await self.pen.write("get", key, lambda: self.inner.get(key), _revision)
        return answer

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        answer: Ranged = await self.pen.write(
            "range",
            Span(prefix, start, end, limit),
            lambda: self.inner.range(prefix, start=start, end=end, limit=limit),
            _revision,
        )
        return answer

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        held = None if guard is None else (guard.owner_key, guard.token.revision)
        answer: Applied | Unmet = await self.pen.write(
            "transact",
            Transaction(then, tuple(compare), held, request_id),
            lambda: self.inner.transact(*then, compare=compare, guard=guard, request_id=request_id),
            _revision,
        )
        return answer

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        asked = Transaction((put(key, value),), (unchanged(key, revision),))
        answer: Applied | Unmet = await self.pen.write(
            "transact", asked, lambda: self.inner.put_if(key, value, revision), _revision
        )
        return answer

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        asked = Transaction((delete(key),), (unchanged(key, revision),))
        answer: Applied | Unmet = await self.pen.write(
            "transact", asked, lambda: self.inner.delete_if(key, revision), _revision
        )
        return answer

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        stream = Stream(clock.unique_id(), prefix)
        async with _closing(self.inner.observe(prefix)) as items:
            async for item in items:
                self.pen.book.note(self.pen.process, "observation", stream, item, revision=item.revision)
                yield item


@asynccontextmanager
async def _closing(items: AsyncIterator[ItemT]) -> AsyncIterator[AsyncIterator[ItemT]]:
    """`contextlib.aclosing`, for an iterator that may have nothing to close."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


class RecordingLeasing:
    """Leasing that writes its history down."""

    def __init__(self, inner: Leasing, pen: Pen) -> None:
        self.inner = inner
        self.pen = pen

    async def grant(self, ttl_s: float) -> Granted:
        answer: Granted = await self.pen.write("grant", ttl_s, lambda: self.inner.grant(ttl_s))
        return answer

    async def keep_alive(self, lease: str) -> float:
        answer: float = await self.pen.write("keep_alive", lease, lambda: self.inner.keep_alive(lease))
        return answer

    async def revoke(self, lease: str) -> None:
        await self.pen.write("revoke", lease, lambda: self.inner.revoke(lease))

    async def remaining(self, lease: str) -> float | None:
        return await self.inner.remaining(lease)


class RecordingHistory:
    """A store's history that writes down what it was told."""

    def __init__(self, inner: History, pen: Pen) -> None:
        self.inner = inner
        self.pen = pen

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        stream = Stream(clock.unique_id(), prefix, after.revision)
        async with _closing(self.inner.changes(prefix, after)) as items:
            async for item in items:
                self.pen.book.note(self.pen.process, "change", stream, item, revision=item.at.revision)
                yield item

    async def now(self) -> Bookmark:
        return await self.inner.now()


class RecordingBroker:
    """A Broker that writes its history down. `process` names the client."""

    def __init__(self, inner: Broker, book: history.History, process: str) -> None:
        self.inner = inner
        self.pen = Pen(book, process)
        self.leased: Leased | None = RecordingLeased(inner.leased, self.pen) if inner.leased else None
        self.inspecting: Inspecting | None = inner.inspecting

    def __repr__(self) -> str:
        return f"<recording {self.inner!r}>"

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def delaying(self) -> bool:
        return self.inner.delaying

    async def open(self) -> BrokerClaims:
        return await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.inner.__aexit__(*exc)

    async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        asked = Settling(queue, tuple(message.id for message in messages))
        answer: Sequence[Accepted] = await self.pen.write(
            "put", asked, lambda: self.inner.put(queue, messages), answered=tuple
        )
        return answer

    async def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        answer: Sequence[Taken] = await self.pen.write(
            "take",
            Taking(queue, most, lease_s),
            lambda: self.inner.take(queue, most, lease_s=lease_s, wait_s=wait_s),
            answered=lambda taken: tuple((t.message.id, t.receipt, t.attempt, t.lease_until) for t in taken),
        )
        return answer

    async def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        answer: Sequence[Settled] = await self.pen.write(
            "acknowledge",
            Settling(queue, tuple(receipts)),
            lambda: self.inner.acknowledge(queue, receipts),
            answered=tuple,
        )
        return answer

    async def give_back(
        self, queue: str, receipt: str, *, delay_s: float = 0.0, counted: bool = True
    ) -> Settled:
        answer: Settled = await self.pen.write(
            "give_back",
            Settling(queue, (receipt,), delay_s, counted),
            lambda: self.inner.give_back(queue, receipt, delay_s=delay_s, counted=counted),
        )
        return answer

    async def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        answer: Settled = await self.pen.write(
            "bury", Settling(queue, (receipt,), reason), lambda: self.inner.bury(queue, receipt, reason)
        )
        return answer


class RecordingLeased:
    """The leases of deliveries, written down."""

    def __init__(self, inner: Leased, pen: Pen) -> None:
        self.inner = inner
        self.pen = pen

    async def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        answer: float | None = await self.pen.write(
            "extend",
            Settling(queue, (receipt,), lease_s),
            lambda: self.inner.extend(queue, receipt, lease_s),
        )
        return answer
