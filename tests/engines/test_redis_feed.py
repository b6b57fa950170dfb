"""3.3: a watch on Redis is told what happened by the stream; the store is asked what that cannot tell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_redis_store import asking, calls, port

import atoll.urls
from atoll import EpochUncertain, delete, put
from atoll.engines.redis.watchman import Event, Watchman
from atoll.ports.store import Store
from atoll.verify import conformance_observe
from atoll.verify.conformance import following, reading
from servers import Shared

PICTURE = conformance_observe.an_observer_ends_up_with_the_picture_that_is_there
WHOLE = conformance_observe.a_prompt_observer_hears_every_transaction_whole


async def listening(store: Store) -> None:
    """A watch is told of a change of its own by the stream: from now on it is heard without a gap."""
    async with reading(store.observe("warm")) as items:
        await following(items, "the state")
        await store.transact(put("warm", b""))
        await following(items, "the change")


async def test_a_watch_of_many_changes_asks_the_store_once(shared: Shared) -> None:
    cluster = shared("redis")
    async with atoll.urls.store(f"{cluster.url}?prefix=told") as store, asking(port(cluster)) as client:
        await listening(store)
        before = await calls(client)
        async with reading(store.observe("k")) as items:
            await following(items, "the state")
            for number in range(50):
                await store.transact(put("k", b"%d" % number))
                await store.transact(put("other", b""))
                told = await following(items, "a put")
                assert [entry.value for entry in told.changed] == [b"%d" % number]
        assert await calls(client) - before <= 100 + 2


async def test_watches_one_after_the_other_use_one_connection(shared: Shared) -> None:
    cluster = shared("redis")
    async with atoll.urls.store(f"{cluster.url}?prefix=lasting") as store, asking(port(cluster)) as client:
        await listening(store)
        before = (await client.info("stats"))["total_connections_received"]
        for _ in range(10):
            await listening(store)
        assert (await client.info("stats"))["total_connections_received"] == before


async def test_what_is_put_under_a_lease_is_told_when_the_lease_is_over(shared: Shared) -> None:
    cluster = shared("redis")
    async with (
        atoll.urls.store(f"{cluster.url}?prefix=ends") as store,
        atoll.urls.store(f"{cluster.url}?prefix=ends") as other,
    ):
        assert other.leasing is not None
        await listening(store)
        async with reading(store.observe("k")) as items:
            await following(items, "the state")
            lease = (await other.leasing.grant(0.3)).lease
            await other.transact(put("k", b"", lease=lease))
            assert [entry.key for entry in (await following(items, "the put")).changed] == ["k"]
            assert (await following(items, "the end")).removed == ("k",)


async def test_what_a_watch_was_told_is_proof_that_it_happened(shared: Shared) -> None:
    cluster = shared("redis")
    async with (
        atoll.urls.store(f"{cluster.url}?prefix=proof") as store,
        atoll.urls.store(f"{cluster.url}?prefix=proof") as other,
        asking(port(cluster)) as client,
    ):
        await listening(store)
        async with reading(store.observe("k")) as items:
            before = (await following(items, "the state")).revision
            await other.transact(put("k", b""))
            assert (await following(items, "the put")).revision == before + 1
        await client.hset("{proof}:meta", "revision", str(before))  # the server goes back by that one
        with pytest.raises(EpochUncertain, match="went back in time"):
            await store.epoch()


@pytest.mark.parametrize("case", [PICTURE, WHOLE])
async def test_a_transaction_that_the_stream_does_not_deliver_is_noticed_by_its_number(
    case: Any, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, dropped = Watchman._heard, []

    def forgetful(self: Watchman, event: Event) -> None:
        if event.number % 3:
            heard(self, event)
        else:
            dropped.append(event)

    monkeypatch.setattr(Watchman, "_heard", forgetful)
    async with atoll.urls.store(f"{shared('redis').url}?prefix=holes") as other, asyncio.TaskGroup() as group:
        ticking = group.create_task(_tick(other))  # so that a hole at the end has something behind it
        await case(lambda: atoll.urls.store(f"{shared('redis').url}?prefix=holes"))
        ticking.cancel()
    assert dropped


@pytest.mark.parametrize("case", [PICTURE, WHOLE])
async def test_control_a_feed_that_passes_over_a_transaction_in_silence_is_caught(
    case: Any, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Watchman._heard

    def lying(self: Watchman, event: Event) -> None:
        heard(self, event if event.number % 3 else Event(event.number, [b"", b""], True))

    monkeypatch.setattr(Watchman, "_heard", lying)
    monkeypatch.setattr("atoll.verify.conformance.PATIENCE_S", 1.0)
    with pytest.raises(AssertionError):
        await case(lambda: atoll.urls.store(f"{shared('redis').url}?prefix=lies"))


async def _tick(store: Store) -> None:
    while True:
        await asyncio.sleep(0.05)
        await store.transact(delete("tick"))
