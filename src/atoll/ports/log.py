"""Log: messages stay where they were written; readers keep a bookmark.

A newspaper archive, not a ticket rack: reading takes nothing away, and a group of readers remembers
by *offset* how far it has come. Kafka, NATS streams, Redis streams; a queue on a log is a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from atoll.ports.store import Durable, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class LogClaims:
    """What the opened log promises."""

    durable: Durable
    reach: Reach
    record_bytes_max: int
    retention_s: float | None
    """Records are kept at least this long; None: until removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record where it lies. `offset` rises within its shard; gaps are allowed."""

    shard: int
    offset: int
    key: str | None
    body: bytes
    headers: Mapping[str, str]
    written_at: float


class Membership(NamedTuple):
    """A place in a group: the shards that are yours in `generation`."""

    generation: int
    member: str
    shards: tuple[int, ...]


class Log(Protocol):
    """Records in shards, in order within one."""

    async def open(self) -> LogClaims: ...
    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def append(
        self, name: str, key: str | None, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, int]:
        """Answers (shard, offset). The same key goes to the same shard while their number stands."""
        ...

    async def read(
        self, name: str, shard: int, offset: int, *, limit: int = 100, wait_s: float = 0.0
    ) -> Sequence[Record]:
        """Records at `offset` and after. Raises Compacted when `offset` is no longer kept."""
        ...

    async def join(self, name: str, group: str, *, lease_s: float) -> Membership:
        """Take part; a change of members raises the generation for all."""
        ...

    async def commit(self, membership: Membership, offsets: Mapping[int, int]) -> None:
        """The group has read below these offsets. Raises Conflict when the generation is over."""
        ...
