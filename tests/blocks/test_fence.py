"""3.9: a holder that was stopped past its lease writes late, and every place that compares refuses it.

Three halves of one promise: the guard in the store itself and the fence row in SQL, here; the header that
hands a token on to whoever compares, in tests/integrations/test_asgi_fence.py. A real process is really
stopped; the negative control beside each refusal is the same write without the token, which lands.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fence_stories
import pytest
from fence_stories import FIRST, SQLITE, TABLE, late, place

import atoll
from atoll import Lock, LockLost, Refused
from atoll.ports.joined import joined_on
from postgresql_shop import ask, new_shop, server_of

SQL_ON_POSTGRESQL = list(fence_stories.postgresql())
WAYS = {**SQLITE, **fence_stories.postgresql()}


def ended(folder: Path, places: dict[str, str]) -> dict[str, Any]:
    """Two holders: the first is stopped, the second fences and only reads, the first goes on."""
    command = [sys.executable, fence_stories.__file__, str(folder), json.dumps(places)]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths + os.pathsep + os.environ.get("PYTHONPATH", "")},
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        os.kill(child.pid, signal.SIGSTOP)
        newer = asyncio.run(second_holder(folder, places))
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        said = json.loads(child.stdout.readline())
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.communicate()
    return {name: {**said[name], "newer": newer[name]} for name in places}


async def second_holder(folder: Path, places: dict[str, str]) -> dict[str, str]:
    tokens = {}
    async with atoll.store(f"sqlite:///{folder}/state.db") as state:
        for name, where in places.items():
            async with Lock(state, name, ttl_s=5, wait_s=60) as held, WAYS[name](where) as (tx, run):
                await held.fence(tx)
                assert await run("SELECT balance FROM account") == [(100,)]
                tokens[name] = str(held.token)
    return tokens


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run once for all the ways of a product, at the first test that asks."""
    told: dict[str, dict[str, Any]] = {}

    def tell(product: str, places: dict[str, str]) -> dict[str, Any]:
        if product not in told:
            told[product] = ended(tmp_path_factory.mktemp(product), places)
        return told[product]

    yield tell


async def _made(where: str, way: str) -> str:
    async with atoll.database(f"sqlite:///{where}") as database, database.begin() as tx:
        await tx.execute(TABLE)
        await tx.execute(FIRST)
    return where


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("shops")
    return {way: asyncio.run(_made(place(folder, way), way)) for way in SQLITE}


@pytest.fixture(scope="module")
def shops(shared: Any) -> dict[str, str]:
    """One database for all, a table for each way by its search path."""
    server = server_of(shared("postgresql"))

    async def make() -> str:
        url = await new_shop(server, "fenced")
        await ask(url, TABLE, FIRST)
        return url

    url = asyncio.run(make())
    return dict.fromkeys(SQL_ON_POSTGRESQL, url)


def check(story: dict[str, str]) -> None:
    assert story["fenced"].startswith("Refused"), story
    assert f"the newer token {story['newer']}" in story["fenced"], "the sentence tells the newer token"
    assert story["unfenced"] == "landed", "the negative control: without a fence the late write lands"
    assert story["guard"].startswith("Refused"), story
    assert story["check"] == "LockLost"


@pytest.mark.parametrize("way", SQLITE)
def test_a_late_write_is_refused_on_sqlite_even_when_the_newer_holder_has_only_read(
    stories: Any, files: dict[str, str], way: str
) -> None:
    check(stories("sqlite", files)[way])


@pytest.mark.parametrize("way", SQL_ON_POSTGRESQL)
def test_a_late_write_is_refused_on_postgresql_even_when_the_newer_holder_has_only_read(
    stories: Any, shops: dict[str, str], way: str
) -> None:
    check(stories("postgresql", shops)[way])


async def test_what_was_refused_changed_nothing(stories: Any, files: dict[str, str]) -> None:
    stories("sqlite", files)
    for where in files.values():
        async with atoll.database(f"sqlite:///{where}") as database, database.read() as tx:
            assert await tx.execute("SELECT balance, unfenced FROM account") == [(100, 30)]


@pytest.mark.parametrize("way", SQLITE)
async def test_a_holder_of_today_passes_again_and_again(tmp_path: Path, way: str) -> None:
    where = await _made(place(tmp_path, way), way)
    state = atoll.store("memory://")
    for _ in range(3):
        async with Lock(state, "order/81") as held, WAYS[way](where) as (tx, run):
            await held.fence(tx)
            await run("UPDATE account SET balance = balance - 1")
    async with WAYS[way](where) as (_, run):
        assert await run("SELECT balance FROM account") == [(97,)]


async def test_a_fence_that_compares_nothing_would_be_caught(tmp_path: Path) -> None:
    """The negative control of these tests: a Joined whose fence is a shrug lets the late write land."""
    where = await _made(place(tmp_path, "sqlite:// by URL"), "sqlite:// by URL")
    state = atoll.store("memory://")
    async with Lock(state, "x") as first:
        pass
    async with Lock(state, "x") as second, SQLITE["sqlite:// by URL"](where) as (tx, _):
        await second.fence(tx)
    refused = await late(SQLITE["sqlite:// by URL"], where, first)
    assert refused["fenced"].startswith("Refused")
    async with SQLITE["sqlite:// by URL"](where) as (tx, run):
        await run("DELETE FROM atoll_fence")
    assert (await late(SQLITE["sqlite:// by URL"], where, first))["fenced"] == "landed"


async def test_a_lost_holder_does_not_even_ask(tmp_path: Path) -> None:
    where = await _made(place(tmp_path, "sqlite3 Connection"), "sqlite3 Connection")
    state = atoll.store("memory://")
    async with Lock(state, "x") as held:
        pass
    with pytest.raises(LockLost, match="not held any more"):
        async with SQLITE["sqlite3 Connection"](where) as (tx, _):
            await held.fence(tx)


def test_the_sync_face_fences_psycopg_and_sqlalchemy_connections_of_its_thread(
    tmp_path: Path, shops: dict[str, str]
) -> None:
    import psycopg
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from atoll.sync import Lock as PlainLock
    from atoll.sync import store

    url = shops["psycopg Connection"]
    state = store(f"sqlite:///{tmp_path}/state.db")
    engine = create_engine(url.replace("://", "+psycopg://"))
    atoll.database(engine)
    with PlainLock(state, "sync") as first:
        pass
    with PlainLock(state, "sync") as held:
        with psycopg.connect(url) as connection:
            held.fence(connection)
        with Session(engine) as session, session.begin():
            held.fence(session)
        with engine.begin() as plain:
            held.fence(plain)
        token = first._inner.token
        for tx in (psycopg.connect(url), Session(engine)):
            with tx as open_tx, pytest.raises(Refused, match=str(held.token)):
                asyncio.run(joined_on(open_tx).fence(open_tx, held.resource, token))
    state.close()
    engine.dispose()


async def test_the_sync_face_refuses_what_belongs_to_an_event_loop(
    tmp_path: Path, shops: dict[str, str]
) -> None:
    import psycopg

    from atoll.sync import Lock as PlainLock
    from atoll.sync import store

    state = store(f"sqlite:///{tmp_path}/state.db")

    def in_a_thread(connection: Any) -> None:
        with PlainLock(state, "sync") as held:
            held.fence(connection)

    async with await psycopg.AsyncConnection.connect(shops["psycopg Connection"]) as connection:
        with pytest.raises(atoll.ConfigurationError, match="belongs to an event loop"):
            await asyncio.to_thread(in_a_thread, connection)
    await asyncio.to_thread(state.close)
