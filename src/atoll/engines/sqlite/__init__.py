"""The SQLite engine: one file, several processes, every acknowledged write forced to disk.

Each name is imported when it is first asked for, so a store does not pay for the broker.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.engines.sqlite.broker import SqliteBroker
    from atoll.engines.sqlite.database import SqliteDatabase
    from atoll.engines.sqlite.store import SqliteStore
    from atoll.engines.sqlite.tier import SqliteTier

__all__ = ["SqliteBroker", "SqliteDatabase", "SqliteStore", "SqliteTier"]

_HOMES = {
    "SqliteBroker": "broker",
    "SqliteDatabase": "database",
    "SqliteStore": "store",
    "SqliteTier": "tier",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
