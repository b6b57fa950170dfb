"""PostgreSQL behind a SQLAlchemy connection, through asyncpg or psycopg.

The script of the four sentences is PostgreSQL's own; only the way to say a line is SQLAlchemy's. Its
statements go where the session's own go: echo, events and a broken connection are noticed as ever. Whether
they are prepared by name is the engine's setting, as it is for every other statement of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from atoll import clock
from atoll.engines.postgresql import joined_sql, schema, sqlstate
from atoll.engines.postgresql.cut import cut_after
from atoll.engines.postgresql.ending import failed
from atoll.engines.postgresql.joined import CEILING_S, GRACE_S, WHERE, Say, bounded, outside, played, spoken
from atoll.engines.postgresql.joined_sql import Rows, Script
from atoll.engines.postgresql.transaction import READING, expect_intact
from atoll.engines.sqlalchemy.dialect import Dialect, Verb
from atoll.errors import AtollError

DRIVERS = ("asyncpg", "psycopg", "psycopg_async")
_VERBS: dict[Verb, Callable[..., Script[Any]]] = {
    "once": lambda *words: bounded(joined_sql.once(*words)),
    "fence": lambda *words: bounded(joined_sql.fence(*words)),
    "put": joined_sql.put,
    "any_staged": joined_sql.any_staged,
    "staged": joined_sql.staged,
    "forget": joined_sql.forget,
    "waiting": joined_sql.waiting,
    "queues": joined_sql.queues,
    "prune": joined_sql.prune,
}


class PostgresDialect:
    """See `Dialect`."""

    def schema(self) -> str:
        return joined_sql.schema()

    def name_of(self, engine: Engine) -> str:
        return engine.url.database or "postgresql"

    def open(self, engine: Engine) -> None:
        """A server is nobody's file: nothing to claim."""

    def close(self, engine: Engine) -> None:
        """And nothing to give back."""

    def prepare(self, connection: Connection, where: str) -> None:
        played(joined_sql.check_format(where), saying(connection))

    def make(self, connection: Connection, where: str) -> list[str]:
        return played(schema.make(where), saying(connection))

    def enter(self, connection: Connection) -> None:
        if not connection.in_transaction():
            connection.begin()
        if getattr(connection.connection.dbapi_connection, "autocommit", False):
            raise outside("SQLAlchemy connection in AUTOCOMMIT", "a transaction, not AUTOCOMMIT,")

    def do(self, connection: Connection, verb: Verb, *arguments: Any) -> Any:
        script = _VERBS[verb](*arguments)
        if not connection.dialect.is_async:
            return played(script, saying(connection))
        left = max(0.0, clock.remaining_s(CEILING_S))
        with cut_after(connection.connection.driver_connection, left + GRACE_S, WHERE):
            return played(script, saying(connection))

    def begin_reading(self, connection: Connection) -> None:
        connection.exec_driver_sql(READING)

    def expect_intact(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        where = connection.engine.url.render_as_string()
        if connection.dialect.driver != "asyncpg":
            expect_intact(driver, where)
            return
        try:  # asyncpg does not say whether a transaction has failed
            connection.exec_driver_sql("SELECT 1")
        except DBAPIError as error:
            if sqlstate.code(error.orig or error) != "25P02":
                raise
            raise failed(where) from error

    def unconnected(self, error: Exception, where: str) -> AtollError | None:
        heard = _heard(error) if isinstance(error, DBAPIError) else error
        if sqlstate.lost(heard) or sqlstate.code(heard) is not None:
            return sqlstate.unconnected(heard, where)
        return None

    def explained(self, error: DBAPIError, where: str) -> AtollError | None:
        return sqlstate.explained(_heard(error), where)

    def uncommitted(self, error: DBAPIError, where: str) -> AtollError | None:
        return sqlstate.uncommitted(_heard(error), where)


def _heard(error: DBAPIError) -> BaseException:
    """What the driver raised; a connection that SQLAlchemy has given up counts as lost."""
    cause = error.orig or error
    if error.connection_invalidated and not sqlstate.lost(cause):
        return ConnectionError(str(cause))
    return cause


def saying(connection: Connection) -> Say:
    """A line said on a SQLAlchemy connection, past its SQL compiler, in its driver's own words."""
    dollars = connection.dialect.driver == "asyncpg"

    def say(sql: str, parameters: tuple[Any, ...]) -> Rows:
        words: Any = parameters
        if not dollars:
            sql, words = spoken(sql, parameters)
        result = connection.exec_driver_sql(sql, words or None)
        return [tuple(row) for row in result] if result.returns_rows else []

    return say


POSTGRESQL: Dialect = PostgresDialect()
