"""3.1: inside the user's own transaction on PostgreSQL: seen once, fenced, staged, by each client library."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll
from atoll.errors import ConfigurationError, Conflict, FormatRefused, LimitReached, Refused
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.store import Token
from postgresql_shop import BLOCKING, KINDS, Kind, ask, emptied, new_bare, new_shop, server_of, until_blocked


def message(id: str, body: bytes = b"x") -> Message:
    return Message(id=id, body=body, key="k", headers={"traceparent": "00"}, delay_s=1.5)


@pytest.fixture(scope="module")
def made(shared: Any) -> str:
    return asyncio.run(new_shop(server_of(shared("postgresql", fsync=False)), "joined"))


@pytest.fixture
def shop(made: str) -> str:
    return asyncio.run(emptied(made))


@pytest.fixture(scope="module")
def bare(shared: Any) -> str:
    return asyncio.run(new_bare(server_of(shared("postgresql", fsync=False)), "bare"))


EACH = pytest.mark.parametrize("begin", KINDS.values(), ids=KINDS)
AWAITED = pytest.mark.parametrize(
    "begin", [k for n, k in KINDS.items() if n not in BLOCKING], ids=[n for n in KINDS if n not in BLOCKING]
)


@EACH
async def test_an_id_is_new_once_in_its_scope(shop: str, begin: Kind) -> None:
    async with begin(shop) as (tx, _):
        assert await joined_on(tx).once(tx, "reserve", "m1")
        assert not await joined_on(tx).once(tx, "reserve", "m1")
    async with begin(shop) as (tx, _):
        assert not await joined_on(tx).once(tx, "reserve", "m1")
        assert await joined_on(tx).once(tx, "bill", "m1")


@EACH
async def test_what_was_rolled_back_was_never_seen_staged_or_fenced(shop: str, begin: Kind) -> None:
    with pytest.raises(RuntimeError):
        async with begin(shop) as (tx, run):
            await joined_on(tx).fence(tx, "lock/a", Token(9, 9))
            assert await joined_on(tx).once(tx, "s", "m1")
            await joined_on(tx).put(tx, "sold", [message("1")])
            await run("INSERT INTO sale (what) VALUES ('tea')")
            raise RuntimeError("the body failed")
    async with begin(shop) as (tx, run):
        await joined_on(tx).fence(tx, "lock/a", Token(1, 1))
        assert await joined_on(tx).once(tx, "s", "m1")
        assert await run("SELECT * FROM sale") == []
    assert await ask(shop, "SELECT count(*) FROM atoll.outbox") == [(0,)]


@EACH
async def test_a_token_passes_until_a_greater_one_has_been_there(shop: str, begin: Kind) -> None:
    for token in (Token(1, 10), Token(1, 10), Token(1, 11), Token(2, 3)):
        async with begin(shop) as (tx, _):
            await joined_on(tx).fence(tx, "lock/a", token)
    for old in (Token(2, 2), Token(1, 500)):
        with pytest.raises(Refused, match=rf"your token is {old}, .* newer token 2:3"):
            async with begin(shop) as (tx, _):
                await joined_on(tx).fence(tx, "lock/a", old)
    async with begin(shop) as (tx, _):
        await joined_on(tx).fence(tx, "lock/another", Token(1, 1))


@EACH
async def test_row_and_messages_commit_together_in_order_and_as_they_were_put(shop: str, begin: Kind) -> None:
    async with begin(shop) as (tx, run):
        await run("INSERT INTO sale (what) VALUES ('tea')")
        await joined_on(tx).put(tx, "sold", [message("1"), message("2", b"\0\xff")])
        await joined_on(tx).put(tx, "moved", [message("3")])
        await joined_on(tx).put(tx, "moved", [])
    async with atoll.database(shop) as database:
        assert (await database.relaying.waiting())[0] == 3
        assert await database.relaying.queues() == ["moved", "sold"]
        staged = await database.relaying.staged(10, claim_s=30, queues=["sold"])
        assert [s.message for s in staged] == [message("1"), message("2", b"\0\xff")]
        assert staged[0].position < staged[1].position
        assert await database.relaying.staged(10, claim_s=30, queues=["sold"]) == []
        await database.relaying.forget([s.position for s in staged])
        assert (await database.relaying.waiting())[0] == 1


@AWAITED
@pytest.mark.parametrize("rival_commits", [True, False])
async def test_once_waits_until_its_rival_has_committed_or_not(
    shop: str, begin: Kind, rival_commits: bool
) -> None:
    async def second() -> bool:
        async with begin(shop) as (tx, _):
            return await joined_on(tx).once(tx, "s", "m1")

    waiting: asyncio.Task[bool] | None = None
    try:
        async with begin(shop) as (tx, _):
            assert await joined_on(tx).once(tx, "s", "m1")
            waiting = asyncio.create_task(second())
            await until_blocked(shop)
            assert not waiting.done()
            if not rival_commits:
                raise RuntimeError("the rival gives up")
    except RuntimeError:
        pass
    assert waiting is not None and await waiting is not rival_commits


@AWAITED
async def test_a_newer_holder_waits_for_the_end_of_an_older_holders_transaction(
    shop: str, begin: Kind
) -> None:
    """So what the older one writes is there to be read, or never comes."""
    seen: list[Any] = []

    async def newer() -> None:
        async with begin(shop) as (tx, run):
            await joined_on(tx).fence(tx, "lock/a", Token(1, 2))
            seen.extend(await run("SELECT what FROM sale"))

    async with begin(shop) as (tx, run):
        await joined_on(tx).fence(tx, "lock/a", Token(1, 1))
        later = asyncio.create_task(newer())
        await until_blocked(shop)
        await run("INSERT INTO sale (what) VALUES ('tea')")
    await later
    assert seen == [("tea",)]


@EACH
async def test_a_rival_that_does_not_end_is_a_conflict_by_the_deadline(shop: str, begin: Kind) -> None:
    async with KINDS["asyncpg Connection"](shop) as (rival, _):
        await joined_on(rival).fence(rival, "lock/a", Token(1, 1))
        with pytest.raises(Conflict, match="retry the whole"):
            async with begin(shop) as (tx, _):
                with atoll.deadline(0.3):
                    await joined_on(tx).fence(tx, "lock/a", Token(1, 2))


@EACH
async def test_a_deadline_leaves_the_users_own_lock_timeout_as_it_was(shop: str, begin: Kind) -> None:
    async with begin(shop) as (tx, run):
        await run("SET LOCAL lock_timeout = '7s'")
        with atoll.deadline(5):
            await joined_on(tx).fence(tx, "lock/a", Token(1, 1))
        assert await run("SHOW lock_timeout") == [("7s",)]


@EACH
async def test_a_snapshot_older_than_the_newest_holder_is_told_to_retry(shop: str, begin: Kind) -> None:
    """REPEATABLE READ, and a read before the fence: the mistake that the page warns of."""
    with pytest.raises(Conflict, match="retry the whole transaction"):
        async with begin(shop) as (tx, run):
            await run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await run("SELECT * FROM sale")
            async with KINDS["asyncpg Connection"](shop) as (rival, _):
                await joined_on(rival).fence(rival, "lock/a", Token(1, 1))
            await joined_on(tx).fence(tx, "lock/a", Token(1, 2))


@EACH
async def test_after_a_failed_statement_nothing_of_ours_is_said_to_be_done(shop: str, begin: Kind) -> None:
    with pytest.raises(Conflict, match="earlier statement"):
        async with begin(shop) as (tx, run):
            with pytest.raises(Exception, match="nonsense"):
                await run("SELECT nonsense FROM sale")
            await joined_on(tx).put(tx, "sold", [message("1")])
    assert await ask(shop, "SELECT count(*) FROM atoll.outbox") == [(0,)]


async def test_a_connection_with_its_own_rows_cursors_or_pipeline_is_understood(shop: str) -> None:
    import asyncpg
    import psycopg
    from psycopg.rows import dict_row

    class Mine(asyncpg.Record):  # type: ignore[misc]
        pass

    async def pass_and_be_refused(tx: Any, n: int) -> None:
        await joined_on(tx).fence(tx, f"lock/{n}", Token(1, 2))
        with pytest.raises(Refused, match="newer token 1:2"):
            await joined_on(tx).fence(tx, f"lock/{n}", Token(1, 1))
        await joined_on(tx).put(tx, "sold", [message("1")])

    one = await psycopg.AsyncConnection.connect(
        shop, row_factory=dict_row, cursor_factory=psycopg.AsyncRawCursor
    )
    async with one:
        await pass_and_be_refused(one, 1)
        async with one.pipeline():
            await pass_and_be_refused(one, 2)
    with psycopg.connect(shop, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as two:
        await pass_and_be_refused(two, 3)
    three = await asyncpg.connect(shop, record_class=Mine, statement_cache_size=0)
    async with three.transaction():
        await pass_and_be_refused(three, 4)
    await three.close()


async def test_a_connection_in_autocommit_is_refused_because_nothing_would_be_joined(shop: str) -> None:
    import asyncpg
    import psycopg
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    atoll.database(shop)
    async with await psycopg.AsyncConnection.connect(shop, autocommit=True) as one:
        with pytest.raises(ConfigurationError, match=r"connection\.transaction\(\)"):
            await joined_on(one).once(one, "s", "1")
        async with one.transaction():
            assert await joined_on(one).once(one, "s", "1")
    two = await asyncpg.connect(shop)
    with pytest.raises(ConfigurationError, match=r"connection\.transaction\(\)"):
        await joined_on(two).once(two, "s", "2")
    await two.close()
    plain = create_engine(shop.replace("://", "+psycopg://"), isolation_level="AUTOCOMMIT")
    atoll.database(plain)
    with plain.connect() as three, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        await joined_on(three).once(three, "s", "3")
    plain.dispose()
    for driver in ("asyncpg", "psycopg"):
        engine = create_async_engine(shop.replace("://", f"+{driver}://"), isolation_level="AUTOCOMMIT")
        async with engine.connect() as four:
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                await joined_on(four).once(four, "s", "4")
        await engine.dispose()
    assert await ask(shop, "SELECT id FROM atoll.inbox") == [("1",)]


@EACH
async def test_tables_that_are_missing_are_named_with_the_command(bare: str, begin: Kind) -> None:
    with pytest.raises(ConfigurationError, match="atoll schema URL"):
        async with begin(bare) as (tx, _):
            await joined_on(tx).once(tx, "s", "1")
    assert await ask(bare, "SELECT 1 FROM pg_namespace WHERE nspname = 'atoll'") == [], "made by surprise"


async def test_tables_of_a_future_format_are_left_alone(shop: str) -> None:
    await ask(shop, "UPDATE atoll.format SET number = 99 WHERE part = 'joined'")
    try:
        for ask_it in (atoll.database(shop).open, atoll.database(shop).schema.make):
            with pytest.raises(FormatRefused, match="99"):
                await ask_it()
    finally:
        await ask(shop, "UPDATE atoll.format SET number = 1 WHERE part = 'joined'")


@EACH
async def test_a_user_without_rights_is_told_which_to_grant(shop: str, begin: Kind) -> None:
    await ask(
        shop,
        "DROP ROLE IF EXISTS clerk",
        "CREATE ROLE clerk LOGIN",
    )
    as_clerk = shop.replace("postgres@", "clerk@")
    with pytest.raises(ConfigurationError, match="GRANT USAGE ON SCHEMA atoll"):
        async with begin(as_clerk) as (tx, _):
            await joined_on(tx).once(tx, "s", "1")
    await ask(
        shop,
        "GRANT USAGE ON SCHEMA atoll TO clerk",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA atoll TO clerk",
    )
    async with begin(as_clerk) as (tx, _):
        assert await joined_on(tx).once(tx, "s", "1")
        await joined_on(tx).put(tx, "sold", [message("1")])
    await ask(shop, "DROP OWNED BY clerk", "DROP ROLE clerk")


@pytest.mark.parametrize("wrong", ["a\0b", "x" * 1025])
async def test_what_text_or_an_index_cannot_hold_is_refused_before_it_is_sent(shop: str, wrong: str) -> None:
    async with KINDS["asyncpg Connection"](shop) as (tx, run):
        joined = joined_on(tx)
        for attempt in (
            joined.once(tx, "s", wrong),
            joined.fence(tx, wrong, Token(1, 1)),
            joined.put(tx, "sold", [message(wrong)]),
        ):
            with pytest.raises(LimitReached, match="1024 bytes"):
                await attempt
        with pytest.raises(LimitReached, match="bytes; at most"):
            await joined.put(tx, "sold", [message("1", b"x" * (1 << 20) + b"x")])
        assert await run("SELECT 1") == [(1,)], "the transaction goes on"
