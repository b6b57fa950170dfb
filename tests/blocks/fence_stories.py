"""Two holders of one lock and a database between them: the ways to write, and the first holder as a process.

Run as a program it takes a lock for each way, says so, is stopped by its parent for longer than its lease,
and then does what a paused holder does: it writes late, once with its token shown and once without.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atoll
from atoll.errors import AtollError
from atoll.ports.joined import joined_on

TABLE = "CREATE TABLE IF NOT EXISTS account (balance INTEGER NOT NULL, unfenced INTEGER NOT NULL)"
FIRST = "INSERT INTO account VALUES (100, 100)"
TTL_S = 0.8


@asynccontextmanager
async def sqlite_by_url(where: str) -> AsyncIterator[Any]:
    async with atoll.database(f"sqlite:///{where}") as database, database.begin() as tx:
        yield tx, tx.execute


@asynccontextmanager
async def sqlite_standard(where: str) -> AsyncIterator[Any]:
    import sqlite3

    connection = sqlite3.connect(where)

    async def run(sql: str) -> list[Any]:
        return connection.execute(sql).fetchall()

    with connection:
        yield connection, run
    connection.close()


@asynccontextmanager
async def sqlite_apsw(where: str) -> AsyncIterator[Any]:
    import apsw

    connection = apsw.Connection(where)

    async def run(sql: str) -> list[Any]:
        return list(connection.execute(sql))

    with connection:
        yield connection, run
    connection.close()


@asynccontextmanager
async def sqlite_async_session(where: str) -> AsyncIterator[Any]:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(f"sqlite+aiosqlite:///{where}")
    try:
        async with atoll.database(engine), AsyncSession(engine) as session, session.begin():

            async def run(sql: str) -> list[Any]:
                result: Any = await session.execute(text(sql))
                return [tuple(row) for row in result] if result.returns_rows else []

            yield session, run
    finally:
        await engine.dispose()


@asynccontextmanager
async def sqlite_session(where: str) -> AsyncIterator[Any]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(f"sqlite:///{where}")
    try:
        async with atoll.database(engine):
            with Session(engine) as session, session.begin():

                async def run(sql: str) -> list[Any]:
                    result: Any = session.execute(text(sql))
                    return [tuple(row) for row in result] if result.returns_rows else []

                yield session, run
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Shown:
    """A guard as it was noted while the lock was held: like the fence, past the holder's own clock."""

    owner_key: str
    token: Any

    def check(self) -> None:
        """It has been looked at already; the stop came after."""


SQLITE = {
    "sqlite:// by URL": sqlite_by_url,
    "sqlite3 Connection": sqlite_standard,
    "apsw Connection": sqlite_apsw,
    "AsyncSession on aiosqlite": sqlite_async_session,
    "Session on sqlite3": sqlite_session,
}


def postgresql() -> dict[str, Any]:
    from postgresql_shop import KINDS

    return dict(KINDS)


def place(folder: Path, way: str) -> str:
    """A file for each way: two libraries of SQLite never share one in a process."""
    return str(folder / f"{way.replace('/', '').replace(':', '').replace(' ', '-')}.db")


async def late(way: Any, where: str, held: Any) -> dict[str, str]:
    """What becomes of the writes of a holder whose lease ended while it was stopped."""
    said: dict[str, str] = {}
    try:  # the stop came after the last look at the clock: so past `held.fence`, which would look again
        async with way(where) as (tx, run):
            await joined_on(tx).fence(tx, held.resource, held.token)
            await run("UPDATE account SET balance = balance - 70")
        said["fenced"] = "landed"
    except AtollError as error:
        said["fenced"] = f"{type(error).__name__}: {error}"
    try:
        async with way(where) as (_, run):
            await run("UPDATE account SET unfenced = unfenced - 70")
        said["unfenced"] = "landed"
    except AtollError as error:
        said["unfenced"] = f"{type(error).__name__}: {error}"
    return said


def main(folder: str, stories: str) -> None:
    from atoll.sync import Lock, store

    ways = {**SQLITE, **postgresql()}
    places: dict[str, str] = json.loads(stories)
    state = store(f"sqlite:///{folder}/state.db")
    said: dict[str, Any] = {}
    with ExitStack() as locks:
        locks.enter_context(_lost())
        held = {name: locks.enter_context(Lock(state, name, ttl_s=TTL_S)) for name in places}
        shown = {name: Shown(one.owner_key, one.token) for name, one in held.items()}
        print("held", flush=True)
        sys.stdin.readline()
        for name, where in places.items():
            said[name] = asyncio.run(late(ways[name], where, held[name]))
            try:
                held[name].check()
                said[name]["check"] = "held"
            except AtollError as error:
                said[name]["check"] = type(error).__name__
            try:
                state.transact(atoll.put(f"done/{name}", b"late"), guard=shown[name])
                said[name]["guard"] = "landed"
            except AtollError as error:
                said[name]["guard"] = f"{type(error).__name__}: {error}"
        print(json.dumps(said), flush=True)


@contextmanager
def _lost() -> Any:
    """Leaving a block whose lease is over says so; what was asked inside it says so for itself."""
    with suppress(atoll.LockLost):
        yield


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(*sys.argv[1:])
