"""Joined on PostgreSQL: on psycopg's connections and asyncpg's, inside a transaction the user has open.

One script, and for each library a reader who knows how a line is spoken there. No statement is prepared
under a name, because behind PgBouncer in transaction mode the next line may be heard by another server.
A SQLAlchemy session is the business of `engines/sqlalchemy`, which plays the same script.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from atoll import clock
from atoll.engines.postgresql import joined_sql
from atoll.engines.postgresql.cut import cut_after
from atoll.engines.postgresql.joined_sql import Rows, Script
from atoll.engines.postgresql.sqlstate import explained
from atoll.errors import ConfigurationError, NotSent
from atoll.ports.broker import Message
from atoll.ports.joined import Joined, register
from atoll.ports.store import Token

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Play = Callable[[Any, Script[Any]], Awaitable[Any]]
Say = Callable[[str, tuple[Any, ...]], Rows]
SayAwaiting = Callable[[str, tuple[Any, ...]], Awaitable[Rows]]

CEILING_S = 30.0
"""How long a verb waits for a rival's transaction; the server's own lock_timeout may be shorter."""
GRACE_S = 0.25
"""How long after the deadline the server's own word is waited for, before the connection is cut off."""
WHERE = "PostgreSQL"


class PostgresJoined:
    """The port's four verbs; `play(tx, script)` says how a script is spoken inside `tx`."""

    def __init__(self, play: Play) -> None:
        self.play = play

    async def once(self, tx: Any, scope: str, id: str) -> bool:
        """True the first time `id` is seen in `scope`; waits until a rival has committed or not."""
        return bool(await self.play(tx, bounded(joined_sql.once(scope, id))))

    async def fence(self, tx: Any, resource: str, token: Token) -> None:
        """Note `token`; Refused if a greater one is noted."""
        await self.play(tx, bounded(joined_sql.fence(resource, token)))

    async def put(self, tx: Any, queue: str, messages: Sequence[Message]) -> None:
        """Stage messages in the outbox."""
        await self.play(tx, joined_sql.put(queue, messages))

    def schema(self) -> str:
        """The tables as SQL."""
        return joined_sql.schema()


def bounded(script: Script[T]) -> Script[T]:
    """With a deadline in force, the server itself stops waiting for a rival by then.

    So the answer is a sentence of the server's and the connection is still in step, also where the caller is
    a thread that nobody can interrupt. Without a deadline this adds no round trip.
    """
    left = clock.remaining_s(float("inf"))
    if left == float("inf"):
        return (yield from script)
    if left <= 0:
        raise NotSent("the deadline passed before this statement was sent. Roll back; nothing happened.")
    milliseconds = str(max(1, int(left * 1000)))
    [[before, _]] = yield (
        "SELECT current_setting('lock_timeout'), set_config('lock_timeout', $1::text, true)",
        (milliseconds,),
    )
    answer = yield from script
    yield "SELECT set_config('lock_timeout', $1::text, true)", (before,)
    return answer


def played(script: Script[T], say: Say) -> T:
    """The script's answer, spoken by a caller that blocks."""
    try:
        statement = next(script)
        while True:
            statement = script.send(say(*statement))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def played_awaiting(script: Script[T], say: SayAwaiting, connection: object, where: str) -> T:
    """The same, awaited, and no longer than the deadline in force or the ceiling."""
    left = clock.remaining_s(CEILING_S)
    if left <= 0:
        raise NotSent("the deadline passed before this statement was sent. Roll back; nothing happened.")
    with cut_after(connection, left + GRACE_S, where):
        try:
            statement = next(script)
            while True:
                statement = script.send(await say(*statement))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def spoken(sql: str, parameters: Sequence[Any]) -> tuple[str, dict[str, Any] | None]:
    """A statement as psycopg writes it; without parameters it is not read for any."""
    if not parameters:
        return sql, None
    return _with_names(sql), {f"p{n}": value for n, value in enumerate(parameters, 1)}


