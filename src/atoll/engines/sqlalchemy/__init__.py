"""The engine the team already has: SQLAlchemy's sessions and connections, on SQLite or PostgreSQL."""

from __future__ import annotations

from atoll.engines.sqlalchemy.database import SqlAlchemyDatabase
from atoll.engines.sqlalchemy.joined import SqlAlchemyJoined

__all__ = ["SqlAlchemyDatabase", "SqlAlchemyJoined"]
