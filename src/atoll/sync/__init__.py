"""The sync face: the same names, no await; for Celery, Django, Flask, scripts.

LAW: generated shells around the async classes, and the one thread their event loop lives in. No logic.
That thread starts at the first call, once in each process. What a thread does cannot be stopped from
outside: ask `held.check()`; a block that is left after its lease ended raises LockLost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll import urls
from atoll.clock import deadline
from atoll.sync.gathering import Barrier, Config, Counter, DoubleBarrier, Group, Latch
from atoll.sync.handles import Broker, Database, Store
from atoll.sync.seeing import Members
from atoll.sync.sharing import ReadWriteLock, Semaphore
from atoll.sync.shells import Election, Held, Lock, Outbox, Queue, Term

if TYPE_CHECKING:
    from atoll.ports.broker import Broker as AsyncBroker
    from atoll.ports.store import Store as AsyncStore

__all__ = [
    "Barrier",
    "Broker",
    "Config",
    "Counter",
    "Database",
    "DoubleBarrier",
    "Election",
    "Group",
    "Held",
    "Latch",
    "Lock",
    "Members",
    "Outbox",
    "Queue",
    "ReadWriteLock",
    "Semaphore",
    "Store",
    "Term",
    "broker",
    "database",
    "deadline",
    "store",
]


def store(url: str | AsyncStore, *, formerly: str | AsyncStore | None = None) -> Store:
    """Where coordination lives: locks, leaders, decisions. `formerly`: see `atoll.store`."""
    return Store(urls.store(url, formerly=formerly))


def broker(url: str | AsyncBroker) -> Broker:
    """Where messages wait. `sqlite:///queue.db`, `memory://`."""
    return Broker(urls.broker(url))


def database(engine: Any, *, name: str | None = None) -> Database:
    """A database of yours: `sqlite:///shop.db`, or the SQLAlchemy engine you already have."""
    return Database(urls.database(engine, name=name))
