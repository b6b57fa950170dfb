"""Broker: moves messages; each is somebody's to do until it is acknowledged.

A counter with a ticket rack. You take a ticket, do the work, hand the ticket in. Where the broker
leases, a ticket that comes in late is refused, because somebody else has it by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, Self

from atoll.ports.store import Durable, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerClaims:
    """What the opened broker promises. Times in seconds, sizes in bytes."""

    durable: Durable
    reach: Reach
    body_bytes_max: int
    messages_max: int
    """In one put."""
    dedupe_window_s: float
    """A message id put again within this time is answered DUPLICATE; 0: never noticed."""
    counts_attempts: bool = True
    """`attempt` is raised durably before the delivery is handed out, so a kill -9 counts."""
    uncounts: bool = True
    """`give_back(counted=False)` takes the attempt back; False: it stays counted all the same."""
    ordered: bool = False
    """Messages of one key are handed out in the order of their puts while none is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A body and its name. `id` is the sender's, unique, and what duplicates are noticed by.

    `delay_s`: not handed out before. `headers` travel as they are: at most 32, of 4 KiB together.
    """

    id: str
    body: bytes
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message in hand, as the broker gives it.

    `receipt`: names this handing-out, not the message. `attempt`: 1 the first time, counted before
    it was handed out. `lease_until`: by the lease clock, counted from sending; None: no lease.
    `put_at`: wall clock, for people.
    """

    queue: str
    message: Message
    receipt: str
    attempt: int
    lease_until: float | None
    put_at: float


class Accepted(Enum):
    """What became of one message of a put."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class Settled(Enum):
    """What became of one receipt."""

    ACKED = "acked"  # this receipt settled it, now or in a call before
    LATE = "late"  # its lease had ended; somebody else has it or will
    UNKNOWN = "unknown"  # no such receipt is remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A message nobody could do, with the reason."""

    queue: str
    message: Message
    attempts: int
    reason: str
    buried_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much waits in a queue. `oldest_age_s`: of the oldest message not acknowledged, 0 if none."""

    queue: str
    ready: int
    delayed: int
    leased: int
    dead: int
    oldest_age_s: float


class Leased(Protocol):
    """Ability: a delivery is yours until its lease ends; after that its acknowledgement is LATE."""

    async def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        """Lease it for `lease_s` from now. Answers the granted seconds, None when it is over."""
        ...


class Inspecting(Protocol):
    """Ability: what waits, what died, and bringing the dead back."""

    async def depths(self) -> Sequence[Depth]: ...
    async def dead(self, queue: str, limit: int = 100) -> Sequence[Dead]: ...
    async def revive(self, queue: str, ids: Sequence[str]) -> int:
        """Put buried messages back with attempts at 0; answers how many."""
        ...


class Broker(Protocol):
    """Queues by name; a queue exists once something was put. Inert until first use."""

    @property
    def url(self) -> str: ...
    @property
    def leased(self) -> Leased | None: ...
    @property
    def inspecting(self) -> Inspecting | None: ...
    @property
    def delaying(self) -> bool:
        """Whether `delay_s` is kept."""
        ...

    async def open(self) -> BrokerClaims: ...
    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        """All of them or none; durable when it returns, as the claims say."""
        ...

    async def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        """At least one and at most `most` as soon as there are any; none after `wait_s`."""
        ...

    async def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        """The work is done. LATE is a warning to the worker: somebody else will do it again."""
        ...

    async def give_back(
        self, queue: str, receipt: str, *, delay_s: float = 0.0, counted: bool = True
    ) -> Settled:
        """Not done; hand it out again after `delay_s`. The attempt stays counted.

        `counted=False`: the attempt is taken back, where the claim `uncounts` says so; for work that was
        stopped and did not fail. A receipt that is LATE takes nothing back.
        """
        ...

    async def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        """Never hand it out again; keep it with `reason` among the dead."""
        ...
