"""Tray: a store whose every key stands under one lease, and whose user keeps to a rate and a size.

Puts that name a lease of their own keep it; all others get the tray's. A transaction that has one of its own
keeps to that one, because a transaction takes one lease at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from atoll import clock
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Put,
    Ranged,
    Store,
    StoreClaims,
    delete,
    put,
    unchanged,
)


@dataclass(slots=True)
class Budget:
    """What one process may still do. `rate`: calls a second; `bytes_max`: to be written; 0 for any."""

    rate: float = 0.0
    bytes_max: int = 0
    written: int = 0
    _next: float = 0.0

    @property
    def spent(self) -> bool:
        """Whether it has written all it may."""
        return bool(self.bytes_max) and self.written >= self.bytes_max

    async def turn(self, size: int = 0) -> None:
        """Wait for one's turn, and note what is written."""
        self.written += size
        if self.rate:
            now = clock.loop_now()
            mine = max(now, self._next)
            self._next = mine + 1 / self.rate
            await asyncio.sleep(mine - now)


class Tray:
    """A Store on a store, under a lease and a budget."""

    def __init__(self, inner: Store, lease: str | None, budget: Budget) -> None:
        self.inner = inner
        self.lease = lease
        self.budget = budget

    def __repr__(self) -> str:
        return f"<on a tray {self.inner!r}>"

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def leasing(self) -> Leasing | None:
        return self.inner.leasing

    @property
    def history(self) -> History | None:
        return self.inner.history

    @property
    def moving(self) -> Moving | None:
        return None

    @property
    def examining(self) -> Examining | None:
        return None

    @property
    def shadow(self) -> None:
        return None

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
        await self.budget.turn()
        return await self.inner.get(key)

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        await self.budget.turn()
        return await self.inner.range(prefix, start=start, end=end, limit=limit)

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        puts = [operation for operation in then if isinstance(operation, Put)]
        await self.budget.turn(sum(len(p.key) + len(p.value) for p in puts))
        if self.lease is not None and all(p.lease is None for p in puts):
            then = tuple(replace(op, lease=self.lease) if isinstance(op, Put) else op for op in then)
        return await self.inner.transact(*then, compare=compare, guard=guard, request_id=request_id)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        return await self.transact(put(key, value), compare=[unchanged(key, revision)])

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        return await self.transact(delete(key), compare=[unchanged(key, revision)])

    def observe(self, prefix: str) -> AsyncIterator[Observation]:
        return self.inner.observe(prefix)


def tray(handle: Any, guest: dict[str, Any], budget: Budget) -> Any:
    """The handle, on a tray where its user is a guest."""
    return Tray(handle, guest.get("lease"), budget) if guest and hasattr(handle, "transact") else handle
