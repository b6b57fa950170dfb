"""A SQLite file as the user's database: what is committed, what is not, who waits for whom."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import atoll
from atoll import clock
from atoll.engines.sqlite.database import DatabaseOptions, SqliteDatabase
from atoll.errors import ConfigurationError, Conflict, FormatRefused, NotApplied, Overloaded, ReadOnly


@asynccontextmanager
async def shop(path: Path, **options: Any) -> AsyncIterator[SqliteDatabase]:
    async with SqliteDatabase(path / "shop.db", options=DatabaseOptions(**options)) as database:
        async with database.begin() as tx:
            await tx.execute("CREATE TABLE IF NOT EXISTS sale (id INTEGER PRIMARY KEY, what TEXT UNIQUE)")
        yield database


async def sales(database: SqliteDatabase) -> list[Any]:
    async with database.read() as tx:
        return [what for (what,) in await tx.execute("SELECT what FROM sale ORDER BY id")]


async def test_leaving_the_block_commits_and_an_error_rolls_back(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        async with database.begin() as tx:
            await tx.executemany("INSERT INTO sale (what) VALUES (?)", [("tea",), ("milk",)])
        with pytest.raises(RuntimeError):
            async with database.begin() as tx:
                await tx.execute("INSERT INTO sale (what) VALUES (:what)", {"what": "salt"})
                raise RuntimeError("the body failed")
        assert await sales(database) == ["tea", "milk"]


async def test_an_error_in_the_users_sql_comes_as_it_is_and_can_be_caught(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        async with database.begin() as tx:
            await tx.execute("INSERT INTO sale (what) VALUES ('tea')")
            with pytest.raises(apsw.ConstraintError):
                await tx.execute("INSERT INTO sale (what) VALUES ('tea')")
            await tx.execute("INSERT INTO sale (what) VALUES ('milk')")
        assert await sales(database) == ["tea", "milk"]


async def test_cancelled_anywhere_inside_nothing_stays_and_the_next_one_gets_its_turn(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with shop(tmp_path) as database:
        begun = asyncio.Event()

        async def body(sql: str) -> None:
            async with database.begin() as tx:
                await tx.execute("INSERT INTO sale (what) VALUES ('tea')")
                begun.set()
                await tx.execute(sql)
                await asyncio.Event().wait()

        for sql in (endless, "SELECT 1"):
            begun.clear()
            task = asyncio.create_task(body(sql))
            await begun.wait()
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(10):
                async with database.begin() as tx:
                    await tx.execute("DELETE FROM sale")
            assert await sales(database) == []


async def test_a_deadline_stops_a_statement_that_runs_on(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with shop(tmp_path) as database:
        with pytest.raises(NotApplied):
            async with database.begin() as tx:
                await tx.execute("INSERT INTO sale (what) VALUES ('tea')")
                with clock.deadline(0.05):
                    await tx.execute(endless)
        assert await sales(database) == []


async def test_writers_take_turns_so_no_update_is_lost(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        async with database.begin() as tx:
            await tx.execute("CREATE TABLE counter (n)")
            await tx.execute("INSERT INTO counter VALUES (0)")

        async def add() -> None:
            async with database.begin() as tx:
                n = (await tx.execute("SELECT n FROM counter"))[0][0]
                await asyncio.sleep(0)
                await tx.execute("UPDATE counter SET n = ?", (n + 1,))

        await asyncio.gather(*(add() for _ in range(40)))
        async with database.read() as tx:
            assert await tx.execute("SELECT n FROM counter") == [(40,)]


async def test_waiting_for_a_long_transaction_ends_in_conflict(tmp_path: Path) -> None:
    async with shop(tmp_path, wait_s=0.05) as database, database.begin():
        with pytest.raises(Conflict, match="Nothing was begun"):
            async with database.begin():
                pass


async def test_a_stranger_who_writes_for_long_is_a_conflict_too(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        stranger = context.Process(target=write_for_long, args=(str(tmp_path / "shop.db"), there))
        stranger.start()
        try:
            await asyncio.to_thread(here.recv)
            with pytest.raises(Conflict, match="another program"):
                async with database.begin():
                    pass
        finally:
            here.send("enough")
            stranger.join(20)
        async with database.begin() as tx:
            await tx.execute("INSERT INTO sale (what) VALUES ('tea')")


def write_for_long(path: str, pipe: Any) -> None:
    import sqlite3

    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    pipe.send("begun")
    pipe.recv()
    connection.execute("ROLLBACK")


async def test_a_reader_sees_one_moment_and_waits_for_no_writer(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        async with database.begin() as writer, database.read() as reader:
            await writer.execute("INSERT INTO sale (what) VALUES ('tea')")
            assert await reader.execute("SELECT * FROM sale") == []
            with pytest.raises(ReadOnly, match="only reads"):
                await reader.execute("DELETE FROM sale")
        assert await sales(database) == ["tea"]
        async with database.begin() as tx:  # the session that only read may write again
            await tx.execute("DELETE FROM sale")


async def test_more_transactions_than_sessions_wait_and_then_are_overloaded(tmp_path: Path) -> None:
    async with shop(tmp_path, max_sessions=2, wait_s=0.1) as database:
        async with database.read(), database.read():
            with pytest.raises(Overloaded, match="max_sessions"):
                async with database.read():
                    pass
        await asyncio.gather(*(sales(database) for _ in range(10)))


async def test_a_transaction_used_after_its_block_says_so(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        async with database.begin() as tx:
            pass
        with pytest.raises(ConfigurationError, match="has ended"):
            await tx.execute("SELECT 1")


async def test_a_committed_transaction_survives_kill_9_and_an_open_one_leaves_nothing(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        victim = context.Process(target=commit_one_and_hold_another, args=(str(tmp_path / "shop.db"), there))
        victim.start()
        assert await asyncio.to_thread(here.recv) == "holding"
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join(20)
        async with asyncio.timeout(20):
            async with database.begin() as tx:
                assert await tx.execute("SELECT what FROM sale") == [("committed",)]


def commit_one_and_hold_another(path: str, pipe: Any) -> None:
    async def body() -> None:
        database = SqliteDatabase(path)
        async with database.begin() as tx:
            await tx.execute("INSERT INTO sale (what) VALUES ('committed')")
        async with database.begin() as tx:
            await tx.execute("INSERT INTO sale (what) VALUES ('open')")
            pipe.send("holding")
            await asyncio.Event().wait()

    asyncio.run(body())


async def test_the_handle_opens_anew_in_a_forked_child(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        assert await sales(database) == []
        child = multiprocessing.get_context("fork").Process(target=sell_in_child, args=(database,))
        child.start()
        await asyncio.to_thread(child.join, 20)
        assert child.exitcode == 0
        assert await sales(database) == ["from the child"]


def sell_in_child(database: SqliteDatabase) -> None:
    async def body() -> None:
        async with database.begin() as tx:
            await tx.execute("INSERT INTO sale (what) VALUES ('from the child')")

    # The child inherits the mark of a running loop from the thread that forked.
    asyncio.events._set_running_loop(None)
    asyncio.run(body())


async def test_a_future_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        async with database.begin() as tx:
            await tx.execute("UPDATE atoll_format SET number = 99 WHERE part = 'joined'")
    with pytest.raises(FormatRefused, match="99"):
        await atoll.database(f"sqlite:///{tmp_path}/shop.db").open()


async def test_the_name_is_the_files_unless_another_is_given(tmp_path: Path) -> None:
    assert atoll.database(f"sqlite:///{tmp_path}/shop.db").name == "shop"
    assert atoll.database(f"sqlite:///{tmp_path}/shop.db", name="orders").name == "orders"
    with pytest.raises(ConfigurationError, match="max_sessions"):
        atoll.database(f"sqlite:///{tmp_path}/shop.db?sessions=3")
