"""3.3: the store on Redis and Valkey: by URL, by client object, in many loops, in few round trips."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import redis.asyncio

import atoll.urls
from atoll import ConfigurationError, Lock, put
from atoll.engines.redis import RedisOptions, RedisStore
from atoll.ports.register import Applied
from atoll.ports.store import Durable
from atoll.verify.servers.redis import PASSWORD, client_of
from servers import Shared, server


def port(cluster: Any) -> int:
    return int(cluster.addresses[0].rpartition(":")[2])


@asynccontextmanager
async def asking(number: int, **login: Any) -> AsyncIterator[Any]:
    client = client_of(number, **login)
    try:
        yield client
    finally:
        await client.aclose()


async def calls(client: Any) -> int:
    """How many scripts the server ran so far."""
    stats = await client.info("commandstats")
    return sum(
        int(one["calls"]) for name, one in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval")
    )


@pytest.mark.parametrize("product", ["redis", "valkey"])
async def test_an_uncontended_lock_is_one_round_trip_to_take_and_one_to_give_back(
    product: str, shared: Shared
) -> None:
    cluster = shared(product)
    async with atoll.urls.store(f"{cluster.url}?prefix=trips") as store, asking(port(cluster)) as client:
        async with Lock(store, "warm"):  # the session's lease is granted once
            pass
        before = await calls(client)
        for number in range(20):
            async with Lock(store, f"order/{number}"):
                pass
        assert await calls(client) - before == 40


async def test_a_store_without_traffic_sends_nothing(shared: Shared) -> None:
    cluster = shared("redis")
    store = atoll.urls.store(f"{cluster.url}?prefix=never")
    async with asking(port(cluster)) as client:
        assert await client.keys("{never}*") == []
    await store.close()


async def test_two_prefixes_are_two_stores(shared: Shared) -> None:
    cluster = shared("redis")
    async with (
        atoll.urls.store(f"{cluster.url}?prefix=one") as one,
        atoll.urls.store(f"{cluster.url}?prefix=two") as two,
        atoll.urls.store(f"{cluster.url}/3?prefix=one") as third,
    ):
        await one.transact(put("k", b"1"))
        assert (await two.get("k")).entry is None
        assert (await third.get("k")).entry is None


@pytest.mark.parametrize("value", [b"", b"\x00", b"\r\n:1:2::", bytes(range(256)), b"1:2:lease:x"])
async def test_values_are_any_bytes(value: bytes, shared: Shared) -> None:
    async with atoll.urls.store(f"{shared('redis').url}?prefix=bytes") as store:
        done = await store.transact(put("a:b", value))
        got = await store.get("a:b")
        assert got.entry is not None and got.entry.value == value
        assert isinstance(done, Applied) and done.results[0] == got.entry


async def test_keys_with_any_character_are_told_apart(shared: Shared) -> None:
    async with atoll.urls.store(f"{shared('redis').url}?prefix=names") as store:
        names = ["a", "a\0", "a\0b", "a\x01", "ä", "{x}", "\U0010ffff", "a:1:2:", "z\n"]
        lease = (await store.leasing.grant(30)).lease  # type: ignore[union-attr]
        await store.transact(*(put(name, name.encode(), lease=lease) for name in names))
        found = await store.range()
        assert [e.key for e in found.entries] == sorted(names, key=lambda name: name.encode())
        await store.leasing.revoke(lease)  # type: ignore[union-attr]
        assert (await store.range()).entries == ()


async def test_ten_thousand_children_come_in_one_answer(shared: Shared) -> None:
    async with atoll.urls.store(f"{shared('redis').url}?prefix=many") as store:
        lease = (await store.leasing.grant(60)).lease  # type: ignore[union-attr]
        for start in range(0, 10_000, 1000):
            await store.transact(*(put(f"c/{n:06}", b"v", lease=lease) for n in range(start, start + 1000)))
        began = time.monotonic()
        found = await store.range("c/", limit=10_000)
        assert len(found.entries) == 10_000 and not found.more
        assert time.monotonic() - began < RedisOptions().ceiling_s
        watching = store.observe("c/")
        assert len((await anext(watching)).changed) == 10_000
        await store.leasing.revoke(lease)  # type: ignore[union-attr]
        gone = await anext(watching)
        assert len(gone.removed) == 10_000, "the end of a lease is one transaction, however many keys it has"
        await watching.aclose()  # type: ignore[attr-defined]


async def test_a_server_that_forgot_the_scripts_is_handed_them_again(shared: Shared) -> None:
    cluster = shared("redis")
    async with atoll.urls.store(f"{cluster.url}?prefix=flushed") as store, asking(port(cluster)) as client:
        for number in range(3):
            done = await store.transact(put("k", b"%d" % number))
            assert isinstance(done, Applied)
            await client.script_flush()
        got = await store.get("k")
        assert got.entry is not None and got.entry.value == b"2"


async def test_two_handles_and_two_products_of_a_client_see_the_same(shared: Shared) -> None:
    cluster = shared("redis")
    client = client_of(port(cluster))
    plain = redis.Redis(host="127.0.0.1", port=port(cluster), decode_responses=True)
    options = RedisOptions(prefix="clients")
    mine, theirs = RedisStore(client=client, options=options), RedisStore(client=plain, options=options)
    try:
        await mine.transact(put("k", b"\xff"))
        got = await theirs.get("k")
        assert got.entry is not None and got.entry.value == b"\xff"
        assert repr(mine) == f"<Store redis://127.0.0.1:{port(cluster)}>"
    finally:
        await mine.close()
        await theirs.close()
        await client.aclose()
        plain.close()


def test_a_client_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="master_for"):
        RedisStore(client=object())
    with pytest.raises(ConfigurationError, match="client="):
        RedisStore()


def test_a_handle_serves_several_loops_and_a_forked_child(shared: Shared) -> None:
    store = atoll.urls.store(f"{shared('redis').url}?prefix=loops")

    async def write(name: str) -> Any:
        await store.transact(put(name, b""))
        found = [entry.key for entry in (await store.range()).entries]
        await store.close()
        return found

    assert asyncio.run(write("a")) == ["a"]
    assert asyncio.run(write("b")) == ["a", "b"]

    async def with_child() -> list[str]:
        await store.transact(put("parent", b""))
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                asyncio.set_event_loop(None)
                os.write(there, b"said nothing")
                asyncio._set_running_loop(None)
                os.write(there, repr(asyncio.run(write("child"))).encode())
            finally:
                os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        said = os.read(here, 1000).decode()
        os.close(here)
        os.close(there)
        assert "child" in said and "parent" in said, said
        await store.transact(put("parent again", b""))
        found = [entry.key for entry in (await store.range()).entries]
        await store.close()
        return found

    assert asyncio.run(with_child()) == ["a", "b", "child", "parent", "parent again"]


async def test_a_hundred_tasks_at_once_share_a_few_connections(shared: Shared) -> None:
    cluster = shared("redis")
    async with atoll.urls.store(f"{cluster.url}?prefix=crowd&connections_max=4") as store:
        done = await asyncio.gather(*(store.transact(put(f"k{n}", b"")) for n in range(100)))
        assert len({one.revision for one in done}) == 100
        async with asking(port(cluster)) as client:
            assert int((await client.info("clients"))["connected_clients"]) < 60


async def test_tls_and_a_password_by_url_and_by_client(shared: Shared) -> None:
    cluster = shared("redis", tls=True, password=True)
    number = port(cluster)
    async with atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        assert PASSWORD not in repr(store) and PASSWORD not in store.url
    client = client_of(number, password=PASSWORD, ca=cluster.facts["ca"])
    mine = RedisStore(client=client)
    try:
        got = await mine.get("k")
        assert got.entry is not None and PASSWORD not in repr(mine)
    finally:
        await mine.close()
        await client.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h/abc", "database's number"),
        ("redis://h1,h2", "redis\\+sentinel"),
        ("redis+sentinel://h1,h2", "master's name"),
        ("redis+cluster://h/3", "database 0 only"),
        ("redis://h?ca=/tmp/x", "rediss://"),
        ("rediss://h?cert=/tmp/x", "both files"),
        ("redis://h?colour=red", "knows prefix"),
        ("redis://h?prefix={x}", "without braces"),
        ("redis://h?durable=quorum", "one of node"),
        ("redis://h?ceiling_s=0", "more than 0"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_the_right_one(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        atoll.urls.store(url)


async def test_where_memory_is_full_locks_are_renewed_and_given_back_and_nothing_is_half_done() -> None:
    async with server("redis") as cluster:
        async with atoll.urls.store(cluster.url) as store, asking(port(cluster)) as client:
            assert store.leasing is not None
            lease = (await store.leasing.grant(30)).lease
            await store.transact(put("held", b"", lease=lease), put("free", b""))
            before = await store.get("free")
            await client.config_set("maxmemory", 1)
            for call in (
                store.transact(put("a", b""), put("b", b"")),
                store.leasing.grant(5),
                store.transact(put("held", b"", lease=lease), put("c", b"")),
            ):
                with pytest.raises(atoll.LimitReached, match="maxmemory"):
                    await call
            assert await store.leasing.keep_alive(lease) == 30
            assert [e.key for e in (await store.range()).entries] == ["free", "held"]
            assert (await store.get("free")).revision == before.revision
            await store.leasing.revoke(lease)
            assert [e.key for e in (await store.range()).entries] == ["free"]
            await client.config_set("maxmemory", 0)
            await store.transact(put("a", b""))
            assert (await store.open()).durable is Durable.NODE
