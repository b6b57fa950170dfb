"""Tier: may forget at any time, and must never remember what was invalidated.

A shelf of copies. Missing gives you a *claim slip*; the copy you bring back is put on the shelf only
if nobody has declared the original changed since the slip was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from atoll.ports.store import Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class TierClaims:
    """What the opened tier promises. Sizes in bytes."""

    reach: Reach
    value_bytes_max: int
    bytes_max: int | None
    """What it holds before it evicts; None: as its server is set."""
    counts: bool = True
    """`increment` is atomic."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A copy. `version` rises with each fill of the key; `age_s` since it was filled."""

    value: bytes
    version: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Miss:
    """No copy. `token` is the claim slip for `fill`; an invalidation makes it worthless."""

    token: str


class Tier(Protocol):
    """Copies by key. A forgotten slip refuses the fill: it may lose a copy, never keep a stale one."""

    @property
    def url(self) -> str: ...
    async def open(self) -> TierClaims: ...
    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Hit | Miss]: ...

    async def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        """Keep a copy for `ttl_s`, unless the key was invalidated since the token's miss."""
        ...

    async def invalidate_many(self, keys: Sequence[str]) -> None:
        """The originals changed. Every slip written before this is worthless when it returns."""
        ...

    async def increment(self, key: str, by: int, ttl_s: float) -> int:
        """Add to a counter that is forgotten `ttl_s` after it was made; answers the sum."""
        ...
