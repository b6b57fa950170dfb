"""A SQLAlchemy engine on SQLite is a database: its sessions carry outbox, inbox and fence."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import atoll
from atoll.errors import ConfigurationError, Conflict, FormatRefused, Refused
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.store import Token


def message(id: str) -> Message:
    return Message(id=id, body=id.encode(), headers={"traceparent": "00"})


async def dispose(engine: Any) -> None:
    """Close what its pool keeps, while there is a loop to close it in."""
    closing = engine.dispose()
    if inspect.isawaitable(closing):
        await closing


@asynccontextmanager
async def shop(path: Path, kind: str) -> AsyncIterator[Any]:
    """A database handle on the user's engine, with a table of the user's own."""
    engine: Any
    if kind == "async":
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}/shop.db")
    else:
        engine = create_engine(f"sqlite:///{path}/shop.db")
    database: Any = atoll.database(engine)
    try:
        async with database:
            async with database.begin() as session:
                await run(session, "CREATE TABLE sale (id INTEGER PRIMARY KEY, what TEXT UNIQUE)")
            yield database
    finally:
        await dispose(engine)


async def run(session: AsyncSession | Session, sql: str) -> list[Any]:
    result: Any = session.execute(text(sql))
    if isinstance(session, AsyncSession):
        result = await result
    return list(result) if result.returns_rows else []


BOTH = pytest.mark.parametrize("kind", ["async", "plain"])


@BOTH
async def test_the_row_and_the_message_commit_together(tmp_path: Path, kind: str) -> None:
    async with shop(tmp_path, kind) as database:
        async with database.begin() as session:
            await run(session, "INSERT INTO sale (what) VALUES ('tea')")
            await joined_on(session).put(session, "sold", [message("1"), message("2")])
        staged = await database.relaying.staged(10, claim_s=30, queues=["sold"])
        assert [(s.queue, s.message) for s in staged] == [("sold", message("1")), ("sold", message("2"))]
        assert staged[0].position < staged[1].position
        assert await database.relaying.staged(10, claim_s=30, queues=["sold"]) == []
        assert (await database.relaying.waiting())[0] == 2
        await database.relaying.forget([s.position for s in staged])
        assert await database.relaying.waiting() == (0, 0.0)


@BOTH
async def test_a_rollback_takes_the_message_and_the_seen_id_along(tmp_path: Path, kind: str) -> None:
    async with shop(tmp_path, kind) as database:
        with pytest.raises(RuntimeError):
            async with database.begin() as session:
                assert await database.joined.once(session, "reserve", "m1")
                await database.joined.put(session, "sold", [message("1")])
                raise RuntimeError("the body failed")
        assert (await database.relaying.waiting())[0] == 0
        async with database.begin() as session:
            assert await database.joined.once(session, "reserve", "m1")
        async with database.begin() as session:
            assert not await database.joined.once(session, "reserve", "m1")
            assert await database.joined.once(session, "another scope", "m1")


@BOTH
async def test_a_token_older_than_the_newest_is_refused(tmp_path: Path, kind: str) -> None:
    async with shop(tmp_path, kind) as database:
        for token in (Token(1, 7), Token(1, 7), Token(2, 1)):
            async with database.begin() as session:
                await joined_on(session).fence(session, "lock/a", token)
        with pytest.raises(Refused, match=r"your token is 1:99.* 2:1"):
            async with database.begin() as session:
                await joined_on(session).fence(session, "lock/a", Token(1, 99))


@BOTH
async def test_the_users_own_errors_stay_the_users_own(tmp_path: Path, kind: str) -> None:
    async with shop(tmp_path, kind) as database:
        with pytest.raises(IntegrityError):
            async with database.begin() as session:
                await run(session, "INSERT INTO sale (what) VALUES ('tea')")
                await run(session, "INSERT INTO sale (what) VALUES ('tea')")


async def test_connections_of_either_colour_carry_the_verbs_too(tmp_path: Path) -> None:
    async with shop(tmp_path, "async") as database, database.engine.connect() as connection:
        assert await joined_on(connection).once(connection, "s", "1")
        await connection.commit()
    async with _plain(tmp_path) as database:
        with database.engine.begin() as connection:
            assert not await joined_on(connection).once(connection, "s", "1")


@asynccontextmanager
async def _plain(path: Path) -> AsyncIterator[Any]:
    engine = create_engine(f"sqlite:///{path}/shop.db")
    async with atoll.database(engine) as database:
        yield database
    engine.dispose()


def begin_properly(engine: Any) -> None:
    """The recipe of SQLAlchemy's manual: a SELECT begins a transaction too."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


