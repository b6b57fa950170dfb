"""Inside the user's own transaction on SQLite: seen once, fenced, staged, by every kind of connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import atoll
from atoll.engines.sqlite.database import DatabaseOptions, SqliteDatabase
from atoll.errors import ConfigurationError, Conflict, LimitReached, Refused
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.participant import Outcome, Vote
from atoll.ports.store import Token


def message(id: str, body: bytes = b"x") -> Message:
    return Message(id=id, body=body, key="k", headers={"traceparent": "00"}, delay_s=1.5)


@asynccontextmanager
async def ours(path: Path) -> AsyncIterator[Any]:
    async with SqliteDatabase(path) as database, database.begin() as tx:
        yield tx


@asynccontextmanager
async def with_apsw(path: Path) -> AsyncIterator[Any]:
    await make_tables(path)
    connection = apsw.Connection(str(path))
    try:
        with connection:
            yield connection
    finally:
        connection.close()


@asynccontextmanager
async def with_sqlite3(path: Path) -> AsyncIterator[Any]:
    await make_tables(path)
    connection = sqlite3.connect(path)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


async def make_tables(path: Path) -> None:
    async with SqliteDatabase(path):
        pass


KINDS = pytest.mark.parametrize("begin", [ours, with_apsw, with_sqlite3])
Begin = Callable[[Path], Any]


@KINDS
async def test_an_id_is_new_once_in_its_scope(tmp_path: Path, begin: Begin) -> None:
    path = tmp_path / "shop.db"
    async with begin(path) as tx:
        assert await joined_on(tx).once(tx, "reserve", "m1")
        assert not await joined_on(tx).once(tx, "reserve", "m1")
    async with begin(path) as tx:
        assert not await joined_on(tx).once(tx, "reserve", "m1")
        assert await joined_on(tx).once(tx, "bill", "m1")


@KINDS
async def test_what_was_rolled_back_was_never_seen_staged_or_fenced(tmp_path: Path, begin: Begin) -> None:
    path = tmp_path / "shop.db"
    with pytest.raises(RuntimeError):
        async with begin(path) as tx:
            assert await joined_on(tx).once(tx, "s", "m1")
            await joined_on(tx).put(tx, "sold", [message("1")])
            await joined_on(tx).fence(tx, "lock/a", Token(9, 9))
            raise RuntimeError("the body failed")
    async with begin(path) as tx:
        assert await joined_on(tx).once(tx, "s", "m1")
        await joined_on(tx).fence(tx, "lock/a", Token(1, 1))
    async with SqliteDatabase(path) as database:
        assert await database.staged(10, claim_s=1, queues=["sold"]) == []


@KINDS
async def test_a_token_passes_until_a_greater_one_has_been_there(tmp_path: Path, begin: Begin) -> None:
    path = tmp_path / "shop.db"
    for token in (Token(1, 10), Token(1, 10), Token(1, 11), Token(2, 3)):
        async with begin(path) as tx:
            await joined_on(tx).fence(tx, "lock/a", token)
    for old in (Token(2, 2), Token(1, 500)):
        with pytest.raises(Refused) as refused:
            async with begin(path) as tx:
                await joined_on(tx).fence(tx, "lock/a", old)
        assert str(old) in str(refused.value) and "2:3" in str(refused.value)
    async with begin(path) as tx:
        await joined_on(tx).fence(tx, "lock/another", Token(1, 1))


@KINDS
async def test_staged_messages_leave_in_order_and_as_they_were_put(tmp_path: Path, begin: Begin) -> None:
    path = tmp_path / "shop.db"
    async with begin(path) as tx:
        await joined_on(tx).put(tx, "sold", [message("1"), message("2", b"\0\xff")])
        await joined_on(tx).put(tx, "moved", [message("3")])
    async with SqliteDatabase(path) as database:
        staged = await database.staged(2, claim_s=30, queues=["sold"])
        assert [s.message for s in staged] == [message("1"), message("2", b"\0\xff")]
        assert await database.staged(10, claim_s=30, queues=["sold"]) == []
        assert await database.queues() == ["moved", "sold"]
        both = await database.staged(10, claim_s=30, queues=["moved", "sold"])
        assert [s.queue for s in both] == ["moved"]
        count, age = await database.waiting()
        assert count == 3 and 0 <= age < 60
        await database.forget([s.position for s in staged])
        assert (await database.waiting())[0] == 1


async def test_a_claim_ends_by_itself(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "shop.db") as database:
        async with database.begin() as tx:
            await database.joined.put(tx, "sold", [message("1")])
        assert len(await database.staged(1, claim_s=0.05, queues=["sold"])) == 1
        async with asyncio.timeout(20):
            while not await database.staged(1, claim_s=30, queues=["sold"]):
                await asyncio.sleep(0.01)


async def test_once_waits_until_its_rival_has_committed_or_not(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "shop.db") as database:

        async def see() -> bool:
            async with database.begin() as tx:
                return await database.joined.once(tx, "s", "m1")

        async with database.begin() as tx:
            assert await database.joined.once(tx, "s", "m1")
            rival = asyncio.create_task(see())
            await asyncio.sleep(0.03)
            assert not rival.done()
        assert await rival is False


async def test_eight_transactions_at_once_see_an_id_once(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "shop.db") as database:

        async def see() -> bool:
            async with database.begin() as tx:
                return await database.joined.once(tx, "s", "m1")

        assert sum(await asyncio.gather(*(see() for _ in range(8)))) == 1


async def test_a_deferred_transaction_that_read_first_is_told_to_retry_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    await make_tables(path)
    late, rival = apsw.Connection(str(path)), apsw.Connection(str(path))
    late.execute("BEGIN")
    late.execute("SELECT * FROM atoll_fence").fetchall()
    rival.execute("BEGIN IMMEDIATE")
    await joined_on(rival).once(rival, "s", "1")
    rival.execute("COMMIT")
    with pytest.raises(Conflict, match="retry the whole transaction"):
        await joined_on(late).once(late, "s", "2")
    late.close()
    rival.close()


async def test_outside_a_transaction_the_verbs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    await make_tables(path)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(ConfigurationError, match="BEGIN IMMEDIATE"):
        await joined_on(connection).fence(connection, "lock/a", Token(1, 1))
    connection.close()
    ours = apsw.Connection(str(path))
    with pytest.raises(ConfigurationError, match="BEGIN IMMEDIATE"):
        await joined_on(ours).once(ours, "s", "1")
    ours.close()


async def test_a_standard_library_connection_beside_our_own_on_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with SqliteDatabase(path):
        connection = sqlite3.connect(":memory:")
        connection.execute("BEGIN")
        with pytest.raises(ConfigurationError, match="no Atoll tables"):
            await joined_on(connection).once(connection, "s", "1")
        connection.close()
    plain = sqlite3.connect(path, isolation_level=None)
    plain.execute("BEGIN")
    store = atoll.store(f"sqlite:///{path}")
    await store.open()
    with pytest.raises(ConfigurationError, match="Use one way for each file"):
        await joined_on(plain).once(plain, "s", "1")
    await store.close()
    assert await joined_on(plain).once(plain, "s", "1")
    plain.execute("COMMIT")
    plain.close()


async def test_a_database_without_our_tables_is_told_what_to_do(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "bare.db")
    connection.execute("CREATE TABLE mine (a)")
    connection.execute("INSERT INTO mine VALUES (1)")
    with pytest.raises(ConfigurationError, match=r"schema\(\)"):
        await joined_on(connection).put(connection, "sold", [message("1")])
    connection.rollback()
    connection.executescript(joined_on(connection).schema())
    await joined_on(connection).put(connection, "sold", [message("1")])
    connection.commit()
    connection.close()
    async with SqliteDatabase(tmp_path / "bare.db") as database:
        assert (await database.waiting())[0] == 1


async def test_what_weighs_too_much_is_refused_and_nothing_of_it_staged(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "shop.db") as database:
        async with database.begin() as tx:
            with pytest.raises(LimitReached):
                await database.joined.put(tx, "sold", [message("1"), message("2", b"x" * ((1 << 20) + 1))])
        assert (await database.waiting())[0] == 0


async def test_the_inbox_forgets_ids_past_their_retention(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with ours(path) as tx:
        assert await joined_on(tx).once(tx, "s", "old")
    async with SqliteDatabase(path, options=DatabaseOptions(inbox_retention_s=0.0)) as database:
        async with database.begin() as tx:
            assert await tx.execute("SELECT * FROM atoll_inbox") == []


async def test_two_prepared_branches_may_each_hold_staged_messages_and_seen_ids(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "shop.db") as database:
        for id in ("1", "2"):
            branch = await database.participant.begin(f"app/{id}")
            await database.joined.put(branch.tx, "sold", [message(id)])
            assert await database.joined.once(branch.tx, "s", id)
            assert await branch.prepare() is Vote.PREPARED
        assert await database.staged(9, claim_s=30, queues=["sold"]) == []
        await database.participant.finish("app/2", Outcome.COMMIT)
        await database.participant.finish("app/1", Outcome.ABORT)
        assert [s.message.id for s in await database.staged(9, claim_s=30, queues=["sold"])] == ["2"]
        async with database.begin() as tx:
            assert await database.joined.once(tx, "s", "1")
            assert not await database.joined.once(tx, "s", "2")


async def test_a_newer_holder_waits_for_the_decision_of_a_branch_that_was_fenced_before(
    tmp_path: Path,
) -> None:
    async with SqliteDatabase(tmp_path / "shop.db") as database:
        async with database.begin() as tx:
            await database.joined.fence(tx, "lock/a", Token(1, 5))
        branch = await database.participant.begin("app/1")
        await database.joined.fence(branch.tx, "lock/a", Token(1, 5))
        assert await branch.prepare() is Vote.PREPARED
        with pytest.raises(Conflict, match="prepared transaction"):
            async with database.begin() as tx:
                await database.joined.fence(tx, "lock/a", Token(1, 6))
        await database.participant.finish("app/1", Outcome.COMMIT)
        async with database.begin() as tx:
            await database.joined.fence(tx, "lock/a", Token(1, 6))


def test_an_unknown_kind_of_transaction_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no engine opened here understands"):
        joined_on(object())
