"""Doorways for brokers and tiers: the same porter at two more houses.

A post office and a lost-property shelf have entrances too. Nothing here but the verbs of the two ports,
each led past `Doorway.call`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from atoll.ports.broker import (
    Accepted,
    Broker,
    BrokerClaims,
    Dead,
    Depth,
    Inspecting,
    Leased,
    Message,
    Settled,
    Taken,
)
from atoll.ports.tier import Hit, Miss, Tier, TierClaims
from atoll.verify.doorway import Call, Doorway


class DoorwayBroker:
    """A Broker whose calls pass `door`."""

    def __init__(self, inner: Broker, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    def __repr__(self) -> str:
        return f"<{self._door!r} -> {self._inner!r}>"

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def leased(self) -> Leased | None:
        inner = self._inner.leased
        return None if inner is None else _DoorwayLeased(inner, self._door)

    @property
    def inspecting(self) -> Inspecting | None:
        inner = self._inner.inspecting
        return None if inner is None else _DoorwayInspecting(inner, self._door)

    @property
    def delaying(self) -> bool:
        return self._inner.delaying

    async def open(self) -> BrokerClaims:
        return await self._door.call(Call(verb="open"), self._inner.open)

    async def close(self) -> None:
        await self._inner.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        ids = ", ".join(message.id for message in messages)
        call = Call(verb="put", subjects=(queue,), id=ids or None, detail=repr(list(messages)))
        return await self._door.call(call, lambda: self._inner.put(queue, messages))

    async def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        call = Call(verb="take", subjects=(queue,), waits_s=wait_s, held=True, detail=f"{most}")
        return await self._door.call(
            call, lambda: self._inner.take(queue, most, lease_s=lease_s, wait_s=wait_s)
        )

    async def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        call = Call(verb="acknowledge", subjects=(queue, *receipts))
        return await self._door.call(call, lambda: self._inner.acknowledge(queue, receipts))

    async def give_back(
        self, queue: str, receipt: str, *, delay_s: float = 0.0, counted: bool = True
    ) -> Settled:
        words = f"{delay_s:g}" if counted else f"{delay_s:g} not counted"
        call = Call(verb="give_back", subjects=(queue, receipt), detail=words)
        return await self._door.call(
            call, lambda: self._inner.give_back(queue, receipt, delay_s=delay_s, counted=counted)
        )

    async def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        call = Call(verb="bury", subjects=(queue, receipt), detail=reason)
        return await self._door.call(call, lambda: self._inner.bury(queue, receipt, reason))


class _DoorwayLeased:
    """The leases of a DoorwayBroker."""

    def __init__(self, inner: Leased, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        call = Call(verb="extend", subjects=(queue, receipt), detail=f"{lease_s:g}")
        return await self._door.call(call, lambda: self._inner.extend(queue, receipt, lease_s))


class _DoorwayInspecting:
    """The inspection of a DoorwayBroker."""

    def __init__(self, inner: Inspecting, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def depths(self) -> Sequence[Depth]:
        return await self._door.call(Call(verb="depths"), self._inner.depths)

    async def dead(self, queue: str, limit: int = 100) -> Sequence[Dead]:
        call = Call(verb="dead", subjects=(queue,))
        return await self._door.call(call, lambda: self._inner.dead(queue, limit))

    async def revive(self, queue: str, ids: Sequence[str]) -> int:
        call = Call(verb="revive", subjects=(queue, *ids))
        return await self._door.call(call, lambda: self._inner.revive(queue, ids))


class DoorwayTier:
    """A Tier whose calls pass `door`."""

    def __init__(self, inner: Tier, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    def __repr__(self) -> str:
        return f"<{self._door!r} -> {self._inner!r}>"

    @property
    def url(self) -> str:
        return self._inner.url

    async def open(self) -> TierClaims:
        return await self._door.call(Call(verb="open"), self._inner.open)

    async def close(self) -> None:
        await self._inner.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Hit | Miss]:
        call = Call(verb="get_many", subjects=tuple(keys))
        return await self._door.call(call, lambda: self._inner.get_many(keys))

    async def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        call = Call(verb="fill", subjects=(key,), detail=f"{value!r}")
        return await self._door.call(call, lambda: self._inner.fill(key, token, value, ttl_s))

    async def invalidate_many(self, keys: Sequence[str]) -> None:
        call = Call(verb="invalidate_many", subjects=tuple(keys))
        await self._door.call(call, lambda: self._inner.invalidate_many(keys))

    async def increment(self, key: str, by: int, ttl_s: float) -> int:
        call = Call(verb="increment", subjects=(key,), detail=f"{by}")
        return await self._door.call(call, lambda: self._inner.increment(key, by, ttl_s))
