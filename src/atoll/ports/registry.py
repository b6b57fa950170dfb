"""Registry: who serves under a name, and where.

A notice board, not a ledger: an entry may be late by a stated time, and readers keep the last list
they saw when the board itself is away. DNS, Eureka, Consul, and every Store can be one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryClaims:
    """How late news may be, in seconds."""

    appears_max_s: float
    disappears_max_s: float
    announces: bool
    """False: read only, as DNS is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One place where a service answers. `weight` 0: send nothing new."""

    service: str
    id: str
    url: str
    weight: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)


class Registry(Protocol):
    """Announce, resolve, observe."""

    async def open(self) -> RegistryClaims: ...
    def announce(self, instance: Instance) -> AbstractAsyncContextManager[None]: ...
    async def resolve(self, service: str) -> Sequence[Instance]: ...
    def observe(self, service: str) -> AsyncIterator[Sequence[Instance]]: ...
