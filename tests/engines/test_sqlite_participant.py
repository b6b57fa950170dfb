"""A SQLite file as a participant: branches open, promise, and end from any process, any number of times."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from atoll.engines.sqlite import SqliteDatabase
from atoll.engines.sqlite.database import DatabaseOptions
from atoll.errors import ConfigurationError, Conflict, FormatRefused
from atoll.ports.participant import Finished, Outcome, Vote


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[SqliteDatabase]:
    async with SqliteDatabase(folder / "shop.db", options=DatabaseOptions(wait_s=0.5)) as database:
        async with database.begin() as db:
            await db.execute("CREATE TABLE IF NOT EXISTS row(id INTEGER PRIMARY KEY, n INTEGER)")
            await db.execute("INSERT OR IGNORE INTO row VALUES (1, 0)")
        yield database


async def number(database: SqliteDatabase) -> int:
    async with database.read() as db:
        return int((await db.execute("SELECT n FROM row WHERE id = 1"))[0][0])


async def test_a_branch_is_busy_while_open_then_done_once_then_absent(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        party = database.participant
        branch = await party.begin("t/1")
        await branch.tx.execute("UPDATE row SET n = 1")
        assert await party.finish("t/1", Outcome.ABORT) is Finished.BUSY
        assert await branch.prepare() is Vote.PREPARED
        assert await number(database) == 0
        assert await party.finish("t/1", Outcome.COMMIT) is Finished.DONE
        assert await party.finish("t/1", Outcome.COMMIT) is Finished.ABSENT
        assert await number(database) == 1


async def test_an_aborted_branch_leaves_the_file_free_before_and_after_the_promise(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        for promised in (False, True):
            branch = await database.participant.begin(f"t/{promised}")
            await branch.tx.execute("UPDATE row SET n = 1")
            if promised:
                await branch.prepare()
            await branch.abort()
            await branch.abort()
            with pytest.raises(ConfigurationError, match="has ended"):
                await branch.tx.execute("SELECT 1")
            with pytest.raises(Conflict, match="is over"):
                await branch.prepare()
            async with database.begin() as db:
                await db.execute("UPDATE row SET n = n")
        assert await database.participant.in_doubt() == []


async def test_a_held_row_is_a_conflict_for_everybody_in_the_process(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        branch = await database.participant.begin("t/1")
        await branch.tx.execute("UPDATE row SET n = 1")
        await branch.prepare()
        other = await database.participant.begin("t/2")
        with pytest.raises(Conflict, match="prepared transaction"):
            await other.tx.execute("UPDATE row SET n = 2")
        await other.abort()
        with pytest.raises(Conflict, match="prepared transaction"):
            async with database.begin() as db:
                await db.execute("UPDATE row SET n = 2")


async def test_a_second_branch_waits_its_bound_and_gets_a_conflict(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        branch = await database.participant.begin("t/1")
        with pytest.raises(Conflict):
            await database.participant.begin("t/2")
        await branch.abort()
        await (await database.participant.begin("t/2")).abort()


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_at_any_await_it_gives_the_turn_back(tmp_path: Path, steps: int) -> None:
    async with shop(tmp_path) as database:

        async def branch() -> None:
            opened = await database.participant.begin("t/1")
            try:
                await opened.tx.execute("UPDATE row SET n = 1")
                await opened.prepare()
            except BaseException:
                await opened.abort()
                raise

        task = asyncio.create_task(branch())
        for _ in range(steps):
            await asyncio.sleep(0.0004)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.participant.finish("t/1", Outcome.ABORT)
        async with database.begin() as db:
            await db.execute("UPDATE row SET n = 5")


@pytest.mark.parametrize("id", ["", "x" * 65, "é" * 33])
async def test_an_id_has_1_to_64_bytes(tmp_path: Path, id: str) -> None:
    async with shop(tmp_path) as database:
        with pytest.raises(ConfigurationError, match="1 to 64"):
            await database.participant.begin(id)


def _prepare_and_die(folder: Path) -> None:
    async def left() -> None:
        async with shop(folder) as database:
            branch = await database.participant.begin("t/1")
            await branch.tx.execute("UPDATE row SET n = 7")
            await branch.prepare()
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(left())


async def test_another_process_finishes_what_a_killed_one_promised(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_prepare_and_die, args=(tmp_path,))
    child.start()
    await asyncio.get_running_loop().run_in_executor(None, child.join, 60)
    assert child.exitcode == -signal.SIGKILL
    async with shop(tmp_path) as database:
        doubts = await database.participant.in_doubt("t/")
        assert [(doubt.id, doubt.locks) for doubt in doubts] == [("t/1", "row(id=1)")]
        assert await database.participant.finish("t/1", Outcome.COMMIT) is Finished.DONE
        assert await number(database) == 7


async def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    async with shop(tmp_path) as database:
        await database.participant.open()
    connection = apsw.Connection(str(tmp_path / "shop.db"))
    connection.execute("UPDATE atoll_format SET number = 2 WHERE part = 'participant'")
    connection.close()
    async with shop(tmp_path) as database:
        with pytest.raises(FormatRefused, match="participant"):
            await database.participant.begin("t/1")


async def test_outbox_inbox_and_fence_work_inside_a_branch(tmp_path: Path) -> None:
    from atoll.ports.broker import Message
    from atoll.ports.store import Token

    async with shop(tmp_path) as database:
        branch = await database.participant.begin("t/1")
        assert await database.joined.once(branch.tx, "scope", "m1")
        await database.joined.fence(branch.tx, "lock/x", Token(1, 5))
        await database.joined.put(branch.tx, "queue", [Message(id="1", body=b"hello")])
        await branch.prepare()
        assert await database.relaying.waiting() == (0, 0)
        second = await database.participant.begin("t/2")
        await database.joined.put(second.tx, "queue", [Message(id="2", body=b"world")])
        await second.prepare()
        for id in ("t/2", "t/1"):
            assert await database.participant.finish(id, Outcome.COMMIT) is Finished.DONE
        assert sorted(
            s.message.body for s in await database.relaying.staged(9, claim_s=1, queues=["queue"])
        ) == [
            b"hello",
            b"world",
        ]
