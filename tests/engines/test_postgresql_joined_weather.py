"""3.1: rivals, snapshots, servers that stand still, forks and loops, missing clients, yesterday's tables."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_postgresql_joined_databases import WAYS, run

import atoll
from atoll.errors import Conflict, NotApplied, Refused
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.store import Token
from postgresql_shop import (
    BLOCKING,
    KINDS,
    Kind,
    ask,
    emptied,
    new_bare,
    new_shop,
    server_of,
    until_blocked,
)
from servers import server

AWAITED = {name: kind for name, kind in KINDS.items() if name not in BLOCKING}
FORMAT_1 = Path(__file__).parent / "formats" / "postgresql-joined-1.sql"


@pytest.fixture(scope="module")
def made(shared: Any) -> str:
    return asyncio.run(new_shop(server_of(shared("postgresql", fsync=False)), "weather"))


@pytest.fixture
def shop(made: str) -> str:
    return asyncio.run(emptied(made))


@pytest.mark.parametrize("begin", AWAITED.values(), ids=AWAITED)
async def test_two_who_fence_in_opposite_orders_are_told_apart_by_the_server(shop: str, begin: Kind) -> None:
    """A deadlock: one of them passes, the other is a Conflict and may be done again as a whole."""

    async def both(first: str, second: str, mine: asyncio.Event, theirs: asyncio.Event) -> str:
        try:
            async with begin(shop) as (tx, _):
                await joined_on(tx).fence(tx, first, Token(1, 1))
                mine.set()
                await theirs.wait()
                await joined_on(tx).fence(tx, second, Token(1, 1))
            return "passed"
        except Conflict as conflict:
            assert "retry the whole transaction" in str(conflict)
            return "conflict"

    one, other = asyncio.Event(), asyncio.Event()
    ends = await asyncio.gather(both("a", "b", one, other), both("b", "a", other, one))
    assert sorted(ends) == ["conflict", "passed"]


@pytest.mark.parametrize("opened", WAYS.values(), ids=WAYS)
async def test_a_commit_that_serializable_refuses_is_a_conflict(shop: str, opened: Any) -> None:
    """Each reads what the other writes; PostgreSQL lets one of them commit."""
    async with opened(shop) as database:
        with pytest.raises(Conflict, match="retry the whole transaction"):
            async with database.begin() as one, database.begin() as other:
                for tx, what in ((one, "tea"), (other, "coffee")):
                    await run(tx, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                    assert await run(tx, "SELECT count(*) FROM sale") == [(0,)]
                    await run(tx, f"INSERT INTO sale (what) VALUES ('{what}')")
    assert await ask(shop, "SELECT count(*) FROM sale") == [(1,)]


@pytest.mark.parametrize("begin", AWAITED.values(), ids=AWAITED)
async def test_a_stale_holder_waits_for_the_newer_ones_end_and_is_refused(shop: str, begin: Kind) -> None:
    async def stale() -> None:
        async with begin(shop) as (tx, _):
            await joined_on(tx).fence(tx, "lock/a", Token(1, 1))

    async with begin(shop) as (tx, _):
        await joined_on(tx).fence(tx, "lock/a", Token(1, 2))
        late = asyncio.create_task(stale())
        await until_blocked(shop)
    with pytest.raises(Refused, match="newer token 1:2"):
        await late


async def test_in_a_crowd_tokens_pass_only_in_rising_order(shop: str) -> None:
    """Holders of every age at once, by every library; the log would show who passed after a newer one."""
    tokens = [Token(1 + n // 25, n % 25) for n in range(50)]
    random.Random(7).shuffle(tokens)
    gate = asyncio.Semaphore(12)

    async def pass_one(n: int, token: Token) -> bool:
        begin = list(AWAITED.values())[n % len(AWAITED)]
        async with gate:
            try:
                async with begin(shop) as (tx, run_it):
                    await joined_on(tx).fence(tx, "lock/crowd", token)
                    number = token.epoch * 100 + token.revision
                    await run_it(f"INSERT INTO sale (what) VALUES ('{number}')")
                return True
            except Refused:
                return False

    passed = await asyncio.gather(*(pass_one(n, token) for n, token in enumerate(tokens)))
    log = [int(what) for (what,) in await ask(shop, "SELECT what FROM sale ORDER BY id")]
    assert log == sorted(log) and log[-1] == 224, "the newest always passes, and nobody older after it"
    assert len(log) == sum(passed) and not all(passed), "some came late, or nothing was tried"


async def test_a_server_that_stands_still_is_answered_for_by_the_deadline_of_each_way() -> None:
    """The transaction is open and the server stops: the fence ends in time, and so does the rollback."""
    async with server("postgresql", fsync=False) as cluster:
        url = await new_shop(server_of(cluster), "still")
        for name, begin in AWAITED.items():
            began = 0.0
            try:
                with pytest.raises(Exception) as outside:
                    async with begin(url) as (tx, run_it):
                        await run_it("SELECT 1")
                        cluster.members[0].pause()
                        began = time.monotonic()
                        with pytest.raises(NotApplied, match="cut off") as told, atoll.deadline(0.2):
                            await joined_on(tx).fence(tx, "lock/a", Token(1, 1))
                        assert time.monotonic() - began < 4.5, f"{name}: past its deadline"
                        cluster.members[0].resume()
                        raise told.value
                # asyncpg's own `transaction()` says of a connection that is gone only that it is gone
                assert told.value in (outside.value, outside.value.__context__), name
            finally:
                cluster.members[0].resume()


async def test_a_begin_on_a_server_that_stands_still_ends_by_the_deadline() -> None:
    async with server("postgresql", fsync=False) as cluster:
        url = await new_shop(server_of(cluster), "still")
        async with atoll.database(url) as database:
            async with database.begin() as tx:
                await tx.execute("SELECT 1")
            cluster.members[0].pause()
            began = time.monotonic()
            with pytest.raises(NotApplied), atoll.deadline(0.3):
                async with database.begin() as tx:
                    pass
            assert time.monotonic() - began < 4.5
            cluster.members[0].resume()
            async with database.begin() as tx:
                await tx.execute("SELECT 1")


def test_one_handle_serves_several_event_loops_and_a_forked_child(shop: str) -> None:
    database = atoll.database(shop)

    async def sell(what: str) -> None:
        async with database.begin() as tx:
            await joined_on(tx).put(tx, "sold", [Message(id=what, body=b"x")])

    for n in range(3):
        asyncio.run(sell(f"loop {n}"))

    async def parent() -> None:
        await sell("parent, before")
        pid = os.fork()
        if pid == 0:
            try:
                answer = subprocess.run([sys.executable, "-c", CHILD, shop], timeout=60).returncode
                os._exit(answer)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        await sell("parent, after")
        await database.close()

    asyncio.run(parent())
    found = asyncio.run(ask(shop, "SELECT id FROM atoll.outbox ORDER BY position"))
    assert [id for (id,) in found] == [
        "loop 0",
        "loop 1",
        "loop 2",
        "parent, before",
        "child",
        "parent, after",
    ]


CHILD = """
import asyncio, os, sys
import atoll
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on

