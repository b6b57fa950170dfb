"""Joined on SQLAlchemy: inside the transaction of a session or connection, of either colour.

The guest speaks only when its host has begun, in the host's language, and never ends the conversation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from atoll import clock
from atoll.engines.sqlalchemy import dialect
from atoll.engines.sqlalchemy.asyncio_half import is_async_connection, is_async_registry, is_async_session
from atoll.engines.sqlalchemy.dialect import INBOX_RETENTION_S, Dialect, Verb
from atoll.errors import Conflict, NotSent
from atoll.ports.broker import Message
from atoll.ports.joined import Joined, register
from atoll.ports.store import Token

PRUNE_EVERY = 256
CEILING_S = 30.0


class SqlAlchemyJoined:
    """The four verbs; `once` also forgets ids past their retention, now and then, in the same transaction."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    async def once(self, tx: Any, scope: str, id: str) -> bool:
        """True the first time `id` is seen in `scope`; waits until a rival has committed or not."""
        new = bool(await self._do(tx, "once", scope, id))
        if clock.chance().random() < 1 / PRUNE_EVERY:
            await self._do(tx, "prune", INBOX_RETENTION_S)
        return new

    async def fence(self, tx: Any, resource: str, token: Token) -> None:
        """Note `token`; Refused if a greater one is noted."""
        await self._do(tx, "fence", resource, token)

    async def put(self, tx: Any, queue: str, messages: Sequence[Message]) -> None:
        """Stage messages in the outbox."""
        await self._do(tx, "put", queue, messages)

    def schema(self) -> str:
        """The tables as SQL."""
        return self._dialect.schema()

    async def _do(self, tx: Any, verb: Verb, *arguments: Any) -> Any:
        """One verb inside the transaction of `tx`; it begins one if none is begun."""
        if isinstance(tx, scoped_session) or is_async_registry(tx):
            tx = tx()

        def work(connection: Connection) -> Any:
            self._dialect.enter(connection)
            return self._dialect.do(connection, verb, *arguments)

        with explaining(self._dialect, "the database"):
            if is_async_session(tx):
                session = tx
                return await _bounded(lambda: session.run_sync(lambda plain: work(plain.connection())))
            if is_async_connection(tx):
                connection = tx
                return await _bounded(lambda: connection.run_sync(work))
            return work(tx.connection() if isinstance(tx, Session) else tx)


async def _bounded(ask: Callable[[], Any]) -> Any:
    """Not longer than the deadline in force or the ceiling; whoever is late rolls back."""
    left = clock.remaining_s(CEILING_S)
    if left <= 0:
        raise NotSent("the deadline passed before this statement was sent. Roll back; nothing happened.")
    limit = asyncio.timeout(left + 1)  # the server's own word, if it has one, is worth waiting for
    try:
        async with limit:
            return await ask()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Conflict(
            f"the database has not answered for {left:.3g} s: another transaction has the row, or the server "
            "stands still. Nothing of this transaction is committed. Roll it back and retry the whole."
        ) from error


class explaining:
    """Around SQL of ours: what the server says of locks, tables and the disk, in Atoll's words."""

    def __init__(self, dialect: Dialect, where: str, *, commit: bool = False) -> None:
        self._dialect, self._where, self._commit = dialect, where, commit

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, DBAPIError):
            return
        ask = self._dialect.uncommitted if self._commit else self._dialect.explained
        if (told := ask(error, self._where)) is not None:
            raise told from error


def adapt(tx: object) -> Joined | None:
    """Recognise SQLAlchemy's sessions and connections; those of another dialect are refused by name."""
    bind: Engine | Connection
    one: Any = tx
    if isinstance(tx, scoped_session) or is_async_registry(tx):
        one = one()
    if is_async_session(one):
        bind = one.sync_session.get_bind()
    elif is_async_connection(one):
        bind = one.engine.sync_engine
    elif isinstance(one, Session):
        bind = one.get_bind()
    elif isinstance(one, Connection):
        bind = one
    else:
        return None
    return SqlAlchemyJoined(dialect.of(bind.engine))


register(adapt)
