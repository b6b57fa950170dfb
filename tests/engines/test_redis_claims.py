"""3.3: a Redis store claims what its server is set to; exclusive recipes refuse the rest, with the fix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import atoll.urls
from atoll import ConfigurationError, Lock
from atoll.ports.examining import Weight
from atoll.ports.store import Durable, Reach, put
from atoll.verify.servers.redis import client_of
from servers import Shared, server


def port(cluster: Any) -> int:
    return int(cluster.addresses[0].rpartition(":")[2])


@asynccontextmanager
async def opened(cluster: Any, options: str = "") -> AsyncIterator[Any]:
    store = atoll.urls.store(cluster.url + options)
    try:
        yield store
    finally:
        await store.close()


async def found(store: Any) -> dict[str, tuple[Weight, str, str]]:
    return {one.setting: (one.weight, one.value, one.fix) for one in await store.examining.examine()}


async def refused(store: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        async with Lock(store, "x"):
            pass
    async with Lock(store, "x", best_effort=True) as held:
        held.check()
    return str(error.value)


@pytest.mark.parametrize("product", ["redis", "valkey"])
async def test_forced_writes_on_a_lone_server_are_durable_and_exclusive(product: str, shared: Shared) -> None:
    async with opened(shared(product), "?prefix=claims") as store:
        claims = await store.open()
        assert claims.durable is Durable.NODE and claims.reach is Reach.NETWORK
        assert claims.linearizable and not claims.forgets_at_failover and claims.remedy == ""
        assert not claims.never_early, "leases are judged by the server's wall clock"
        assert len(claims.incarnation) == 40
        async with Lock(store, "x"):
            pass
        findings = await found(store)
        assert findings["appendfsync"][:2] == (Weight.FINE, "always")
        assert findings["maxmemory-policy"][0] is Weight.FINE
        assert findings["maxmemory"][0] is Weight.NOTE
        torn = findings.pop("aof-load-truncated")
        assert torn[0] is (Weight.NOTE if product == "valkey" else Weight.COSTS)
        assert findings[f"{product}_version"][0] is Weight.FINE
        assert all(weight in (Weight.FINE, Weight.NOTE) for weight, _, _ in findings.values())


@pytest.mark.parametrize(
    ("settings", "says", "setting"),
    [
        ({"appendfsync": "everysec"}, "appendfsync always", "appendfsync"),
        ({"appendfsync": "no"}, "appendfsync always", "appendfsync"),
        ({"appendfsync": None}, "appendonly yes", "appendonly"),
        ({"appendfsync": None, "save": "60 1"}, "appendonly yes", "appendonly"),
        (
            {"arguments": ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")},
            "noeviction",
            "maxmemory-policy",
        ),
        (
            {"arguments": ("--no-appendfsync-on-rewrite", "yes")},
            "no-appendfsync-on-rewrite no",
            "no-appendfsync-on-rewrite",
        ),
    ],
)
async def test_a_setting_that_may_lose_a_lock_is_refused_with_the_word_that_mends_it(
    settings: dict[str, Any], says: str, setting: str
) -> None:
    async with server("redis", **settings) as cluster, opened(cluster) as store:
        assert (await store.open()).durable is Durable.NONE
        sentence = await refused(store)
        assert says in sentence and "best_effort=True" in sentence
        findings = await store.examining.examine()
        assert findings[0].setting == setting and findings[0].weight is Weight.BREAKS
        assert says in findings[0].fix


async def test_eviction_of_keys_that_expire_spares_ours() -> None:
    words = ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    async with server("redis", arguments=words) as cluster, opened(cluster) as store:
        assert (await store.open()).durable is Durable.NODE
        assert (await found(store))["maxmemory-policy"][0] is Weight.FINE


async def test_a_mended_setting_is_read_when_the_handle_opens_again() -> None:
    async with server("redis", appendfsync="everysec") as cluster, opened(cluster) as store:
        assert (await store.open()).durable is Durable.NONE
        client = client_of(port(cluster))
        await client.config_set("appendfsync", "always")
        await client.aclose()
        await store.close()
        assert (await store.open()).durable is Durable.NODE


async def test_replicas_are_a_claim_and_a_finding() -> None:
    async with server("redis", replicas=1) as cluster, opened(cluster) as store:
        claims = await store.open()
        assert claims.forgets_at_failover and not claims.linearizable
        sentence = await refused(store)
        assert "WAIT does not mend that" in sentence and "etcd://" in sentence
        findings = await found(store)
        assert findings["connected_slaves"][0] is Weight.BREAKS
        assert findings["min-replicas-to-write"][0] is Weight.COSTS


@pytest.mark.parametrize("product", ["redis", "valkey"])
async def test_where_settings_may_not_be_read_the_weakest_is_claimed_or_the_operators_word(
    product: str, shared: Shared
) -> None:
    cluster = shared(product)
    client = client_of(port(cluster))
    await client.execute_command(
        *"ACL SETUSER shy on >secret ~{shy}:* -@all +@read +@write +@scripting +time +info".split(),
    )
    await client.aclose()
    url = cluster.url.replace("://", "://shy:secret@") + "?prefix=shy"
    store, stated = atoll.urls.store(url), atoll.urls.store(f"{url}&durable=node")
    try:
        claims = await store.open()
        assert claims.durable is Durable.NONE and not claims.forgets_at_failover
        sentence = await refused(store)
        assert "CONFIG GET is forbidden" in sentence and "?durable=node" in sentence
        assert (await found(store))["CONFIG GET"][0] is Weight.COSTS
        assert (await stated.open()).durable is Durable.NODE
        assert "durable=node" in repr(stated) and "secret" not in repr(stated)
        async with Lock(stated, "x"):
            pass
        finding = (await found(stated))["CONFIG GET"]
        assert finding[0] is Weight.NOTE
    finally:
        await store.close()
        await stated.close()


async def test_where_info_is_forbidden_too_failing_over_cannot_be_ruled_out(shared: Shared) -> None:
    cluster = shared("redis")
    client = client_of(port(cluster))
    await client.execute_command(
        *"ACL SETUSER blind on >secret ~{blind}:* -@all +@read +@write +@scripting +time".split()
    )
    await client.aclose()
    store = atoll.urls.store(cluster.url.replace("://", "://blind:secret@") + "?prefix=blind&durable=node")
    try:
        claims = await store.open()
        assert claims.forgets_at_failover and claims.incarnation == ""
        await store.transact(put("k", b"1"))
        assert (await found(store))["INFO"][0] is Weight.COSTS
        seeing = atoll.urls.store(f"{cluster.url}?prefix=blind")
        assert len((await seeing.open()).incarnation) == 40 and await seeing.epoch() == 1
        await seeing.close()
        assert await store.epoch() == 1
    finally:
        await store.close()


async def test_a_stated_word_does_not_overrule_what_can_be_read() -> None:
    async with server("redis", appendfsync="everysec") as cluster, opened(cluster, "?durable=node") as store:
        assert (await store.open()).durable is Durable.NONE


async def test_a_user_who_may_not_do_all_is_refused_before_half_is_done(shared: Shared) -> None:
    cluster = shared("redis")
    client = client_of(port(cluster))
    words = "ACL SETUSER half on >secret ~{half}:* -@all +@read +@write +@scripting +time +info -xadd -zadd"
    await client.execute_command(*words.split())
    store = atoll.urls.store(cluster.url.replace("://", "://half:secret@") + "?prefix=half")
    try:
        with pytest.raises(ConfigurationError, match="ZADD, XADD"):
            await store.transact(put("k", b"1"))
        assert await client.keys("{half}*") == []
    finally:
        await store.close()
        await client.aclose()
