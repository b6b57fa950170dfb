"""Doorways: wrappers that take a port and are that port, with one door every call passes.

A porter at the only entrance: he may delay a letter, lose it, lose the answer, or lock up for good, and
neither the sender nor the house is built any differently. The network of a simulation and the faults of
`faulty+` URLs are such porters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from atoll.ports.examining import Examining, Finding
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
    Token,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked at the door: a verb of a port, and what it is about.

    `subjects`: the keys, queues or ids it names. `id`: what asks again after an unknown outcome.
    `waits_s`: how long the verb itself may wait by its meaning. `held`: it waits at the far side, so
    it ends there when the asker goes away.
    """

    verb: str
    subjects: tuple[str, ...] = ()
    id: str | None = None
    waits_s: float = 0.0
    held: bool = False
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.verb}({', '.join(self.subjects)})"


class Doorway(Protocol):
    """Every call and every stream of a wrapped port goes through here."""

    async def call(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Answer the call; `send()` asks the port behind, each time it is called."""
        ...

    def stream(self, call: Call, start: Callable[[T | None], AsyncIterator[T]]) -> AsyncIterator[T]:
        """Pass on a stream; `start(last)` begins it behind, after the item last passed on."""
        ...


@dataclass(frozen=True, slots=True)
class _SentGuard:
    """A guard as the far side knows it: a key and a token; the holder's own clock stays at home."""

    owner_key: str
    token: Token

    def check(self) -> None:
        """Only the holder can ask its own clock."""


class DoorwayStore:
    """A Store whose calls pass `door`.

    `far`: behind it is another machine, which knows a guard's key and token but cannot ask its clock.
    """

    def __init__(self, inner: Store, door: Doorway, *, far: bool = False) -> None:
        self._inner = inner
        self._door = door
        self._far = far

    def __repr__(self) -> str:
        return f"<{self._door!r} -> {self._inner!r}>"

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def leasing(self) -> Leasing | None:
        inner = self._inner.leasing
        return None if inner is None else _DoorwayLeasing(inner, self._door)

    @property
    def history(self) -> History | None:
        inner = self._inner.history
        return None if inner is None else _DoorwayHistory(inner, self._door)

    @property
    def moving(self) -> Moving | None:
        inner = self._inner.moving
        return None if inner is None else _DoorwayMoving(inner, self._door)

    @property
    def examining(self) -> Examining | None:
        inner = self._inner.examining
        return None if inner is None else _DoorwayExamining(inner, self._door)

    @property
    def shadow(self) -> Store | None:
        inner = self._inner.shadow
        return None if inner is None else DoorwayStore(inner, self._door, far=self._far)

    async def open(self) -> StoreClaims:
        return await self._door.call(Call(verb="open"), self._inner.open)

    async def close(self) -> None:
        await self._inner.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        return await self._door.call(Call(verb="epoch"), self._inner.epoch)

    async def get(self, key: str) -> Got:
        return await self._door.call(Call(verb="get", subjects=(key,)), lambda: self._inner.get(key))

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        call = Call(verb="put_if", subjects=(key,), detail=f"{value!r} at {revision}")
        return await self._door.call(call, lambda: self._inner.put_if(key, value, revision))

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        call = Call(verb="delete_if", subjects=(key,), detail=f"at {revision}")
        return await self._door.call(call, lambda: self._inner.delete_if(key, revision))

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        call = Call(verb="range", subjects=(prefix or start or "",), detail=f"to {end} limit {limit}")
        return await self._door.call(
            call, lambda: self._inner.range(prefix, start=start, end=end, limit=limit)
        )

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        sent = _SentGuard(guard.owner_key, guard.token) if guard is not None and self._far else guard
        keys = tuple(dict.fromkeys([*(op.key for op in then), *(c.key for c in compare)]))
        call = Call(verb="transact", subjects=keys, id=request_id, detail=f"{then!r} if {list(compare)!r}")
        return await self._door.call(
            call,
            lambda: self._inner.transact(*then, compare=compare, guard=sent, request_id=request_id),
        )

    def observe(self, prefix: str) -> AsyncIterator[Observation]:
        def start(_last: Observation | None) -> AsyncIterator[Observation]:
            return self._inner.observe(prefix)

        return self._door.stream(Call(verb="observe", subjects=(prefix,), held=True), start)


class _DoorwayLeasing:
    """The leasing of a DoorwayStore."""

    def __init__(self, inner: Leasing, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def grant(self, ttl_s: float) -> Granted:
        call = Call(verb="grant", detail=f"{ttl_s:g}")
        return await self._door.call(call, lambda: self._inner.grant(ttl_s))

    async def keep_alive(self, lease: str) -> float:
        call = Call(verb="keep_alive", subjects=(lease,))
        return await self._door.call(call, lambda: self._inner.keep_alive(lease))

    async def revoke(self, lease: str) -> None:
        call = Call(verb="revoke", subjects=(lease,))
        await self._door.call(call, lambda: self._inner.revoke(lease))

    async def remaining(self, lease: str) -> float | None:
        call = Call(verb="remaining", subjects=(lease,))
        return await self._door.call(call, lambda: self._inner.remaining(lease))


class _DoorwayHistory:
    """The history of a DoorwayStore."""

    def __init__(self, inner: History, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        def start(last: Change | None) -> AsyncIterator[Change]:
            return self._inner.changes(prefix, after if last is None else last.at)

        return self._door.stream(Call(verb="changes", subjects=(prefix,), held=True), start)

    async def now(self) -> Bookmark:
        return await self._door.call(Call(verb="now"), self._inner.now)


class _DoorwayMoving:
    """The moving of a DoorwayStore."""

    def __init__(self, inner: Moving, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def bump(self, above: int = 0) -> int:
        return await self._door.call(Call(verb="bump"), lambda: self._inner.bump(above))

    async def freeze(self, note: str | None) -> None:
        await self._door.call(Call(verb="freeze"), lambda: self._inner.freeze(note))

    async def frozen(self) -> str | None:
        return await self._door.call(Call(verb="frozen"), self._inner.frozen)


class _DoorwayExamining:
    """The examining of a DoorwayStore."""

    def __init__(self, inner: Examining, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def damage(self) -> Sequence[str]:
        return await self._door.call(Call(verb="damage"), self._inner.damage)

    async def examine(self) -> Sequence[Finding]:
        return await self._door.call(Call(verb="examine"), self._inner.examine)
