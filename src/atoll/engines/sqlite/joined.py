"""Joined on SQLite: on our own transactions, on apsw's and on the standard library's connections.

The same note pinned to the parcel, whoever packs it. A SQLAlchemy session is the business of
`engines/sqlalchemy`, which speaks the same SQL.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from atoll.engines.sqlite import joined_sql, libraries, row_lock
from atoll.engines.sqlite.joined_sql import Execute, Rows
from atoll.engines.sqlite.transaction import SqliteTransaction
from atoll.engines.sqlite.translation import DISK, translate
from atoll.errors import ConfigurationError
from atoll.ports.broker import Message
from atoll.ports.joined import Joined, register
from atoll.ports.store import Token

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
Enter = Callable[[Any, Callable[[Execute], Any]], Awaitable[Any]]


class SqliteJoined:
    """The port's four verbs; `enter(tx, work)` says how `work(execute)` is run inside `tx`."""

    def __init__(self, enter: Enter) -> None:
        self._enter = enter

    async def once(self, tx: Any, scope: str, id: str) -> bool:
        """True the first time `id` is seen in `scope`."""
        return bool(await self._enter(tx, lambda execute: joined_sql.once(execute, scope, id)))

    async def fence(self, tx: Any, resource: str, token: Token) -> None:
        """Note `token`; Refused if a greater one is noted."""
        await self._enter(tx, lambda execute: joined_sql.fence(execute, resource, token))

    async def put(self, tx: Any, queue: str, messages: Sequence[Message]) -> None:
        """Stage messages in the outbox."""
        await self._enter(tx, lambda execute: joined_sql.put(execute, queue, messages))

    def schema(self) -> str:
        """The tables as SQL."""
        return joined_sql.schema()


def speaking(connection: apsw.Connection) -> Execute:
    """`execute` on an apsw connection."""
    return lambda sql, parameters: list(connection.execute(sql, parameters))


async def in_transaction(tx: SqliteTransaction, work: Callable[[Execute], T]) -> T:
    """Run `work` in a transaction of `SqliteDatabase.begin()`, in one hop to its thread."""

    def on(connection: apsw.Connection) -> T:
        try:
            return work(speaking(connection))
        except apsw.Error as error:
            if (told := explained(error)) is error:
                raise
            raise told from error

    return await tx.run(on)


async def on_apsw(connection: apsw.Connection, work: Callable[[Execute], T]) -> T:
    """Run `work` on the caller's own apsw connection, in the caller's thread."""
    if not connection.in_transaction:
        raise outside("apsw connection")
    try:
        return work(speaking(connection))
    except apsw.Error as error:
        if (told := explained(error)) is error:
            raise
        raise told from error


async def on_sqlite3(connection: sqlite3.Connection, work: Callable[[Execute], T]) -> T:
    """Run `work` on a connection of the standard library, in the caller's thread."""
    import sqlite3

    for _, name, path in connection.execute("PRAGMA database_list").fetchall():
        if path and name == "main":
            libraries.refuse_standard(path)
    if not connection.in_transaction and connection.isolation_level is None:
        raise outside("sqlite3 connection")

    def execute(sql: str, parameters: Sequence[Any]) -> Rows:
        return connection.execute(sql, parameters).fetchall()

    try:
        return work(execute)
    except sqlite3.Error as error:
        if (told := explained_sqlite3(error)) is error:
            raise
        raise told from error


def explained(error: apsw.Error, path: str = "the database") -> Exception:
    """An apsw error of ours to explain; the user's own come as they are."""
    if isinstance(error, apsw.BusyError):
        return joined_sql.conflict(
            "SQLite", stale=getattr(error, "extendedresult", 0) == apsw.SQLITE_BUSY_SNAPSHOT
        )
    if isinstance(error, apsw.SQLError) and "no such table: atoll_" in str(error):
        return no_tables(str(error))
    return row_lock.conflict(path) if row_lock.refused(error) else translate(error, path)


def explained_sqlite3(error: Exception) -> Exception:
    """The same for the standard library's errors."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == apsw.SQLITE_BUSY:
        return joined_sql.conflict("SQLite", stale=code == apsw.SQLITE_BUSY_SNAPSHOT)
    if "no such table: atoll_" in str(error):
        return no_tables(str(error))
    if row_lock.LOCKED in str(error):
        return row_lock.conflict("the database")
    found = apsw.exception_for(code) if code else None
    return translate(found, "the database") if isinstance(found, DISK) else error


def no_tables(said: str) -> ConfigurationError:
    return ConfigurationError(
        f"{said}: this database has no Atoll tables yet. Run `await atoll.database(...).open()` on it once, "
        "or the SQL of `database.joined.schema()` in a migration."
    )


def outside(kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"found a {kind} without an open transaction; a fence or an outbox message means nothing outside of "
        "one. Execute BEGIN IMMEDIATE first, and COMMIT after."
    )


JOINED: Joined = SqliteJoined(in_transaction)
_ON_APSW: Joined = SqliteJoined(on_apsw)
_ON_SQLITE3: Joined = SqliteJoined(on_sqlite3)


def adapt(tx: object) -> Joined | None:
    """Recognise a transaction of ours, an apsw connection, a connection of the standard library."""
    if isinstance(tx, SqliteTransaction):
        return JOINED
    if isinstance(tx, apsw.Connection):
        return _ON_APSW
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is not None and isinstance(tx, sqlite3.Connection):
        return _ON_SQLITE3
    return None


register(adapt)
