"""A8: an inbox's message takes effect once, however often it is delivered, and also when its worker dies."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import Inbox, Queue


async def count(database: Any) -> int:
    async with database.read() as db:
        return int((await db.execute("SELECT n FROM counter"))[0][0])


async def counter(tmp_path: Path) -> Any:
    database = atoll.database(f"sqlite:///{tmp_path}/counter.db")
    async with database.begin() as db:
        await db.execute("CREATE TABLE IF NOT EXISTS counter (n INTEGER)")
        await db.execute("INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter)")
    return database


async def settle(queue: Queue[Any], seconds: float = 30) -> None:
    """Run the queue's workers until nothing waits."""
    inspecting = queue.broker.inspecting
    assert inspecting is not None
    async with asyncio.timeout(seconds):
        working = asyncio.create_task(queue.work())
        while any(d.ready + d.delayed + d.leased for d in await inspecting.depths()):
            await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.wait([working])


async def test_a_duplicate_changes_nothing(tmp_path: Path) -> None:
    database = await counter(tmp_path)
    queue = Queue(atoll.broker("memory://?dedupe_window_s=0"), "n", int)

    @Inbox(database).worker(queue)
    async def add(n: int, db: Any) -> None:
        await db.execute("UPDATE counter SET n = n + ?", (n,))

    for _ in range(3):
        await queue.put(5, id="m-1")
        await settle(queue)
    await queue.put(2, id="m-2")
    await settle(queue)
    assert await count(database) == 7
    await database.close()


async def test_a_failing_body_leaves_no_mark_so_its_next_attempt_counts(tmp_path: Path) -> None:
    database = await counter(tmp_path)
    queue = Queue(atoll.broker("memory://"), "n", int)
    tried: list[int] = []

    @Inbox(database).worker(queue, retry_s=0.01)
    async def add(n: int, db: Any) -> None:
        await db.execute("UPDATE counter SET n = n + ?", (n,))
        tried.append(n)
        if len(tried) < 3:
            raise ValueError("not yet")

    await queue.put(5)
    await settle(queue)
    assert len(tried) == 3 and await count(database) == 5
    await database.close()


async def test_two_functions_of_one_queue_each_take_effect_once(tmp_path: Path) -> None:
    database = await counter(tmp_path)
    queue = Queue(atoll.broker("memory://"), "n", int)
    inbox = Inbox(database)

    @inbox.worker(queue)
    async def add(n: int, db: Any) -> None:
        await db.execute("UPDATE counter SET n = n + ?", (n,))

    @inbox.worker(queue)
    async def add_hundredfold(n: int, db: Any) -> None:
        await db.execute("UPDATE counter SET n = n + ?", (100 * n,))

    await queue.put_many([1, 2])
    await settle(queue)
    assert await count(database) == 303
    await database.close()


WORKER = """
import asyncio, os, signal, sys
import atoll
from atoll import Inbox, Queue

database, broker = atoll.database(sys.argv[1]), atoll.broker(sys.argv[2])
queue = Queue(broker, "n", int)

@Inbox(database).worker(queue, recovery_s=0.5, attempts=100)
async def add(n, db):
    await db.execute("UPDATE counter SET n = n + ?", (n,))
    if n == 3 and sys.argv[3] == "before":
        os.kill(os.getpid(), signal.SIGKILL)          # before the commit

acknowledge = broker.acknowledge
async def die(name, receipts):
    if sys.argv[3] == "after":
        os.kill(os.getpid(), signal.SIGKILL)          # after the commit, before the acknowledgement
    return await acknowledge(name, receipts)
broker.acknowledge = die

asyncio.run(queue.work())
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_killed_around_its_commit_takes_effect_once(tmp_path: Path, moment: str) -> None:
    database = await counter(tmp_path)
    url = f"sqlite:///{tmp_path}/queue.db"
    broker = atoll.broker(url)
    queue = Queue(broker, "n", int)
    await queue.put_many([1, 2, 3, 4])
    await database.close()
    command = [sys.executable, "-c", WORKER, f"sqlite:///{tmp_path}/counter.db", url, moment]
    died = subprocess.run(command, timeout=60)
    assert died.returncode == -signal.SIGKILL

    @Inbox(database).worker(queue, recovery_s=2, attempts=100)
    async def add(n: int, db: Any) -> None:
        await db.execute("UPDATE counter SET n = n + ?", (n,))

    await settle(queue)
    assert await count(database) == 10
    await database.close()
    await broker.close()
    with sqlite3.connect(tmp_path / "counter.db") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
