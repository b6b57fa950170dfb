"""3.1: a SQLAlchemy engine on PostgreSQL is a database: sessions of either colour, its pool, its errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import atoll
from atoll.errors import ConfigurationError, NotApplied, NotSent, Refused
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.store import Token
from postgresql_shop import ask, emptied, new_bare, new_shop, server_of


@pytest.fixture(scope="module")
def made(shared: Any) -> str:
    return asyncio.run(new_shop(server_of(shared("postgresql")), "alchemy"))


@pytest.fixture
def shop(made: str) -> str:
    return asyncio.run(emptied(made))


def of(url: str, driver: str) -> str:
    return url.replace("://", f"+{driver}://")


DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@DRIVERS
async def test_a_session_of_the_users_own_maker_fences_writes_and_stages(shop: str, driver: str) -> None:
    engine = create_async_engine(of(shop, driver))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    database: Any = atoll.database(engine)
    assert database.name == "alchemy"
    async with database:
        async with sessions() as session, session.begin():
            await database.joined.fence(session, "lock/a", Token(1, 5))
            await session.execute(text("INSERT INTO sale (what) VALUES (:what)"), {"what": "tea"})
            await joined_on(session).put(session, "sold", [Message(id="1", body=b"x")])
        with pytest.raises(Refused, match="newer token 1:5"):
            async with sessions() as session, session.begin():
                await database.joined.fence(session, "lock/a", Token(1, 4))
        [staged] = await database.relaying.staged(10, claim_s=1, queues=["sold"])
        await database.relaying.forget([staged.position])
        assert await database.relaying.waiting() == (0, 0.0)
    await engine.dispose()


@DRIVERS
async def test_begin_and_read_give_sessions(shop: str, driver: str) -> None:
    engine = create_async_engine(of(shop, driver))
    async with atoll.database(engine) as database:
        async with database.begin() as session:
            assert isinstance(session, AsyncSession)
            await session.execute(text("INSERT INTO sale (what) VALUES ('tea')"))
        with pytest.raises(IntegrityError):
            async with database.begin() as session:
                await session.execute(text("INSERT INTO sale (what) VALUES ('tea')"))
        async with database.read() as session:
            assert (await session.execute(text("SELECT count(*) FROM sale"))).scalar() == 1
    await engine.dispose()


@DRIVERS
async def test_scoped_sessions_carry_the_verbs_too(shop: str, driver: str) -> None:
    engine = create_async_engine(of(shop, driver))
    atoll.database(engine)
    registry = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    assert await joined_on(registry).once(registry, "s", "1")
    await registry.commit()
    await registry.remove()
    await engine.dispose()
    plain_engine = create_engine(of(shop, "psycopg"))
    plain = scoped_session(sessionmaker(plain_engine))
    assert not await joined_on(plain).once(plain, "s", "1")
    plain.remove()
    plain_engine.dispose()


async def test_a_session_that_begins_by_itself_is_begun_by_the_verb(shop: str) -> None:
    """SQLAlchemy begins at the first statement; so a fence may be that first statement."""
    engine = create_engine(of(shop, "psycopg"))
    database = atoll.database(engine)
    with Session(engine) as session:
        await database.joined.fence(session, "lock/a", Token(1, 1))
        session.rollback()
        await database.joined.fence(session, "lock/a", Token(1, 1))
        session.commit()
    assert await ask(shop, "SELECT epoch, revision, passes FROM atoll.fence") == [(1, 1, 1)]
    engine.dispose()


@DRIVERS
async def test_open_makes_no_table_but_names_the_command(shared: Any, driver: str) -> None:
    bare = await new_bare(server_of(shared("postgresql")), "bare_alchemy")
    engine = create_async_engine(of(bare, driver))
    database: Any = atoll.database(engine)
    with pytest.raises(ConfigurationError, match="atoll schema URL"):
        await database.open()
    assert await ask(bare, "SELECT 1 FROM pg_namespace WHERE nspname = 'atoll'") == []
    assert "atoll.fence" in await database.schema.make()
    assert await database.schema.make() == []
    await database.open()
    await engine.dispose()


@DRIVERS
async def test_a_connection_that_the_server_ended_is_replaced_by_the_pool(shop: str, driver: str) -> None:
    engine = create_async_engine(of(shop, driver), pool_size=1, max_overflow=0)
    async with atoll.database(engine) as database:
        with pytest.raises(NotApplied, match="nothing of this transaction stands"):
            async with database.begin() as session:
                pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
                await ask(shop, f"SELECT pg_terminate_backend({pid}, 5000)")
                await database.joined.fence(session, "lock/a", Token(1, 1))
        async with database.begin() as session:
            await database.joined.fence(session, "lock/a", Token(1, 1))
    await engine.dispose()


@DRIVERS
async def test_a_server_that_is_not_there_is_not_sent(driver: str) -> None:
    engine = create_async_engine(f"postgresql+{driver}://postgres@127.0.0.1:1/shop")
    with pytest.raises(NotSent, match="cannot be reached"):
        await atoll.database(engine).open()
    await engine.dispose()


def test_a_driver_that_was_not_tried_is_refused_by_name() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.name, engine.dialect.driver = "postgresql", "pg8000"
    with pytest.raises(ConfigurationError, match=r"postgresql\+pg8000; this release works with asyncpg"):
        atoll.database(engine)


async def test_a_password_of_the_engine_is_not_shown() -> None:
    engine = create_async_engine("postgresql+asyncpg://me:secret@127.0.0.1:1/shop")
    database = atoll.database(engine)
    assert "secret" not in repr(database)
    with pytest.raises(NotSent) as told:
        await database.open()
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("words", [{"prepared_statement_cache_size": 0}])
async def test_behind_a_pooler_in_transaction_mode_with_unnamed_statements(
    shared: Any, shop: str, words: dict[str, Any]
) -> None:
    """The engine's own setting decides, for its statements and for ours: the one that the page gives."""
    cluster = shared("postgresql")
    pooler, address = await cluster.facts["pooler"](pool_size=2)
    url = shop.replace(cluster.addresses[0], address)
    engine = create_async_engine(
        of(url, "asyncpg"),
        connect_args={**words, "statement_cache_size": 0, "prepared_statement_name_func": lambda: ""},
    )
    try:
        async with atoll.database(engine) as database:

            async def work(n: int) -> None:
                for turn in range(6):
                    async with database.begin() as session:
                        await database.joined.fence(session, f"lock/{n}", Token(1, turn + 1))
                        await session.execute(text("SELECT :n"), {"n": "x"})

            await asyncio.gather(*map(work, range(6)))
        await engine.dispose()
    finally:
        pooler.kill()
    assert await ask(shop, "SELECT sum(passes)::int FROM atoll.fence") == [(36,)]
