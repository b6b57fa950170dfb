"""3.1: outbox and inbox keep their promises on PostgreSQL, with the code that keeps them on SQLite."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_postgresql_joined_databases import WAYS, run

import atoll
from atoll import Inbox, Outbox, Queue
from postgresql_shop import ask, emptied, new_shop, server_of


@pytest.fixture(scope="module")
def made(shared: Any) -> str:
    return asyncio.run(new_shop(server_of(shared("postgresql", fsync=False)), "blocks"))


@pytest.fixture
def shop(made: str) -> str:
    return asyncio.run(emptied(made))


EACH = pytest.mark.parametrize("opened", WAYS.values(), ids=WAYS)


async def settle(queue: Queue[Any], seconds: float = 30) -> None:
    """Run the queue's workers until nothing waits."""
    inspecting = queue.broker.inspecting
    assert inspecting is not None
    async with asyncio.timeout(seconds):
        async with atoll.background(queue.work()):
            while any(d.ready + d.delayed + d.leased for d in await inspecting.depths()):
                await asyncio.sleep(0.01)


@EACH
async def test_what_commits_arrives_and_what_rolls_back_never_did(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        placed = Queue(atoll.broker("memory://"), "placed-on-postgresql", int)
        outbox = Outbox(database)
        async with database.begin() as db:
            await run(db, "INSERT INTO sale (what) VALUES ('tea')")
            await outbox.put(db, placed, 1, id="order/1", key="c-7", headers={"traceparent": "00-a-b-01"})
        with pytest.raises(RuntimeError):
            async with database.begin() as db:
                await outbox.put(db, placed, 2)
                raise RuntimeError("changed my mind")
        assert await outbox.relay_once() == 1
        [taken] = await placed.broker.take(placed.name, 10, lease_s=60)
        assert (taken.message.id, taken.message.key, taken.message.body) == ("order/1", "c-7", b"1")
        assert taken.message.headers["traceparent"] == "00-a-b-01"
        assert await outbox.relay_once() == 0


@EACH
async def test_a_duplicate_changes_nothing_and_a_failing_body_leaves_no_mark(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        queue = Queue(atoll.broker("memory://?dedupe_window_s=0"), "n", int)
        failures = [ValueError("not yet")]

        @Inbox(database).worker(queue, retry_s=0.01)
        async def add(n: int, db: Any) -> None:
            await run(db, f"INSERT INTO sale (what) VALUES ('{n}')")
            if failures:
                raise failures.pop()

        for _ in range(3):
            await queue.put(5, id="m-1")
            await settle(queue)
        assert await ask(shop, "SELECT what FROM sale") == [("5",)]


@EACH
async def test_one_message_delivered_to_many_at_once_takes_effect_once(shop: str, opened: Any) -> None:
    """Each delivery in a transaction of its own, all at the same time: the unique index makes them wait."""
    if opened in (WAYS["ConnectionPool"], WAYS["Engine"]):
        pytest.skip("its statements block the thread: two of them cannot wait for each other in one")
    async with opened(shop) as database:

        async def deliver() -> bool:
            async with database.begin() as db:
                new = bool(await database.joined.once(db, "n/add", "m-1"))
                if new:
                    await run(db, "INSERT INTO sale (what) VALUES ('effect ' || clock_timestamp())")
                return new

        assert sorted(await asyncio.gather(*(deliver() for _ in range(12))))[-2:] == [False, True]
        assert await ask(shop, "SELECT count(*) FROM sale") == [(1,)]


RELAY = """
import asyncio, os, signal, sys
import atoll
from atoll import Outbox, Queue

shop, broker = atoll.database(sys.argv[1]), atoll.broker(sys.argv[2])
placed = Queue(broker, "placed", int)

async def main():
    async def die(positions):
        os.kill(os.getpid(), signal.SIGKILL)   # after the put, before the forgetting
    shop.relaying.forget = die
    await Outbox(shop).relay()

asyncio.run(main())
"""


async def test_a_relay_killed_between_put_and_forget_loses_nothing_and_doubles_nothing(
    shop: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with atoll.database(shop) as database, atoll.broker(url) as broker:
        placed = Queue(broker, "placed", int)
        outbox = Outbox(database)
        async with database.begin() as db:
            for n in range(10):
                await outbox.put(db, placed, n)
        died = subprocess.run([sys.executable, "-c", RELAY, shop, url], timeout=60)
        assert died.returncode == -signal.SIGKILL
        async with atoll.background(outbox.relay()), asyncio.timeout(60):
            while (await database.relaying.waiting())[0]:
                await asyncio.sleep(0.02)
        taken = await broker.take("placed", 100, lease_s=60)
        assert Counter(t.message.body for t in taken) == Counter(str(n).encode() for n in range(10))


WORKER = """
import asyncio, os, signal, sys
import atoll
from atoll import Inbox, Queue

database, broker = atoll.database(sys.argv[1]), atoll.broker(sys.argv[2])
queue = Queue(broker, "n", int)

@Inbox(database).worker(queue, recovery_s=0.5, attempts=100)
async def add(n, db):
    await db.execute("INSERT INTO sale (what) VALUES (%s)", (str(n),))
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
async def test_a_worker_killed_around_its_commit_takes_effect_once(
    shop: str, tmp_path: Path, moment: str
) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with atoll.database(shop) as database, atoll.broker(url) as broker:
        queue = Queue(broker, "n", int)
        await queue.put_many([1, 2, 3, 4])
        died = subprocess.run([sys.executable, "-c", WORKER, shop, url, moment], timeout=60)
        assert died.returncode == -signal.SIGKILL

        @Inbox(database).worker(queue, recovery_s=0.5, attempts=100)
        async def add(n: int, db: Any) -> None:
            await db.execute("INSERT INTO sale (what) VALUES (%s)", (str(n),))

        await settle(queue)
    assert await ask(shop, "SELECT what FROM sale ORDER BY what") == [("1",), ("2",), ("3",), ("4",)]
