"""3.3: a Redis server is killed, stopped or cut off: nothing acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll import Lock, NotSent, OutcomeUnknown, clock, put
from atoll.ports.register import Applied
from atoll.ports.store import Token
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.servers.redis import client_of
from servers import Shared, server


def port(cluster: Any) -> int:
    return int(cluster.addresses[0].rpartition(":")[2])


async def value_of(store: Any, key: str) -> bytes | None:
    entry = (await store.get(key)).entry
    return None if entry is None else entry.value


@pytest.mark.parametrize("product", ["redis", pytest.param("valkey", marks=pytest.mark.long)])
async def test_nothing_acknowledged_is_lost_by_kill_9_under_load(product: str) -> None:
    async with server(product) as cluster, atoll.urls.store(cluster.url) as store:
        acknowledged: dict[str, int] = {}
        unknown = 0

        async def write(name: str) -> None:
            nonlocal unknown
            for number in range(1, 100_000):
                try:
                    done = await store.transact(
                        put(f"{name}/a", b"%d" % number), put(f"{name}/b", b"%d" % number)
                    )
                except OutcomeUnknown:
                    unknown += 1
                    return
                except NotSent:
                    return
                assert isinstance(done, Applied)
                acknowledged[name] = number

        for _ in range(3):
            acknowledged.clear()
            writing = [asyncio.create_task(write(f"w{n}")) for n in range(8)]
            async with asyncio.timeout(30):
                while sum(acknowledged.values()) < 300:
                    await asyncio.sleep(0.01)
            cluster.members[0].kill()
            await asyncio.gather(*writing)
            await cluster.members[0].start()
            for name, number in acknowledged.items():
                first, second = await value_of(store, f"{name}/a"), await value_of(store, f"{name}/b")
                assert first == second, "half a transaction came back"
                assert first is not None and int(first) in (number, number + 1)
            await store.epoch()
        assert unknown > 0, "the kill hit nobody, so nothing was tested"


async def test_a_lock_outlives_its_servers_crash_and_nobody_else_gets_it() -> None:
    async with server("redis") as cluster:
        mine, theirs = atoll.urls.store(cluster.url), atoll.urls.store(cluster.url)
        async with Lock(mine, "x", ttl_s=20) as held:
            cluster.members[0].kill()
            await cluster.members[0].start()
            with pytest.raises(atoll.Taken):
                async with Lock(theirs, "x", wait_s=0.2):
                    pass
            with suppress(OutcomeUnknown, NotSent):
                await mine.transact(put("k", b"1"), guard=held)
            await mine.transact(put("k", b"1"), guard=held)
        async with Lock(theirs, "x", wait_s=5) as next_one:
            assert next_one.token > held.token
        await mine.close()
        await theirs.close()


async def test_a_lost_answer_is_unknown_and_asking_again_by_its_id_is_exact(shared: Shared) -> None:
    async with Proxy("127.0.0.1", port(shared("redis"))) as line:
        async with atoll.urls.store(f"redis://{line.address}?prefix=unheard") as store:
            first = await store.transact(put("n", b"0"))
            line.be(Mood.SWALLOW)
            with pytest.raises(OutcomeUnknown) as lost:
                await store.transact(put("n", b"1"), request_id="once")
            assert lost.value.id == "once" and line.counts.answers_swallowed > 0
            line.be(Mood.FAITHFUL)
            again = await store.transact(put("n", b"1"), request_id="once")
            assert isinstance(again, Applied) and again.replayed
            assert isinstance(first, Applied) and again.revision == first.revision + 1
            assert (await store.get("n")).revision == again.revision, "it was sent once only"


async def test_control_a_client_that_repeats_what_was_sent_does_it_twice(shared: Shared) -> None:
    """redis-py as it is by default: why its own repeating is not used."""
    import redis.asyncio

    async with Proxy("127.0.0.1", port(shared("redis"))) as line:
        line.be(Mood.SWALLOW)
        host, _, number = line.address.rpartition(":")
        client = redis.asyncio.Redis(host=host, port=int(number), protocol=2, driver_info=None)
        with suppress(redis.asyncio.RedisError, TimeoutError):
            async with asyncio.timeout(1):
                await client.execute_command("INCR", "{control}")
        await client.aclose()
    plain = client_of(port(shared("redis")))
    assert int(await plain.get("{control}")) > 1
    await plain.aclose()


async def test_a_stopped_server_is_given_up_in_time_and_used_again_when_it_goes_on() -> None:
    async with server("redis") as cluster, atoll.urls.store(cluster.url) as store:
        watching = store.observe("k")
        await anext(watching)
        await store.transact(put("k", b"0"))
        assert (await anext(watching)).changed
        cluster.members[0].pause()
        began = clock.loop_now()
        with atoll.deadline(0.5), pytest.raises(OutcomeUnknown, match="without an answer"):
            await store.transact(put("k", b"1"))
        fresh = atoll.urls.store(cluster.url)
        with atoll.deadline(0.5), pytest.raises(NotSent):
            await fresh.transact(put("k", b"2"))
        assert clock.loop_now() - began < 5
        cluster.members[0].resume()
        done = await store.transact(put("k", b"3"))
        async with asyncio.timeout(15):
            while (seen := await anext(watching)).changed[-1].value != b"3":
                pass
        assert isinstance(done, Applied) and seen.revision == done.revision
        await watching.aclose()  # type: ignore[attr-defined]
        await fresh.close()


async def test_a_watch_goes_on_after_its_server_was_killed_and_started_again() -> None:
    async with server("redis") as cluster, atoll.urls.store(cluster.url) as store:
        watching = store.observe("k")
        await anext(watching)
        cluster.members[0].kill()
        await cluster.members[0].start()
        done = await store.transact(put("k", b"1"))
        async with asyncio.timeout(15):
            while not (seen := await anext(watching)).changed:
                pass
        assert isinstance(done, Applied) and seen.revision >= done.revision
        await watching.aclose()  # type: ignore[attr-defined]


async def test_a_cancelled_call_leaves_its_connection_to_nobody(shared: Shared) -> None:
    """A late answer must never be taken for the answer to the next question."""
    async with Proxy("127.0.0.1", port(shared("redis"))) as line:
        async with atoll.urls.store(f"redis://{line.address}?prefix=cancelled&connections_max=1") as store:
            await store.transact(put("a", b"a"), put("b", b"b"))
            line.be(Mood.FAITHFUL, 0.1)
            for _ in range(3):
                reading = asyncio.create_task(store.get("a"))
                await asyncio.sleep(0.05)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                assert await value_of(store, "b") == b"b"


async def test_a_stopped_holder_is_told_and_its_late_write_is_refused(shared: Shared) -> None:
    """The lease ends by the server's clock; who comes next has a higher token, who was before is refused."""
    url = f"{shared('redis').url}?prefix=late"
    async with atoll.urls.store(url) as store, atoll.urls.store(url) as other:
        old: Token | None = None
        with pytest.raises(atoll.LockLost):
            async with Lock(store, "x", ttl_s=0.4) as held:
                old = held.token
                await _freeze(0.8)
                async with Lock(other, "x", wait_s=5) as newer:
                    assert newer.token > held.token
                    with pytest.raises((atoll.LockLost, atoll.Refused)):
                        await store.transact(put("k", b"late"), guard=held)
        assert old is not None and await value_of(store, "k") is None


async def _freeze(seconds: float) -> None:
    """The loop stands still, as in a stopped process."""
    import time

    time.sleep(seconds)
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_watch_of_a_server_that_stays_silent_is_lost_in_its_time(how: str) -> None:
    async with server("redis") as cluster, atoll.urls.store(cluster.url) as store:
        watching = store.observe("k")
        await anext(watching)
        liveness_s = (await store.open()).liveness_s
        began = clock.loop_now()
        getattr(cluster.members[0], how)()
        with pytest.raises(atoll.WatchLost, match="Watch it again"):
            await anext(watching)
        assert liveness_s / 2 < clock.loop_now() - began < 3 * liveness_s
