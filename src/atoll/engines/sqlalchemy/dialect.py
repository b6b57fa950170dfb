"""Dialect: what is asked of SQLite and of PostgreSQL behind one SQLAlchemy connection.

Two translators at one table. They are asked the same questions and each says them in its own language; who
asks need not know which of them sits there. They sit in `sqlite.py` and `postgresql.py`.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from atoll.errors import AtollError, ConfigurationError

INBOX_RETENTION_S = 7 * 86400.0
Verb = Literal["once", "fence", "put", "any_staged", "staged", "forget", "waiting", "queues", "prune"]


class Dialect(Protocol):
    """Every call is made where SQLAlchemy may block: in a thread, or inside `run_sync`."""

    def schema(self) -> str:
        """The tables as SQL."""
        ...

    def name_of(self, engine: Engine) -> str:
        """What a database is called that was given no name."""
        ...

    def open(self, engine: Engine) -> None:
        """Before a first connection, and again when the tables are there."""
        ...

    def close(self, engine: Engine) -> None:
        """Give back what `open` took."""
        ...

    def prepare(self, connection: Connection, where: str) -> None:
        """Make or check the tables."""
        ...

    def make(self, connection: Connection, where: str) -> list[str]:
        """Make the tables that are missing; answers their names."""
        ...

    def enter(self, connection: Connection) -> None:
        """See that `connection` has a transaction that is the caller's to end."""
        ...

    def do(self, connection: Connection, verb: Verb, *arguments: Any) -> Any:
        """One of the joined or relaying verbs."""
        ...

    def begin_reading(self, connection: Connection) -> None:
        """Turn the transaction into one snapshot."""
        ...

    def expect_intact(self, connection: Connection) -> None:
        """Raise where COMMIT would be answered by a silent ROLLBACK."""
        ...

    def unconnected(self, error: Exception, where: str) -> AtollError | None:
        """The error of ours for a connection that could not be made."""
        ...

    def explained(self, error: DBAPIError, where: str) -> AtollError | None:
        """The error of ours inside a transaction; None for what is the user's own."""
        ...

    def uncommitted(self, error: DBAPIError, where: str) -> AtollError | None:
        """The error of ours for what COMMIT answered."""
        ...


def of(engine: Engine) -> Dialect:
    """The translator for this engine; a dialect or a driver without one is refused by name."""
    if engine.dialect.name == "sqlite":
        from atoll.engines.sqlalchemy.sqlite import SQLITE

        return SQLITE
    if engine.dialect.name == "postgresql":
        from atoll.engines.sqlalchemy.postgresql import DRIVERS, POSTGRESQL

        if engine.dialect.driver in DRIVERS:
            return POSTGRESQL
        raise ConfigurationError(
            f"found a SQLAlchemy engine on postgresql+{engine.dialect.driver}; this release works with "
            "asyncpg and psycopg (3). Use create_async_engine('postgresql+asyncpg://...') or "
            "create_engine('postgresql+psycopg://...')."
        )
    raise ConfigurationError(
        f"found a SQLAlchemy engine on {engine.dialect.name}; this release works on SQLite and "
        f"PostgreSQL, and {engine.dialect.name} is planned for 0.2. Use "
        "create_async_engine('sqlite+aiosqlite:///shop.db') "
        "or create_async_engine('postgresql+asyncpg://...')."
    )
