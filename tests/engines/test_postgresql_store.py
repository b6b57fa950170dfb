"""3.1: the PostgreSQL store: one round trip a call, tables only when asked for, the pools that a team has."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from postgresql_ways import KINDS, Porter, database, handed

import atoll.urls
from atoll import ConfigurationError, FormatRefused, Lock, MissingExtra
from atoll.engines.postgresql import PostgresStore
from atoll.engines.postgresql.options import StoreOptions
from atoll.ports.store import Durable, put
from atoll.verify import conformance_store
from atoll.verify.servers import postgresql

CASES = dict(conformance_store.CASES)
FEW = (
    "a_put_answers_the_entry_as_it_stands",
    "a_transaction_happens_whole_or_not_at_all",
    "values_are_any_bytes",
    "one_request_id_at_once_is_applied_once",
    "a_guard_lets_only_the_owner_write",
    "keys_are_ordered_bytewise_and_none_are_confused",
    "a_prompt_observer_hears_every_transaction_whole",
    "the_keys_of_a_lease_go_in_one_transaction",
    "an_observer_hears_of_an_end_though_nobody_calls",
    "a_frozen_store_takes_no_writes_until_it_thaws",
)


@pytest.fixture
def port(shared: Any) -> int:
    return int(shared("postgresql").facts["ports"][0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FEW)
async def test_a_pool_that_the_team_has_keeps_the_same_promises(name: str, kind: str, shared: Any) -> None:
    async with handed(kind, shared("postgresql").url, poll_s=0.02) as store:
        await CASES[name](lambda: store)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pool_is_given_back_as_it_was_and_stays_open(kind: str, shared: Any) -> None:
    async with handed(kind, shared("postgresql").url) as store:
        await store.transact(put("given/k", b"1"))
        await store.close()
        entry = (await store.get("given/k")).entry
        assert entry is not None and entry.value == b"1"


@pytest.mark.parametrize("thing", [None, object(), "postgresql://x/y", [1]])
def test_what_is_no_pool_is_refused_with_what_is_one(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"psycopg_pool\.AsyncConnectionPool, an asyncpg Pool"):
        PostgresStore(pool=thing)


async def test_a_transaction_and_a_get_are_one_round_trip_each(port: int) -> None:
    async with Porter(port) as porter:
        store = atoll.urls.store(f"postgresql://postgres@127.0.0.1:{porter.port}/postgres?notify=off")
        async with store:
            for _ in range(8):  # the server-side statement is named at its third use
                await store.transact(put("trips/k", b"1"))
                await store.get("trips/k")
            before = porter.turns
            for _ in range(10):
                await store.transact(put("trips/k", b"2"))
            assert porter.turns - before == 10
            before = porter.turns
            for _ in range(10):
                await store.get("trips/k")
            assert porter.turns - before == 10


async def test_an_uncontended_lock_is_one_round_trip_to_take_and_one_to_give_back(port: int) -> None:
    async with Porter(port) as porter:
        url = f"postgresql://postgres@127.0.0.1:{porter.port}/postgres?notify=off"
        async with atoll.urls.store(url) as store:
            for _ in range(5):  # the first one grants the lease
                async with Lock(store, "trips", ttl_s=60):
                    pass
            before = porter.turns
            async with Lock(store, "trips", ttl_s=60):
                taken = porter.turns - before
            assert (taken, porter.turns - before) == (1, 2)


async def test_writes_that_wait_together_leave_together(port: int) -> None:
    async with Porter(port) as porter:
        url = f"postgresql://postgres@127.0.0.1:{porter.port}/postgres?notify=off"
        async with atoll.urls.store(url) as store:
            await store.transact(put("together/k", b""))
            before = porter.turns
            answers = await asyncio.gather(*(store.transact(put(f"together/{n}", b"")) for n in range(100)))
            assert porter.turns - before <= 3
            assert len({answer.revision for answer in answers}) == 100


async def test_tables_are_never_made_by_surprise(port: int) -> None:
    url = await database(port, tables=False)
    store = atoll.urls.store(url)
    with pytest.raises(ConfigurationError, match=f"atoll schema {url}"):
        await store.get("k")
    with pytest.raises(ConfigurationError, match=f"atoll schema {url}"):
        await store.transact(put("k", b""))
    assert (
        await postgresql.ask(
            port, "SELECT 1 FROM pg_namespace WHERE nspname = 'atoll'", url.rpartition("/")[2]
        )
        == []
    )
    async with atoll.urls.store(f"{url}?create=true") as made:
        await made.transact(put("k", b"1"))
    assert (await store.get("k")).entry is not None, "the handle that was refused works when there are tables"
    await store.close()


async def test_many_who_make_the_tables_at_once_make_them_once(port: int) -> None:
    url = await database(port, tables=False)
    stores = [atoll.urls.store(f"{url}?create=true") for _ in range(5)]
    await asyncio.gather(*(store.transact(put(f"k{n}", b"")) for n, store in enumerate(stores)))
    assert len((await stores[0].range("k")).entries) == 5
    for store in stores:
        await store.close()


async def test_tables_of_a_newer_atoll_are_refused(port: int) -> None:
    url = await database(port)
    name = url.rpartition("/")[2]
    await postgresql.ask(port, "UPDATE atoll.format SET number = 99 WHERE part = 'store'", name)
    store = atoll.urls.store(url)
    with pytest.raises(FormatRefused, match="format 99"):
        await store.get("k")


async def test_a_key_may_hold_a_nul(port: int) -> None:
    async with atoll.urls.store(f"postgresql://postgres@127.0.0.1:{port}/postgres") as store:
        await store.transact(put("nul/a\0b", b"1"), put("nul/a", b"2"))
        assert [entry.key for entry in (await store.range("nul/")).entries] == ["nul/a", "nul/a\0b"]
        assert (await store.get("nul/a\0b")).entry is not None


@pytest.mark.parametrize(
    ("settings", "durable"),
    [
        ("on", Durable.NODE),
        ("local", Durable.NODE),
        ("off", Durable.NONE),
    ],
)
async def test_the_claim_of_durability_is_read_from_the_server(
    port: int, settings: str, durable: Durable
) -> None:
    url = await database(port)
    name = url.rpartition("/")[2]
    await postgresql.ask(port, f"ALTER DATABASE {name} SET synchronous_commit = {settings}")
    async with atoll.urls.store(url) as store:
        assert (await store.open()).durable is durable


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="notify"):
        atoll.urls.store("postgresql://h/db?notfy=direct")
    with pytest.raises(ConfigurationError, match="key_bytes_max"):
        atoll.urls.store("postgresql://h/db?key_bytes_max=5000")
    with pytest.raises(ConfigurationError, match="poll_s"):
        atoll.urls.store("postgresql://h/db?poll_s=0")
    with pytest.raises(ConfigurationError, match="notify"):
        atoll.urls.store("postgresql://h/db?notify=sometimes")


def test_a_password_is_shown_nowhere() -> None:
    way = "postgresql://me:s3cret@direct:5432/db"
    store = atoll.urls.store(f"postgresql://me:s3cret@h:1/db?notify={way}")
    assert "s3cret" not in repr(store) + str(store.url) + repr(vars(store))
    with pytest.raises(ConfigurationError) as refusal:
        atoll.urls.store(f"postgresql://me:s3cret@h:1/db?notify={way}&nonsense=1")
    assert "s3cret" not in str(refusal.value)


def test_a_forked_child_opens_the_store_anew(port: int) -> None:
    store = atoll.urls.store(f"postgresql://postgres@127.0.0.1:{port}/postgres")

    async def write(name: str) -> int:
        return (await store.transact(put(f"fork/{name}", b""))).revision

    async def session() -> int:
        return int((await store.ask("a look", "SELECT pg_backend_pid()"))[0][0])

    async def both() -> tuple[int, int]:
        first, mine = await write("parent"), await session()
        child = os.fork()
        if child == 0:
            os._exit(_in_child(store))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert await session() == mine, "the child closed its parent's connection"
        return first, code

    async def whole() -> None:
        first, code = await asyncio.to_thread(lambda: asyncio.run(both()))
        assert code == 0, "the child could not write with its parent's handle"
        assert (await store.get("fork/child")).revision > first
        assert (await store.get("fork/child")).entry is not None
        await store.close()

    asyncio.run(whole())


def _in_child(store: Any) -> int:
    try:

        async def write() -> None:
            await store.transact(put("fork/child", b""))
            await store.close()

        import threading

        failed: list[BaseException] = []

        def body() -> None:
            try:
                asyncio.run(write())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(30)
        return int(bool(failed) or thread.is_alive())
    except BaseException:
        return 2


def test_without_the_client_library_the_line_to_type_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.engines.postgresql.store.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "atoll\[postgresql\]"'):
        atoll.urls.store("postgresql://h/db")


def test_options_are_checked_when_the_handle_is_made() -> None:
    with pytest.raises(ConfigurationError, match="connections_max"):
        StoreOptions(connections_max=0)
