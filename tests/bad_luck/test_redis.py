"""3.3, bad luck with Redis: each its own error, in the right family, never past the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll import (
    ConfigurationError,
    DiskFull,
    EpochUncertain,
    FormatRefused,
    LimitReached,
    Lock,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
    clock,
    put,
)
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.servers.process import free_port
from atoll.verify.servers.redis import client_of
from servers import Shared, server


def port(cluster: Any, number: int = 0) -> int:
    return int(cluster.addresses[2 * number].rpartition(":")[2])


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    store = atoll.urls.store(url)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Whatever is raised inside is raised by then."""
    began = clock.loop_now()
    yield
    assert clock.loop_now() - began < seconds


async def command(number: int, *words: Any) -> Any:
    client = client_of(number)
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


@pytest.mark.parametrize("login", ["", "wrong:secret@", ":secret@"])
async def test_a_wrong_password_is_the_programs_error_and_is_not_shown(login: str, shared: Shared) -> None:
    cluster = shared("redis", tls=True, password=True)
    url = f"rediss://{login}127.0.0.1:{port(cluster)}?ca={cluster.facts['ca']}"
    async with opened(url) as store, within(5):
        with pytest.raises(ConfigurationError, match="refused the password") as error:
            await store.get("k")
        assert "secret" not in str(error.value)


async def test_a_certificate_of_somebody_else_is_refused(shared: Shared) -> None:
    cluster = shared("redis", tls=True, password=True)
    async with opened(f"rediss://:x@127.0.0.1:{port(cluster)}") as store, within(5):
        with pytest.raises(ConfigurationError, match=r"\?ca=FILE"):
            await store.get("k")


async def test_no_server_is_not_sent_within_the_time_for_connecting() -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}?connect_s=0.3") as store, within(3):
        with pytest.raises(NotSent, match="could not be reached"):
            await store.transact(put("k", b""))


async def test_sentinels_that_do_not_know_the_name_or_are_not_there(shared: Shared) -> None:
    """A plain server is no sentinel; it says so, and nobody is asked for ever."""
    for number in (free_port(), port(shared("redis"))):
        async with opened(f"redis+sentinel://127.0.0.1:{number}/other?ceiling_s=0.5") as store, within(3):
            with pytest.raises(NotSent, match="no sentinel of 1 names a master"):
                await store.get("k")


async def test_a_lone_server_is_no_cluster(shared: Shared) -> None:
    async with opened(f"redis+cluster://127.0.0.1:{port(shared('redis'))}?ceiling_s=0.5") as store, within(3):
        with pytest.raises(NotSent, match="no node of 1 names a master"):
            await store.get("k")


async def test_a_replica_takes_no_writes_and_is_not_read_either() -> None:
    async with server("redis", replicas=1) as cluster:
        async with opened(f"redis://127.0.0.1:{port(cluster, 1)}") as store, within(5):
            for call in (store.transact(put("k", b"")), store.get("k")):
                with pytest.raises(ReadOnly, match="is a replica"):
                    await call


