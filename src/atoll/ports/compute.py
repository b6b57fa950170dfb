"""Compute: functions run elsewhere, possibly twice, whose output counts once.

You name a function by its import path; code does not travel. A worker that died half-way is run
again, so output becomes visible only when it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeClaims:
    """What the opened cluster promises."""

    workers: int
    survives_worker_loss: bool
    rows_max: int
    """What `collect` brings home at most."""


class Job(Protocol):
    """A running computation."""

    async def collect(self, rows_max: int) -> list[Any]:
        """All rows, in no promised order. LimitReached when there are more than `rows_max`."""
        ...

    async def cancel(self) -> None: ...


class Compute(Protocol):
    """`function` is "package.module:name"; arguments and rows are msgpack-able values."""

    async def open(self) -> ComputeClaims: ...
    async def map(self, function: str, items: Iterable[Any]) -> Job: ...
    async def reduce(self, mapped: Job, function: str, *, by: str) -> Job: ...
