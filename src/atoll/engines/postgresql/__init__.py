"""The PostgreSQL engine: coordination, and what happens inside the transactions of your own database.

Each name is imported when it is first asked for, so that who has asyncpg alone needs no psycopg.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# At once, for it makes `held.fence` know the connections of psycopg and asyncpg; it imports neither.
from atoll.engines.postgresql import joined as joined

if TYPE_CHECKING:
    from atoll.engines.postgresql.database import PostgresDatabase
    from atoll.engines.postgresql.store import PostgresStore

__all__ = ["PostgresDatabase", "PostgresStore"]

_HOMES = {
    "PostgresDatabase": "database",
    "PostgresStore": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
