"""3.1: a URL, psycopg's pools and asyncpg's as a database: transactions, the relay's half, and bad luck."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import atoll
from atoll.errors import (
    ConfigurationError,
    Conflict,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    ReadOnly,
)
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.store import Token
from postgresql_shop import ask, emptied, new_shop, server_of
from servers import server


@pytest.fixture(scope="module")
def made(shared: Any) -> str:
    return asyncio.run(new_shop(server_of(shared("postgresql", fsync=False)), "databases"))


@pytest.fixture
def shop(made: str) -> str:
    return asyncio.run(emptied(made))


def messages(*ids: str) -> list[Message]:
    return [Message(id=id, body=b"x") for id in ids]


@asynccontextmanager
async def by_url(url: str, size: int = 4) -> AsyncIterator[Any]:
    async with atoll.database(f"{url}?connections_max={size}&wait_s=5") as database:
        yield database


@asynccontextmanager
async def by_psycopg_pool(url: str, size: int = 4) -> AsyncIterator[Any]:
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(url, min_size=0, max_size=size, open=False) as pool:
        async with atoll.database(pool, name="shop") as database:
            yield database


@asynccontextmanager
async def by_blocking_pool(url: str, size: int = 4) -> AsyncIterator[Any]:
    from psycopg_pool import ConnectionPool

    with ConnectionPool(url, min_size=0, max_size=size, open=False) as pool:
        async with atoll.database(pool, name="shop") as database:
            yield database


@asynccontextmanager
async def by_asyncpg_pool(url: str, size: int = 4) -> AsyncIterator[Any]:
    import asyncpg

    async with asyncpg.create_pool(url, min_size=0, max_size=size) as pool:
        async with atoll.database(pool, name="shop") as database:
            yield database


@asynccontextmanager
async def by_async_engine(url: str, size: int = 4) -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url.replace("://", "+asyncpg://"), pool_size=size)
    async with atoll.database(engine) as database:
        yield database
    await engine.dispose()


@asynccontextmanager
async def by_plain_engine(url: str, size: int = 4) -> AsyncIterator[Any]:
    from sqlalchemy import create_engine

    engine = create_engine(url.replace("://", "+psycopg://"), pool_size=size)
    async with atoll.database(engine) as database:
        yield database
    engine.dispose()


WAYS = {
    "URL": by_url,
    "AsyncConnectionPool": by_psycopg_pool,
    "ConnectionPool": by_blocking_pool,
    "asyncpg.Pool": by_asyncpg_pool,
    "AsyncEngine": by_async_engine,
    "Engine": by_plain_engine,
}
EACH = pytest.mark.parametrize("opened", WAYS.values(), ids=WAYS)


async def run(tx: Any, sql: str) -> list[Any]:
    """A statement by whichever library."""
    if type(tx).__module__.startswith("asyncpg"):
        return [tuple(row) for row in await tx.fetch(sql)]
    if type(tx).__module__.startswith("psycopg"):
        cursor = tx.execute(sql)
        cursor = await cursor if asyncio.iscoroutine(cursor) else cursor
        if not cursor.description:
            return []
        rows = cursor.fetchall()
        return list(await rows if asyncio.iscoroutine(rows) else rows)
    from sqlalchemy import text

    result = tx.execute(text(sql))
    result = await result if asyncio.iscoroutine(result) else result
    return [tuple(row) for row in result] if result.returns_rows else []


@EACH
async def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_error(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        async with database.begin() as tx:
            await run(tx, "INSERT INTO sale (what) VALUES ('tea')")
            assert await database.joined.once(tx, "s", "1")
        with pytest.raises(RuntimeError):
            async with database.begin() as tx:
                await run(tx, "INSERT INTO sale (what) VALUES ('coffee')")
                raise RuntimeError("changed my mind")
    assert await ask(shop, "SELECT what FROM sale") == [("tea",)]


@EACH
async def test_a_read_is_one_snapshot_and_writes_nothing(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        async with database.read() as tx:
            assert await run(tx, "SELECT count(*) FROM sale") == [(0,)]
            await ask(shop, "INSERT INTO sale (what) VALUES ('tea')")
            assert await run(tx, "SELECT count(*) FROM sale") == [(0,)]
            with pytest.raises(ReadOnly, match="may write"):
                await database.joined.put(tx, "sold", messages("1"))
        async with database.read() as tx:
            assert await run(tx, "SELECT count(*) FROM sale") == [(1,)]


@EACH
async def test_a_swallowed_error_is_said_at_the_commit_that_postgresql_would_not_do(
    shop: str, opened: Any
) -> None:
    async with opened(shop) as database:
        with pytest.raises(Conflict, match="Nothing of it was written"):
            async with database.begin() as tx:
                await run(tx, "INSERT INTO sale (what) VALUES ('tea')")
                with pytest.raises(Exception, match="nonsense"):
                    await run(tx, "SELECT nonsense")
        assert await ask(shop, "SELECT * FROM sale") == []
        async with database.begin() as tx:
            assert await run(tx, "SELECT 1") == [(1,)], "the connection is good again"


async def test_without_that_question_a_commit_that_did_nothing_looks_done(shop: str) -> None:
    """The negative control: what psycopg and asyncpg do by themselves."""
    import asyncpg
    import psycopg

    with psycopg.connect(shop) as one:
        one.execute("INSERT INTO sale (what) VALUES ('tea')")
        with pytest.raises(psycopg.Error):
            one.execute("SELECT nonsense")
        one.commit()
    two = await asyncpg.connect(shop)
    async with two.transaction():
        await two.execute("INSERT INTO sale (what) VALUES ('tea')")
        with pytest.raises(asyncpg.PostgresError):
            await two.execute("SELECT nonsense")
    await two.close()
    assert await ask(shop, "SELECT * FROM sale") == []


@EACH
async def test_the_users_own_errors_stay_the_users_own(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        with pytest.raises(Exception, match="sale_what_key") as failed:
            async with database.begin() as tx:
                await run(tx, "INSERT INTO sale (what) VALUES ('tea'), ('tea')")
        assert not isinstance(failed.value, atoll.AtollError)


@EACH
async def test_a_connection_lost_during_commit_is_not_known(shop: str, opened: Any) -> None:
    """A trigger at COMMIT ends its own connection, as a server that goes away then does."""
    await ask(
        shop,
        "CREATE OR REPLACE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
        "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON sale DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()",
    )
    try:
        async with opened(shop) as database:
            with pytest.raises(OutcomeUnknown, match="during COMMIT"):
                async with database.begin() as tx:
                    await run(tx, "INSERT INTO sale (what) VALUES ('tea')")
            async with database.begin() as tx:
                assert await run(tx, "SELECT 1") == [(1,)], "another connection takes over"
    finally:
        await ask(shop, "DROP FUNCTION die() CASCADE")


@EACH
async def test_a_connection_lost_before_commit_means_that_nothing_stands(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        with pytest.raises(NotApplied, match="nothing of this transaction stands"):
            async with database.begin() as tx:
                [[pid]] = await run(tx, "SELECT pg_backend_pid()")
                await ask(shop, f"SELECT pg_terminate_backend({pid}, 5000)")
                await database.joined.put(tx, "sold", messages("1"))
        assert await ask(shop, "SELECT count(*) FROM atoll.outbox") == [(0,)]
        async with database.begin() as tx:
            assert await run(tx, "SELECT 1") == [(1,)]


@EACH
async def test_a_body_that_is_cancelled_writes_nothing_and_gives_its_connection_back(
    shop: str, opened: Any
) -> None:
    async with opened(shop, size=1) as database:
        inside = asyncio.Event()

        async def body() -> None:
            async with database.begin() as tx:
                await run(tx, "INSERT INTO sale (what) VALUES ('tea')")
                inside.set()
                await asyncio.sleep(3600)

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with database.begin() as tx:
            assert await run(tx, "SELECT * FROM sale") == []


# --- the relay's half ---


@EACH
async def test_two_relays_claim_different_messages_and_do_not_wait_for_each_other(
    shop: str, opened: Any
) -> None:
    import asyncpg

    async with opened(shop) as database:
        async with database.begin() as tx:
            await joined_on(tx).put(tx, "sold", messages("1", "2", "3"))
        other = await asyncpg.connect(shop)
        async with other.transaction():
            await other.fetch("SELECT 1 FROM atoll.outbox WHERE id = '1' FOR UPDATE")  # claiming just now
            first = await database.relaying.staged(1, claim_s=30, queues=["sold"])
            assert [s.message.id for s in first] == ["2"]
        await other.close()
        rest = await database.relaying.staged(10, claim_s=30, queues=["sold"])
        assert [s.message.id for s in rest] == ["1", "3"]
        assert await database.relaying.staged(10, claim_s=30, queues=["sold"]) == []


@EACH
async def test_a_claim_ends_and_one_from_the_future_too(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        async with database.begin() as tx:
            await joined_on(tx).put(tx, "sold", messages("1"))
        assert len(await database.relaying.staged(10, claim_s=0.001, queues=["sold"])) == 1
        async with asyncio.timeout(10):
            while not await database.relaying.staged(10, claim_s=3600, queues=["sold"]):
                await asyncio.sleep(0.01)
        assert await database.relaying.staged(10, claim_s=3600, queues=["sold"]) == []
        await ask(shop, "UPDATE atoll.outbox SET claimed_at = now() + interval '1 hour'")  # clock set back
        assert len(await database.relaying.staged(10, claim_s=3600, queues=["sold"])) == 1


@EACH
async def test_messages_of_other_queues_are_not_claimed(shop: str, opened: Any) -> None:
    async with opened(shop) as database:
        async with database.begin() as tx:
            await joined_on(tx).put(tx, "theirs", messages("1"))
            await joined_on(tx).put(tx, "mine", messages("2"))
        assert [s.message.id for s in await database.relaying.staged(9, claim_s=9, queues=["mine"])] == ["2"]
        count, age = await database.relaying.waiting()
        assert count == 2 and 0 <= age < 60
        assert sorted(await database.relaying.queues()) == ["mine", "theirs"]


# --- behind PgBouncer in transaction mode ---


@pytest.fixture(scope="module")
def pooled(shared: Any, made: str) -> Any:
    cluster = shared("postgresql", fsync=False)
    loop = asyncio.new_event_loop()
    process, address = loop.run_until_complete(cluster.facts["pooler"](pool_size=2))
    yield made.replace(cluster.addresses[0], address)
    process.kill()
    loop.close()


@pytest.mark.parametrize("name", ["URL", "AsyncConnectionPool", "asyncpg.Pool"])
async def test_behind_a_pooler_in_transaction_mode_our_statements_have_no_names_to_clash(
    shop: str, pooled: str, name: str
) -> None:
    """Many clients over two servers; each verb again and again, so that a client that caches would."""
    async with WAYS[name](pooled, size=8) as database:

        async def once(n: int) -> None:
            for turn in range(12):
                async with database.begin() as tx:
                    await database.joined.fence(tx, f"lock/{n}", Token(1, turn + 1))
                    assert await database.joined.once(tx, "s", f"{n}/{turn}")
                    await database.joined.put(tx, "sold", messages(f"{n}/{turn}"))

        await asyncio.gather(*map(once, range(8)))
        assert (await database.relaying.waiting())[0] == 96


async def test_a_statement_prepared_by_name_breaks_behind_that_pooler(shop: str, pooled: str) -> None:
    """The negative control: asyncpg as it comes, in the same place."""
    import asyncpg

    async with asyncpg.create_pool(pooled, min_size=0, max_size=8) as pool:

        async def ask_by_name(n: int) -> None:
            for turn in range(12):
                async with pool.acquire() as one, one.transaction():
                    await one.fetch("SELECT $1::int", turn)

        with pytest.raises(asyncpg.PostgresError, match="prepared statement"):
            await asyncio.gather(*map(ask_by_name, range(8)))


# --- bad luck ---


async def test_a_wrong_password_a_missing_database_and_no_server_are_told_apart(made: str) -> None:
    await ask(made, "DROP ROLE IF EXISTS locked", "CREATE ROLE locked LOGIN PASSWORD 'right'")
    for url, error, words in (
        (made.replace("postgres@", "locked:wrong@"), ConfigurationError, "password"),
        (made.replace("/databases", "/nowhere"), ConfigurationError, "does not exist"),
        ("postgresql://postgres@127.0.0.1:1/x", NotSent, "cannot be reached"),
    ):
        database = atoll.database(url)
        with pytest.raises(error, match=words) as told, atoll.deadline(20):
            await database.open()
        assert "wrong" not in str(told.value).replace("wrong_", "")
        await database.close()
    await ask(made, "DROP ROLE locked")


async def test_a_pool_that_is_in_use_is_not_sent_by_the_deadline(shop: str) -> None:
    async with by_url(shop, size=1) as database, database.begin():
        with pytest.raises(NotSent, match="no connection was free"), atoll.deadline(0.2):
            async with database.begin():
                pass


async def test_a_server_that_stands_still_is_answered_for_by_the_deadline() -> None:
    """And whoever began before it stopped is told by theirs."""
    async with server("postgresql", tables=False, fsync=False) as cluster:
        url = await new_shop(server_of(cluster), "still")
        async with by_url(url) as database:
            await database.relaying.waiting()
            cluster.members[0].pause()
            try:
                with pytest.raises(NotApplied, match="was cut off"), atoll.deadline(0.3):
                    await database.relaying.waiting()
            finally:
                cluster.members[0].resume()
            async with asyncio.timeout(20):
                assert (await database.relaying.waiting())[0] == 0
            cluster.members[0].kill()
            with pytest.raises(NotApplied):
                await database.relaying.waiting()
            await cluster.members[0].start()
            assert (await database.relaying.waiting())[0] == 0


async def test_a_standby_is_read_only_and_says_where_to_go() -> None:
    async with server("postgresql", nodes=2, tables=False, fsync=False) as cluster:
        url = await new_shop(server_of(cluster), "copied")
        [[position]] = await ask(url, "SELECT pg_current_wal_lsn()::text")
        standby = url.replace(cluster.addresses[0], cluster.addresses[1])
        async with asyncio.timeout(20):
            while True:
                asked = f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
                if await ask(f"postgresql://postgres@{cluster.addresses[1]}/postgres", asked) == [(True,)]:
                    break
                await asyncio.sleep(0.02)
        async with by_url(standby) as database:
            with pytest.raises(ReadOnly, match="primary"):
                async with database.begin() as tx:
                    await database.joined.fence(tx, "lock/a", Token(1, 1))
        many = f"postgresql://postgres@{cluster.addresses[1]},{cluster.addresses[0]}/copied"
        async with atoll.database(f"{many}?target_session_attrs=read-write") as database:
            async with database.begin() as tx:
                await database.joined.fence(tx, "lock/a", Token(1, 1))


async def test_options_are_checked_and_passwords_are_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="connections_max"):
        atoll.database("postgresql://h/shop?nonsense=1")
    with pytest.raises(ConfigurationError, match="more than 0"):
        atoll.database("postgresql://h/shop?wait_s=0")
    with pytest.raises(ConfigurationError, match="names no database"):
        atoll.database("postgresql://h")
    shown = repr(atoll.database("postgresql://me:secret@h/shop"))
    assert "secret" not in shown and "***" in shown
    with pytest.raises(ConfigurationError, match="takes a URL"):
        atoll.database(asyncio.Queue())  # type: ignore[arg-type]
