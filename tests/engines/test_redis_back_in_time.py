"""3.3: a Redis store that went back in time is noticed, whoever sent it there, and no token ever falls.

A restart of a lone server is no journey: nothing was lost, nobody is asked. Each journey has its control.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll.urls
from atoll import Compacted, EpochUncertain, Lock, put
from atoll.ports.store import Bookmark, Token
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.servers.redis import client_of
from servers import Shared, server


def port(cluster: Any, number: int = 0) -> int:
    return int(cluster.addresses[2 * number].rpartition(":")[2])


async def command(number: int, *words: Any) -> Any:
    client = client_of(number)
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


async def token(store: Any, name: str = "x", **how: Any) -> Token:
    async with Lock(store, name, **how) as held:
        return held.token


async def refuses_exclusive_use(store: Any, says: str) -> None:
    for call in (store.epoch(), store.leasing.grant(5)):
        with pytest.raises(EpochUncertain, match=says):
            await call


async def test_a_lone_server_that_is_killed_and_started_again_is_certain_and_lost_nothing() -> None:
    async with server("redis") as cluster, atoll.urls.store(cluster.url) as store:
        first = await token(store)
        mark = await store.history.now()
        for _ in range(2):
            await store.transact(put("k", b"1"))
            before = await store.get("k")
            cluster.members[0].kill()
            await cluster.members[0].start()
            assert await store.epoch() == 1
            assert (await store.get("k")).entry == before.entry
        async with Lock(store, "x") as held:
            assert held.token > first
            await store.transact(put("guarded", b""), guard=held)
        async for change in store.history.changes("k", mark):
            assert [entry.key for entry in change.changed] == ["k"]
            break


async def test_a_tail_that_was_lost_is_noticed_by_who_saw_it_and_its_tokens_are_not_given_again() -> None:
    """Everything after the last rewrite is thrown away by hand, as a power cut does with everysec."""
    async with server("redis") as cluster:
        saw, new = atoll.urls.store(cluster.url), atoll.urls.store(cluster.url)
        await saw.transact(put("kept", b""))
        old = await saw.history.now()
        file = next(cluster.members[0].folder.rglob("*.incr.aof"))
        length = file.stat().st_size
        lost = await token(saw)
        mark = await saw.history.now()
        cluster.members[0].kill()
        with open(file, "ab") as handle:
            handle.truncate(length)
        await cluster.members[0].start()

        assert await token(new) > lost, "who saw nothing of it gets a higher token, not the lost one again"
        for _ in range(3):
            cluster.members[0].kill()
            await cluster.members[0].start()
            await new.transact(put("kept", b"on"))
        with pytest.raises(EpochUncertain, match="went back in time"):
            await saw.get("kept")
        await refuses_exclusive_use(new, "not there any more")
        with pytest.raises(Compacted):
            await anext(new.history.changes("", mark))
        assert (await anext(new.history.changes("", old))).at.revision > mark.revision
        assert await new.moving.bump() == 2
        assert await saw.epoch() == await new.epoch() == 2
        assert await token(saw) > lost
        await saw.close()
        await new.close()


async def test_a_store_emptied_by_a_stranger_gives_no_lower_token_and_is_refused_by_who_knew_it() -> None:
    async with server("redis") as cluster:
        knew, new = atoll.urls.store(cluster.url), atoll.urls.store(cluster.url)
        before = await token(knew)
        await command(port(cluster), "FLUSHALL")
        assert await token(new) > before
        await refuses_exclusive_use(knew, "emptied and made anew")
        await refuses_exclusive_use(new, "emptied and made anew")
        await new.moving.bump()
        assert await token(knew) > before and await knew.epoch() == 2
        await knew.close()
        await new.close()


async def test_a_holder_whose_lock_was_flushed_away_is_told_before_its_lease_is_over() -> None:
    async with server("redis") as cluster, atoll.urls.store(cluster.url) as store:
        with pytest.raises(atoll.LockLost):
            async with Lock(store, "x", ttl_s=1.5) as held:
                await command(port(cluster), "FLUSHALL")
                with pytest.raises((atoll.Refused, EpochUncertain)):
                    await store.transact(put("k", b""), guard=held)
                await asyncio.sleep(30)


@pytest.mark.parametrize("key", ["meta", "data", "order", "leases", "held", "asked", "asked_at"])
async def test_a_key_that_was_evicted_or_removed_is_noticed_and_mended_by_a_bump(
    key: str, shared: Shared
) -> None:
    cluster = shared("redis")
    url = f"{cluster.url}?prefix=evicted-{key}"
    async with atoll.urls.store(url) as store:
        lease = (await store.leasing.grant(60)).lease
        await store.transact(put("a", b"1"), put("b", b"2", lease=lease), request_id="r")
        assert await command(port(cluster), "DEL", f"{{evicted-{key}}}:{key}") == 1
        async with _fresh(url) as fresh:
            for one in (store, fresh):
                with pytest.raises(EpochUncertain, match="noeviction"):
                    await one.get("a")
        assert await store.moving.bump() == 2
        left = {"data": [], "leases": ["a"]}.get(key, ["a", "b"])
        assert [entry.key for entry in (await store.range()).entries] == left
        await store.transact(put("a", b"2"))
        assert await store.epoch() == 2
        await store.transact(*(put(entry, b"") for entry in "xyz"))


async def test_a_cache_beside_it_that_evicts_the_locks_is_noticed() -> None:
    words = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random")
    async with server("redis", arguments=words) as cluster, atoll.urls.store(cluster.url) as store:
        client = client_of(port(cluster))
        await token(store, best_effort=True)
        with pytest.raises(EpochUncertain, match="atoll store bump"):
            for number in range(100_000):
                await client.mset({f"cache/{number}/{n}": b"x" * 500 for n in range(50)})
                await store.get("x")
        await client.aclose()


@pytest.mark.parametrize("product", ["redis", "valkey"])
async def test_half_a_transaction_from_a_torn_file_never_comes_back_unnoticed(product: str) -> None:
    """Redis 7.0 keeps the first half of what a crash has torn, and does it at the second start after."""
    async with server(product) as cluster:
        store = atoll.urls.store(cluster.url)
        await store.transact(put("a", b"old"))
        file = next(cluster.members[0].folder.rglob("*.incr.aof"))
        length = file.stat().st_size
        await store.transact(put("a", b"torn"), put("b", b"torn"))
        cluster.members[0].kill()
        await store.close()
        written = file.read_bytes()[length:]
        with open(file, "ab") as handle:
            handle.truncate(length + written.index(b"torn") + 20)
        await cluster.members[0].start()
        async with atoll.urls.store(cluster.url) as after:
            found = (await after.get("a")).entry
            assert found is not None and found.value == b"old"
            await after.transact(put("c", b""))
        cluster.members[0].kill()
        await cluster.members[0].start()
        async with _fresh(cluster.url) as later:
            try:
                found = (await later.get("a")).entry
                assert found is not None and found.value == b"old"
            except EpochUncertain as error:
                assert product == "redis" and "in part" in str(error)
                assert await later.moving.bump() == 2
            assert (await later.get("c")).entry is not None, "what was acknowledged is there"
            await later.transact(put("d", b""))


class _fresh:
    """A handle that was never there; its opening is not what is asked."""

    def __init__(self, url: str) -> None:
        self._store = atoll.urls.store(url)

    async def __aenter__(self) -> Any:
        return self._store

    async def __aexit__(self, *exc: object) -> None:
        await self._store.close()


async def test_a_lagging_replica_promoted_behind_one_address_is_uncertain_until_a_bump() -> None:
    async with server("redis") as cluster, server("redis") as copy:
        async with (
            Proxy("127.0.0.1", port(cluster)) as door,
            Proxy("127.0.0.1", port(cluster)) as line,
            atoll.urls.store(f"redis://{door.address}") as store,
        ):
            before = await token(store)
            await command(port(copy), "REPLICAOF", *line.address.split(":"))
            await _until(lambda: _linked(port(copy)))
            claims = await _claims_with_copy(store)
            assert claims.forgets_at_failover and not claims.linearizable and "etcd://" in claims.remedy
            with pytest.raises(atoll.ConfigurationError, match="best_effort"):
                await token(store, ttl_s=9)
            await store.transact(put("copied", b""))
            await _until(lambda: _same(port(cluster), port(copy)))
            line.be(Mood.SILENT)
            lost = await token(store, best_effort=True)
            await store.transact(put("lost", b""))

            cluster.members[0].kill()
            await command(port(copy), "REPLICAOF", "NO", "ONE")
            door.port = port(copy)
            door.be(Mood.CUT)
            door.be(Mood.FAITHFUL)
            new = atoll.urls.store(f"redis://{door.address}")
            await refuses_exclusive_use(new, "promoted from a replica")
            with pytest.raises(EpochUncertain, match="went back in time"):
                await store.get("lost")
            assert (await new.get("lost")).entry is None and (await new.get("copied")).entry is not None
            await new.moving.bump(above=6)
            assert await new.epoch() == 7
            assert before < lost < await token(store, best_effort=True)
            await new.close()


async def test_a_server_that_is_only_given_a_replica_is_not_thought_to_have_gone_back() -> None:
    """It gets another replication id then, and a third when the copy has been away for long."""
    async with server("redis") as cluster, server("redis") as copy:
        async with atoll.urls.store(cluster.url) as store:
            await token(store)
            await command(port(copy), "REPLICAOF", "127.0.0.1", port(cluster))
            await _until(lambda: _linked(port(copy)))
            assert await store.epoch() == 1
            assert await token(store, best_effort=True) > Token(1, 0)


async def test_a_bookmark_from_before_a_bump_is_of_another_epoch(shared: Shared) -> None:
    async with atoll.urls.store(f"{shared('redis').url}?prefix=bumped") as store:
        mark = await store.history.now()
        await store.moving.bump()
        with pytest.raises(atoll.EpochChanged):
            await anext(store.history.changes("", mark))
        assert (await store.history.now()) > Bookmark(mark.epoch + 1, mark.revision)


async def _claims_with_copy(store: Any) -> Any:
    await store.transact(put("seen", b""))
    return await store.open()


async def _linked(number: int) -> bool:
    return bool((await _info(number))["master_link_status"] == "up")


async def _same(one: int, other: int) -> bool:
    first, second = await _info(one), await _info(other)
    return bool(first["master_repl_offset"] <= second["slave_repl_offset"])


async def _info(number: int) -> Any:
    client = client_of(number)
    try:
        return await client.info("replication")
    finally:
        await client.aclose()


async def _until(question: Any) -> None:
    async with asyncio.timeout(20):
        while not await question():
            await asyncio.sleep(0.02)