database = atoll.database(sys.argv[1])

async def sell(what):
    async with database.begin() as tx:
        await joined_on(tx).put(tx, "sold", [Message(id=what, body=b"x")])
    return [tx.info.backend_pid for tx in ()]

async def hold():
    async with database.begin() as tx:
        return tx.info.backend_pid

first = asyncio.run(hold())                     # a handle with an open connection, then a fork
loop = asyncio.new_event_loop()
mine = loop.run_until_complete(hold())
pid = os.fork()
if pid == 0:
    theirs = asyncio.run(hold())
    os._exit(0 if theirs != mine else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a child used its parent's connection"
assert loop.run_until_complete(hold()) == mine, "the parent lost its connection to the child"
loop.run_until_complete(sell("child"))
"""

ALONE = """
import asyncio, sys
for name in sys.argv[2].split(","):
    sys.modules[name] = None
import atoll
from atoll.ports.joined import joined_on
from atoll.ports.store import Token

async def main():
    if "asyncpg" in sys.argv[2]:
        import psycopg_pool
        pool = psycopg_pool.AsyncConnectionPool(sys.argv[1], open=False)
    else:
        import asyncpg
        pool = asyncpg.create_pool(sys.argv[1])
    async with pool:
        async with atoll.database(pool) as database, database.begin() as tx:
            await joined_on(tx).fence(tx, "lock/alone", Token(1, 1))
    if "psycopg" in sys.argv[2]:
        try:
            atoll.database(sys.argv[1])
        except atoll.MissingExtra as error:
            assert 'pip install "atoll[postgresql]"' in str(error), error
        else:
            raise AssertionError("no word about psycopg")

asyncio.run(main())
"""


@pytest.mark.parametrize("missing", ["psycopg,psycopg_pool,sqlalchemy", "asyncpg,sqlalchemy"])
def test_one_client_library_is_enough(shop: str, missing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, shop, missing], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


async def test_tables_of_format_1_are_read_and_written_by_this_release(shared: Any) -> None:
    url = await new_bare(server_of(shared("postgresql", fsync=False)), "format_1")
    await ask(url, FORMAT_1.read_text())
    async with atoll.database(url) as database:
        [staged] = await database.relaying.staged(10, claim_s=30, queues=["sold"])
        assert staged.message == Message(
            id="m-2", body=b"\x00\xff", key="k", headers={"traceparent": "00"}, delay_s=1.5
        )
        async with database.begin() as tx:
            assert not await database.joined.once(tx, "reserve", "m-1")
            await database.joined.fence(tx, "lock/a", Token(2, 7))
        with pytest.raises(Refused):
            async with database.begin() as tx:
                await database.joined.fence(tx, "lock/a", Token(2, 6))
        assert set(await database.schema.make()).isdisjoint({"atoll.fence", "atoll.inbox", "atoll.outbox"})