async def test_a_transaction_that_read_before_a_rival_wrote_is_told_to_retry_as_a_whole(
    tmp_path: Path,
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    begin_properly(engine)
    async with atoll.database(engine) as database:
        with Session(engine) as late, Session(engine) as rival:
            await run(late, "SELECT * FROM atoll_fence")
            await database.joined.fence(rival, "lock/a", Token(1, 2))
            rival.commit()
            with pytest.raises(Conflict, match="retry the whole transaction"):
                await database.joined.fence(late, "lock/a", Token(1, 3))
            late.rollback()
            await database.joined.fence(late, "lock/a", Token(1, 3))
            late.commit()
    engine.dispose()


async def test_a_rival_that_does_not_end_is_a_conflict(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db", connect_args={"timeout": 0.1})
    async with atoll.database(engine) as database:
        other = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Conflict, match="write lock"):
            async with database.begin() as session:
                await database.joined.once(session, "s", "1")
        other.execute("ROLLBACK")
        other.close()
    await engine.dispose()


async def test_autocommit_is_refused_because_nothing_would_be_joined(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db", isolation_level="AUTOCOMMIT")
    database = atoll.database(engine)
    await database.open()
    with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="BEGIN IMMEDIATE"):
            await database.joined.once(connection, "s", "1")
    await database.close()
    engine.dispose()


async def test_tables_that_are_missing_are_named_with_what_to_do(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    database = atoll.database(engine)
    with pytest.raises(ConfigurationError, match=r"open\(\)"):
        async with AsyncSession(engine) as session:
            await database.joined.once(session, "s", "1")
    async with AsyncSession(engine) as session:
        for statement in database.joined.schema().split(";"):
            if statement.strip():
                await session.execute(text(statement))
        assert await joined_on(session).once(session, "s", "1")
        await session.commit()
    await database.close()
    await engine.dispose()


async def test_tables_of_a_future_format_are_left_alone(tmp_path: Path) -> None:
    async with shop(tmp_path, "plain") as database:
        async with database.begin() as session:
            await run(session, "UPDATE atoll_format SET number = 99 WHERE part = 'joined'")
        await database.close()
        with pytest.raises(FormatRefused, match="99"):
            await database.open()


def test_another_dialect_is_refused_with_the_release_it_is_planned_for() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.name = "mysql"
    with pytest.raises(ConfigurationError, match=r"planned for 0.2"):
        atoll.database(engine)


async def test_an_engine_and_a_url_on_one_file_are_refused_in_one_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with shop(tmp_path, "async"):
        for make in (atoll.database, atoll.store, atoll.broker, atoll.tier):
            with pytest.raises(ConfigurationError, match="Use one way for each file"):
                await _opened(make, url)
    by_url = atoll.database(url)
    await by_url.open()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "shop.db")
    engine = create_async_engine(f"sqlite+aiosqlite:///{link}")
    with pytest.raises(ConfigurationError, match="Use one way for each file"):
        await atoll.database(engine).open()
    with pytest.raises(ConfigurationError, match="Use one way for each file"):
        async with AsyncSession(engine) as session:
            await joined_on(session).once(session, "s", "1")
    await by_url.close()
    async with atoll.database(engine):
        pass
    await engine.dispose()


async def _opened(make: Callable[[str], Any], url: str) -> None:
    handle = make(url)
    await handle.open()
    await handle.close()


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_read_is_one_snapshot_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    if kind == "async":
        engine: Any = create_async_engine(f"sqlite+aiosqlite:///{path}")
    else:
        engine = create_engine(f"sqlite:///{path}")
    database = atoll.database(engine)

    async def scalar(session: Any, sql: str) -> Any:
        answer = session.execute(text(sql))
        return (await answer if kind == "async" else answer).scalar()

    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("CREATE TABLE t (n INTEGER)")
    async with database:
        async with database.read() as session:
            with sqlite3.connect(path) as raw:
                raw.execute("INSERT INTO t VALUES (1)")
            assert await scalar(session, "SELECT count(*) FROM t") == 0
            assert await scalar(session, "SELECT count(*) FROM t") == 0
        async with database.read() as session:
            assert await scalar(session, "SELECT count(*) FROM t") == 1
    await dispose(engine)