async def test_too_few_replicas_refuse_writes_and_answer_reads() -> None:
    async with server("redis") as cluster, opened(cluster.url) as store:
        await store.transact(put("k", b"1"))
        await command(port(cluster), "CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(ReadOnly, match="min-replicas-to-write"):
            await store.transact(put("k", b"2"))
        assert (await store.get("k")).entry.value == b"1"
        await command(port(cluster), "CONFIG", "SET", "min-replicas-to-write", 0)
        await store.transact(put("k", b"2"))


async def test_a_disk_that_cannot_be_written_refuses_writes() -> None:
    async with server("redis", save="3600 100000") as cluster, opened(cluster.url) as store:
        await store.transact(put("k", b"1"))
        (cluster.members[0].folder / "dump.rdb").mkdir()
        await command(port(cluster), "BGSAVE")
        async with asyncio.timeout(20):
            while b"rdb_last_bgsave_status:err" not in await _persistence(port(cluster)):
                await asyncio.sleep(0.05)
        with pytest.raises(DiskFull, match="cannot write its disk"):
            await store.transact(put("k", b"2"))


async def _persistence(number: int) -> bytes:
    client = client_of(number)
    try:
        info = await client.info("persistence")
        return f"rdb_last_bgsave_status:{info['rdb_last_bgsave_status']}".encode()
    finally:
        await client.aclose()


async def test_a_server_busy_with_a_strangers_script_is_overloaded_then_answers() -> None:
    words = ("--busy-reply-threshold", "50")
    async with server("redis", arguments=words) as cluster, opened(cluster.url) as store:
        await store.transact(put("k", b"1"))
        stranger = asyncio.create_task(command(port(cluster), "EVAL", "while true do end", 0))
        await asyncio.sleep(0.1)
        with atoll.deadline(0.5), pytest.raises((Overloaded, OutcomeUnknown)):
            await store.transact(put("k", b"2"))
        await command(port(cluster), "SCRIPT", "KILL")
        await asyncio.gather(stranger, return_exceptions=True)
        await store.transact(put("k", b"3"))


async def test_no_connection_left_is_overloaded() -> None:
    async with server("redis", arguments=("--maxclients", "10")) as cluster:
        clients = [client_of(port(cluster)) for _ in range(10)]
        for client in clients:
            try:
                await client.ping()
            except Exception:
                break
        async with opened(f"{cluster.url}?ceiling_s=0.5&connect_s=0.3") as store, within(3):
            with pytest.raises((Overloaded, NotSent)):
                await store.get("k")
        for client in clients:
            await client.aclose()


@pytest.mark.parametrize(
    ("mood", "family"), [(Mood.SILENT, OutcomeUnknown), (Mood.MUTE, OutcomeUnknown), (Mood.CUT, NotSent)]
)
async def test_a_network_that_fails_ends_the_call_by_its_deadline(
    mood: Mood, family: type[Exception], shared: Shared
) -> None:
    async with Proxy("127.0.0.1", port(shared("redis"))) as line:
        async with opened(f"redis://{line.address}?prefix=network&connect_s=0.3") as store:
            await store.transact(put("k", b"1"))
            line.be(mood)
            await asyncio.sleep(0.05)
            with atoll.deadline(0.4):
                async with within(3):
                    with pytest.raises(family):
                        await store.transact(put("k", b"2"))
            line.be(Mood.FAITHFUL)
            await store.transact(put("k", b"3"))


async def test_a_slow_network_is_slow_and_nothing_else(shared: Shared) -> None:
    async with Proxy("127.0.0.1", port(shared("redis"))) as line:
        line.be(Mood.FAITHFUL, 0.05)
        async with opened(f"redis://{line.address}?prefix=slow") as store:
            async with Lock(store, "x") as held:
                await store.transact(put("k", b"1"), guard=held)


async def test_a_deadline_that_has_passed_sends_nothing(shared: Shared) -> None:
    async with opened(f"{shared('redis').url}?prefix=passed") as store:
        await store.open()
        with atoll.deadline(0.01):
            await asyncio.sleep(0.02)
            with pytest.raises(NotSent, match="deadline passed"):
                await store.transact(put("k", b""))


async def test_two_servers_behind_one_address_are_noticed() -> None:
    async with server("redis") as one, server("redis") as other:
        async with Proxy("127.0.0.1", port(one)) as door:
            async with opened(f"redis://{door.address}") as store:
                await store.transact(put("k", b"1"))
                door.port = port(other)
                door.be(Mood.CUT)
                door.be(Mood.FAITHFUL)
                with pytest.raises(EpochUncertain, match="went back in time"):
                    await store.get("k")
                door.port = port(one)
                door.be(Mood.CUT)
                door.be(Mood.FAITHFUL)
                assert (await store.get("k")).entry.value == b"1"


async def test_keys_and_values_over_the_limit_are_not_sent(shared: Shared) -> None:
    async with opened(f"{shared('redis').url}?prefix=limits&value_bytes_max=10&key_bytes_max=10") as store:
        for operation in (put("k", b"x" * 11), put("k" * 11, b"")):
            with pytest.raises(LimitReached):
                await store.transact(operation)
        with pytest.raises(LimitReached, match="operations_max"):
            await store.transact(*(put(f"k{n}", b"") for n in range(1001)))


async def test_a_strangers_key_or_a_newer_format_is_not_touched(shared: Shared) -> None:
    cluster = shared("redis")
    await command(port(cluster), "SET", "{taken}:data", "x")
    async with opened(f"{cluster.url}?prefix=taken") as store:
        with pytest.raises((FormatRefused, EpochUncertain)):
            await store.transact(put("k", b""))
    assert await command(port(cluster), "GET", "{taken}:data") == b"x"
    async with opened(f"{cluster.url}?prefix=newer") as store:
        await store.transact(put("k", b""))
        await command(port(cluster), "HSET", "{newer}:meta", "format", 2)
        with pytest.raises(FormatRefused, match="format 2"):
            await store.get("k")


async def test_a_server_that_is_no_redis_is_not_asked_for_ever() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    number = listening.sockets[0].getsockname()[1]
    async with opened(f"redis://127.0.0.1:{number}?ceiling_s=1&connect_s=0.3") as store, within(4):
        with pytest.raises((NotSent, OutcomeUnknown)):
            await store.get("k")
    listening.close()
