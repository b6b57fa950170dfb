"""Register: one key at a time, compared and set.

The smallest promise worth coordinating by. A pigeonhole with a number on it: you may replace what is
inside only if the number is still the one you saw. NATS, Consul and MongoDB keep it; every Store does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from atoll.ports.store import StoreClaims

ABSENT = 0
"""In place of a revision: "there must be no such key". Revisions start at 1."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and what stands in it.

    `revision`: of the transaction that wrote this value. `create_revision`: of the one that created
    the key since it was last absent; deleting and creating again gives a new one, so it names *this*
    life of the key. `lease`: the id of the lease it dies with, or None.
    """

    key: str
    value: bytes
    revision: int
    create_revision: int
    lease: str | None = None


class Got(NamedTuple):
    """An entry, or None, as of `revision` of the whole store; the revision is there also for a miss."""

    entry: Entry | None
    revision: int


@dataclass(frozen=True, slots=True)
class Applied:
    """It happened, as the transaction `revision`.

    `results`: one per operation, in order. A put answers the entry as it stands now; a delete the
    entry it removed, or None where there was none. Empty when `replayed`: a request_id seen before.
    """

    revision: int
    results: tuple[Entry | None, ...] = ()
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Unmet:
    """A comparison did not hold, so nothing happened.

    `entries`: every compared key as it stood when judged (None where absent). `revision`: of the
    store then.
    """

    entries: dict[str, Entry | None]
    revision: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What changed below a prefix, as of `revision`.

    `reset`: `changed` is the whole present state; forget what you knew. Otherwise `changed` and
    `removed` are since the observation before; intermediate values may have been skipped.
    """

    reset: bool
    changed: tuple[Entry, ...]
    removed: tuple[str, ...]
    revision: int


class Register(Protocol):
    """Keys are UTF-8, compared bytewise; values are bytes; every answer carries a revision.

    Inert until first use; reopens in a forked child.
    """

    @property
    def url(self) -> str:
        """Where it is, passwords masked."""
        ...

    async def open(self) -> StoreClaims:
        """Connect, check the format, read the claims. Cheap when already open."""
        ...

    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def get(self, key: str) -> Got:
        """The newest entry: never older than any answer given before this call began."""
        ...

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        """Write if the entry's revision is still `revision` (ABSENT: if there is no such key)."""
        ...

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        """Remove if the entry's revision is still `revision`."""
        ...

    def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """The state below `prefix`, then what changes, for as long as it is iterated.

        The first item is a reset. Heals itself by another reset; raises WatchLost only when silent
        past the engine's `liveness_s`. May coalesce: wait only for what stays true until you look.
        """
        ...