@cache
def _with_names(sql: str) -> str:
    return re.sub(r"\$(\d+)", r"%(p\1)s", sql)


def has_rows(sql: str) -> bool:
    """Whether this statement is answered by rows. In a pipeline of psycopg's the cursor does not know yet."""
    return sql.startswith("SELECT") or (sql.startswith(("INSERT", "WITH")) and " RETURNING " in sql)


async def on_psycopg(connection: psycopg.Connection[Any], script: Script[T]) -> T:
    """In the caller's thread, on a connection that blocks."""
    return spoken_by_psycopg(connection, script, WHERE)


def spoken_by_psycopg(connection: psycopg.Connection[Any], script: Script[T], where: str) -> T:
    """The same for a caller that blocks too."""
    import psycopg
    from psycopg.rows import tuple_row

    _expect_transaction(connection)

    def say(sql: str, parameters: tuple[Any, ...]) -> Rows:
        with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
            cursor.execute(*spoken(sql, parameters), prepare=False)
            return cursor.fetchall() if has_rows(sql) else []

    try:
        return played(script, say)
    except psycopg.Error as error:
        if (told := explained(error, where)) is None:
            raise
        raise told from error


async def on_psycopg_async(
    connection: psycopg.AsyncConnection[Any], script: Script[T], where: str = WHERE
) -> T:
    """On an AsyncConnection."""
    import psycopg
    from psycopg.rows import tuple_row

    _expect_transaction(connection)

    async def say(sql: str, parameters: tuple[Any, ...]) -> Rows:
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(*spoken(sql, parameters), prepare=False)
            return await cursor.fetchall() if has_rows(sql) else []

    try:
        return await played_awaiting(script, say, connection, where)
    except psycopg.Error as error:
        if (told := explained(error, where)) is None:
            raise
        raise told from error


def _expect_transaction(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    from psycopg.pq import TransactionStatus

    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise outside("psycopg connection in autocommit", "`async with connection.transaction():`")


async def on_asyncpg(connection: Any, script: Script[T], where: str = WHERE) -> T:
    """On asyncpg's Connection, or what its pool hands out."""
    import asyncpg

    async def say(sql: str, parameters: tuple[Any, ...]) -> Rows:
        # "": the unnamed statement. A named one may meet another client's namesake behind a pooler.
        statement = await connection.prepare(sql, name="")
        rows: Rows = await statement.fetch(*parameters)
        return rows

    try:
        if not connection.is_in_transaction():
            raise outside("asyncpg connection", "`async with connection.transaction():`")
        return await played_awaiting(script, say, connection, where)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        if (told := explained(error, where)) is None:
            raise
        raise told from error


def outside(kind: str, remedy: str) -> ConfigurationError:
    """The sentence for verbs that would be committed one by one."""
    return ConfigurationError(
        f"found a {kind} without an open transaction; a fence or an outbox message means nothing outside of "
        f"one. Write {remedy} around it."
    )


JOINED = PostgresJoined(on_psycopg_async)
ON_PSYCOPG: Joined = PostgresJoined(on_psycopg)
ON_ASYNCPG = PostgresJoined(on_asyncpg)


def kinds(module: str, *names: str) -> tuple[type, ...]:
    """Types of a library that may not be imported here; none of them while it is not."""
    found = sys.modules.get(module)
    with suppress(AttributeError):
        return tuple(getattr(found, name) for name in names) if found is not None else ()
    return ()


def adapt(tx: object) -> Joined | None:
    """Recognise psycopg's connections and asyncpg's, also a pool's proxy of one."""
    if isinstance(tx, kinds("psycopg", "AsyncConnection")):
        return JOINED
    if isinstance(tx, kinds("psycopg", "Connection")):
        return ON_PSYCOPG
    if isinstance(tx, (*kinds("asyncpg", "Connection"), *kinds("asyncpg.pool", "PoolConnectionProxy"))):
        return ON_ASYNCPG
    return None


register(adapt)
