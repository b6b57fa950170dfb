"""Atoll: locks, leaders, queues and transactions that state what they guarantee and prove it.

The front door. Every name here is loaded when it is first used: `import atoll` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.blocks.background import background
    from atoll.blocks.election import Election, Term
    from atoll.blocks.inbox import Inbox
    from atoll.blocks.lock import Lock
    from atoll.blocks.outbox import Outbox
    from atoll.blocks.queue import Delivery, Queue
    from atoll.blocks.transaction import Transactions
    from atoll.clock import deadline
    from atoll.errors import (
        AtollError,
        Compacted,
        ConfigurationError,
        Conflict,
        DeliveryLost,
        DiskFull,
        EpochChanged,
        EpochUncertain,
        FormatRefused,
        Interrupted,
        LeaderLost,
        LeaseOver,
        LimitReached,
        LockLost,
        MissingExtra,
        NotApplied,
        NotReady,
        NotSent,
        OutcomeUnknown,
        Overloaded,
        ReadOnly,
        Refused,
        Taken,
        UsedAfterFork,
        WatchEnded,
        WatchLost,
        WouldDeadlock,
    )
    from atoll.ports.store import delete, put
    from atoll.urls import broker, database, store, tier

__version__ = "0.1.0"

_ERRORS = (
    "AtollError Compacted ConfigurationError Conflict DeliveryLost DiskFull EpochChanged EpochUncertain "
    "FormatRefused Interrupted LeaderLost LeaseOver LimitReached LockLost MissingExtra NotApplied NotReady "
    "NotSent OutcomeUnknown Overloaded ReadOnly Refused Taken UsedAfterFork WatchEnded WatchLost "
    "WouldDeadlock"
).split()

_HOMES: dict[str, str] = {
    "Delivery": "blocks.queue",
    "Election": "blocks.election",
    "Inbox": "blocks.inbox",
    "Lock": "blocks.lock",
    "Outbox": "blocks.outbox",
    "Queue": "blocks.queue",
    "Term": "blocks.election",
    "Transactions": "blocks.transaction",
    "background": "blocks.background",
    "broker": "urls",
    "database": "urls",
    "deadline": "clock",
    "delete": "ports.store",
    "put": "ports.store",
    "store": "urls",
    "tier": "urls",
    **dict.fromkeys(_ERRORS, "errors"),
}

_PLANNED = ("Cache", "Discovery", "Done", "Limit", "Saga")

__all__ = [
    "AtollError",
    "Compacted",
    "ConfigurationError",
    "Conflict",
    "Delivery",
    "DeliveryLost",
    "DiskFull",
    "Election",
    "EpochChanged",
    "EpochUncertain",
    "FormatRefused",
    "Inbox",
    "Interrupted",
    "LeaderLost",
    "LeaseOver",
    "LimitReached",
    "Lock",
    "LockLost",
    "MissingExtra",
    "NotApplied",
    "NotReady",
    "NotSent",
    "Outbox",
    "OutcomeUnknown",
    "Overloaded",
    "Queue",
    "ReadOnly",
    "Refused",
    "Taken",
    "Term",
    "Transactions",
    "UsedAfterFork",
    "WatchEnded",
    "WatchLost",
    "WouldDeadlock",
    "background",
    "broker",
    "database",
    "deadline",
    "delete",
    "put",
    "store",
    "tier",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(f"atoll.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _PLANNED:
        raise AttributeError(f"atoll.{name} is on the page (docs/start.md) but not in this release")
    raise AttributeError(f"module 'atoll' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
