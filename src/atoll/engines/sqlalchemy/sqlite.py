"""SQLite behind a SQLAlchemy connection: its own words for a transaction, a lock and a full disk.

One library of SQLite has a file in a process at a time; so an engine claims its file, and ours is refused it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from atoll.engines.sqlalchemy.dialect import INBOX_RETENTION_S, Dialect, Verb
from atoll.engines.sqlite import joined_sql, libraries
from atoll.engines.sqlite.joined import explained_sqlite3, outside
from atoll.engines.sqlite.joined_sql import Execute, Rows
from atoll.errors import AtollError

_claims: weakref.WeakKeyDictionary[Engine, Callable[[], object]] = weakref.WeakKeyDictionary()
_VERBS: dict[Verb, Callable[..., Any]] = {
    "once": joined_sql.once,
    "fence": joined_sql.fence,
    "put": joined_sql.put,
    "any_staged": joined_sql.any_staged,
    "staged": joined_sql.staged,
    "forget": joined_sql.forget,
    "waiting": joined_sql.waiting,
    "queues": joined_sql.queues,
    "prune": joined_sql.prune,
}
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 6) = 'atoll_' ORDER BY 1"


class SqliteDialect:
    """See `Dialect`."""

    def schema(self) -> str:
        return joined_sql.schema()

    def name_of(self, engine: Engine) -> str:
        return Path(path).stem if (path := _path(engine)) else "memory"

    def open(self, engine: Engine) -> None:
        claim(engine)

    def close(self, engine: Engine) -> None:
        if (release := _claims.pop(engine, None)) is not None:
            release()

    def prepare(self, connection: Connection, where: str) -> None:
        joined_sql.ensure(speaking(connection), where)
        joined_sql.prune(speaking(connection), INBOX_RETENTION_S)

    def make(self, connection: Connection, where: str) -> list[str]:
        execute = speaking(connection)
        before = execute(_TABLES, ())
        joined_sql.ensure(execute, where)
        return [row[0] for row in execute(_TABLES, ()) if row not in before]

    def enter(self, connection: Connection) -> None:
        claim(connection.engine)
        if not connection.in_transaction():
            connection.begin()
        driver: Any = connection.connection.driver_connection
        if driver.isolation_level is None and not driver.in_transaction:
            raise outside("SQLAlchemy connection in AUTOCOMMIT")

    def do(self, connection: Connection, verb: Verb, *arguments: Any) -> Any:
        return _VERBS[verb](speaking(connection), *arguments)

    def begin_reading(self, connection: Connection) -> None:
        """BEGIN, unless the driver has: sqlite3 sends none before a SELECT, and each would have its own."""
        if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
            connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").all()

    def expect_intact(self, connection: Connection) -> None:
        """SQLite's COMMIT says itself when there is nothing to commit."""

    def unconnected(self, error: Exception, where: str) -> AtollError | None:
        return self.explained(error, where) if isinstance(error, DBAPIError) else None

    def explained(self, error: DBAPIError, where: str) -> AtollError | None:
        cause: BaseException | None = error.orig
        while cause is not None and not hasattr(cause, "sqlite_errorcode"):
            cause = cause.__cause__
        told = explained_sqlite3(cause) if isinstance(cause, Exception) else None
        return told if isinstance(told, AtollError) else None

    def uncommitted(self, error: DBAPIError, where: str) -> AtollError | None:
        return self.explained(error, where)


def speaking(connection: Connection) -> Execute:
    """`execute` on a SQLAlchemy connection, past its SQL compiler."""

    def execute(sql: str, parameters: Sequence[Any]) -> Rows:
        result = connection.exec_driver_sql(sql, tuple(parameters))
        return [tuple(row) for row in result] if result.returns_rows else []

    return execute


def claim(engine: Engine) -> None:
    """Note that the standard library's SQLite has this engine's file; refused when our own engine has it."""
    path = _path(engine)
    if path is None:
        return
    if engine in _claims:
        libraries.refuse_standard(path)
    elif (key := libraries.claim_standard(path)) is not None:
        _claims[engine] = weakref.finalize(engine, libraries.release_standard, key)


def _path(engine: Engine) -> str | None:
    """The engine's file, None for a database in memory."""
    path = engine.url.database
    if not path or path == ":memory:" or "mode=memory" in path:
        return None
    return path.removeprefix("file:").partition("?")[0]


SQLITE: Dialect = SqliteDialect()
