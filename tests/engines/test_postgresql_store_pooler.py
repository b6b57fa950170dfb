"""3.1: right behind PgBouncer in transaction mode: nothing is kept in a session; news come all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from postgresql_ways import database, handed

import atoll.urls
from atoll import Lock
from atoll.ports.examining import Weight
from atoll.ports.store import put
from atoll.verify import conformance_store
from atoll.verify.servers import postgresql

CASES = dict(conformance_store.CASES)
FEW = (
    "nothing_is_written_twice_or_lost_by_many_writers",
    "a_request_id_makes_a_retry_exact",
    "a_guard_is_judged_inside_the_transaction",
    "a_range_is_one_snapshot",
    "an_observer_ends_up_with_the_picture_that_is_there",
    "no_change_is_skipped_among_many",
    "the_keys_of_a_lease_go_in_one_transaction",
    "an_observer_hears_of_an_end_though_nobody_calls",
)


@contextlib.asynccontextmanager
async def pooled(shared: Any, *, pool_size: int = 1) -> AsyncIterator[tuple[str, str]]:
    """A database of its own: its URL through PgBouncer, and the URL past it."""
    cluster = shared("postgresql", fsync=False)
    straight = await database(cluster.facts["ports"][0])
    process, place = await cluster.facts["pooler"](pool_size=pool_size)
    try:
        yield f"postgresql://postgres@{place}/{straight.rpartition('/')[2]}", straight
    finally:
        process.kill()


@pytest.mark.parametrize("name", FEW)
async def test_the_promises_hold_with_one_server_connection_for_all(name: str, shared: Any) -> None:
    async with pooled(shared) as (url, _):
        made: list[Any] = []

        def make() -> Any:
            made.append(atoll.urls.store(f"{url}?poll_s=0.02"))
            return made[-1]

        try:
            await CASES[name](make)
        finally:
            for store in made:
                await store.close()


async def test_nothing_is_left_in_the_session_that_the_next_client_gets(shared: Any) -> None:
    async with pooled(shared) as (url, straight):
        async with atoll.urls.store(url) as store:
            for number in range(10):
                await store.transact(put("k", b"%d" % number))
                await store.get("k")
            async with Lock(store, "x", best_effort=True):
                pass
        port, name = int(straight.split(":")[2].partition("/")[0]), straight.rpartition("/")[2]
        pool = int(url.split(":")[2].partition("/")[0])
        left = await postgresql.ask(pool, "SELECT name FROM pg_prepared_statements", name)
        assert left == [], "a statement is kept on the server connection"
        [(lock_timeout, synchronous)] = await postgresql.ask(
            pool, "SELECT current_setting('lock_timeout'), current_setting('synchronous_commit')", name
        )
        assert (lock_timeout, synchronous) == ("0", "on")
        assert await postgresql.ask(port, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'", name) == []


async def test_what_is_claimed_is_what_commits_are_made_with(shared: Any) -> None:
    """A session that somebody else set to synchronous_commit=off weakens none of our commits."""
    async with pooled(shared) as (url, straight), atoll.urls.store(url) as store:
        port, name = int(straight.split(":")[2].partition("/")[0]), straight.rpartition("/")[2]
        pool = int(url.split(":")[2].partition("/")[0])
        await postgresql.ask(
            port,
            "CREATE TABLE public.seen (v text);"
            "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
            "CREATE TRIGGER note AFTER UPDATE ON atoll.counter FOR EACH ROW EXECUTE FUNCTION public.note()",
            name,
        )
        await postgresql.ask(pool, "SET synchronous_commit = off", name)
        assert await postgresql.ask(pool, "SELECT current_setting('synchronous_commit')", name) == [("off",)]
        await store.transact(put("k", b"1"))
        assert await postgresql.ask(port, "SELECT v FROM public.seen", name) == [("on",)]


async def test_a_pooler_is_noticed_and_said(shared: Any) -> None:
    async with pooled(shared) as (url, straight):
        for way, weight in ((url, Weight.NOTE), (straight, Weight.FINE)):
            async with atoll.urls.store(way) as store:
                assert store.examining is not None
                found = {finding.setting: finding for finding in await store.examining.examine()}
                assert found["a pooler between"].weight is weight


@pytest.mark.parametrize("way", ["straight", "past the pooler"])
async def test_news_come_by_notify_where_there_is_a_straight_line(way: str, shared: Any) -> None:
    """With polling so seldom that only a bell can have brought them."""
    async with pooled(shared, pool_size=3) as (url, straight):
        place = f"{straight}?poll_s=60" if way == "straight" else f"{url}?poll_s=60&notify={straight}"
        async with atoll.urls.store(place) as store, atoll.urls.store(straight) as other:
            news = store.observe("n/")
            await anext(news)
            waiting = asyncio.ensure_future(anext(news))
            port, name = int(straight.split(":")[2].partition("/")[0]), straight.rpartition("/")[2]
            async with asyncio.timeout(20):
                while not await postgresql.ask(  # until somebody listens
                    port,
                    "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query ~ 'counter'",
                    name,
                ):
                    await asyncio.sleep(0.01)
                await other.transact(put("n/k", b""))
                assert (await waiting).changed[0].key == "n/k"
            await news.aclose()  # type: ignore[attr-defined]


async def test_without_a_straight_line_news_come_by_looking(shared: Any) -> None:
    async with pooled(shared) as (url, straight):
        async with atoll.urls.store(f"{url}?poll_s=0.05") as store, atoll.urls.store(straight) as other:
            news = store.observe("n/")
            await anext(news)
            waiting = asyncio.ensure_future(anext(news))
            await other.transact(put("n/k", b""))
            async with asyncio.timeout(20):
                assert (await waiting).changed[0].key == "n/k"
            await news.aclose()  # type: ignore[attr-defined]


async def test_a_line_that_breaks_is_made_again(shared: Any) -> None:
    port = shared("postgresql", fsync=False).facts["ports"][0]
    straight = await database(port)
    name = straight.rpartition("/")[2]
    async with atoll.urls.store(f"{straight}?poll_s=0.05") as store:
        news = store.observe("n/")
        await anext(news)
        for number in range(3):
            waiting = asyncio.ensure_future(anext(news))
            await asyncio.sleep(0)
            await postgresql.ask(
                port,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()",
                name,
            )
            async with atoll.urls.store(straight) as other:
                await other.transact(put(f"n/{number}", b""))
            async with asyncio.timeout(20):
                observation = await waiting
            assert f"n/{number}" in {entry.key for entry in observation.changed}
        await news.aclose()  # type: ignore[attr-defined]


async def test_asyncpg_without_its_statement_cache_goes_through_the_pooler(shared: Any) -> None:
    import asyncpg

    from atoll.engines.postgresql import PostgresStore

    async with pooled(shared) as (url, _):
        async with asyncpg.create_pool(url, min_size=1, max_size=3, statement_cache_size=0) as pool:
            store = PostgresStore(pool=pool)
            await CASES["a_request_id_makes_a_retry_exact"](lambda: store)
            await store.close()


async def test_handed_pools_go_through_the_pooler(shared: Any) -> None:
    async with pooled(shared) as (url, _), handed("psycopg_pool", url) as store:
        for name in FEW[1:3]:
            await CASES[name](lambda: store)


async def test_nobody_listens_through_a_pooler_even_if_told_to(shared: Any) -> None:
    """A LISTEN left in a pooled session would ring for whoever gets it next."""
    async with pooled(shared) as (url, straight):
        pool, name = int(url.split(":")[2].partition("/")[0]), straight.rpartition("/")[2]
        for notify in ("direct", url):
            way = f"{url}?poll_s=0.02&notify={notify}"
            async with atoll.urls.store(way) as store, atoll.urls.store(straight) as other:
                news = store.observe("n/")
                await anext(news)
                waiting = asyncio.ensure_future(anext(news))
                await asyncio.sleep(0.1)
                await other.transact(put("n/k", b""))
                async with asyncio.timeout(20):
                    assert (await waiting).changed[0].key == "n/k"
                await news.aclose()  # type: ignore[attr-defined]
        assert await postgresql.ask(pool, "SELECT pg_listening_channels()", name) == []
