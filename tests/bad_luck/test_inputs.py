"""Bad input to the blocks: too long, too large, too many. Refused before anything is sent, with the bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import ConfigurationError, Election, LimitReached, Lock, Queue, clock
from atoll.errors import AtollError
from atoll.ports.broker import Message
from atoll.ports.store import Store, put, unchanged

ENGINES = ["memory", "sqlite"]


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/x.db"


async def refused(kind: type[AtollError] | tuple[type[AtollError], ...], call: Any, says: str) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(kind) as found:
            await call
    assert says in str(found.value), found.value


async def nothing(store: Store) -> None:
    assert (await store.range("")).entries == ()


async def test_keys_and_values_beyond_the_bounds_are_refused_with_the_bound(place: str) -> None:
    async with atoll.store(place) as store:
        await refused(LimitReached, store.transact(put("k" * 2048, b"v")), "1024")
        await refused(LimitReached, store.transact(put("ü" * 600, b"v")), "1024")
        await refused(LimitReached, store.transact(put("k", b"v" * ((1 << 20) + 1))), "1048576")
        await refused(ConfigurationError, store.transact(put("", b"v")), "key")
        await refused(ConfigurationError, store.transact(put("a\ud800", b"v")), "UTF-8")
        text: Any = "text"
        await refused(ConfigurationError, store.transact(put("k", text)), "bytes")
        await refused(ConfigurationError, store.transact(put("k", b"1"), put("k", b"2")), "twice")
        many = [put(f"k{n}", b"") for n in range(1001)]
        await refused(LimitReached, store.transact(*many), "1000")
        await refused(LimitReached, store.get("k" * 2048), "1024")
        await refused(ConfigurationError, store.range("", limit=0), "limit")
        await nothing(store)
        await store.transact(put("k" * 1024, b"v" * (1 << 20)))  # at the bound


async def test_odd_keys_are_kept_apart_and_in_their_order(place: str) -> None:
    keys = ["\0", "\0\0", "a", "a\0", "a/", "a//b", "aa", "b%2F", "ü", "日本", "\U0001f600", "\uffff"]
    async with atoll.store(place) as store:
        await store.transact(*(put(key, key.encode()) for key in reversed(keys)))
        found = (await store.range("")).entries
        assert [entry.key for entry in found] == sorted(keys, key=str.encode)
        assert all(entry.value == entry.key.encode() for entry in found)


async def test_messages_beyond_the_bounds_are_refused_with_the_bound(place: str) -> None:
    async with atoll.broker(place) as broker:
        big = Message(id="1", body=b"x" * ((1 << 20) + 1))
        await refused(LimitReached, broker.put("q", [big]), "1048576")
        await refused(
            LimitReached, broker.put("q", [Message(id="1", body=b"", headers={"h": "x" * 5000})]), "4096"
        )
        headers = {str(n): "" for n in range(33)}
        await refused(LimitReached, broker.put("q", [Message(id="1", body=b"", headers=headers)]), "32")
        await refused(
            LimitReached, broker.put("q", [Message(id=str(n), body=b"") for n in range(1001)]), "1000"
        )
        for delay_s in (-1.0, float("nan"), float("inf")):
            await refused(
                ConfigurationError, broker.put("q", [Message(id="1", body=b"", delay_s=delay_s)]), "delay_s"
            )
        await refused(ConfigurationError, broker.put("q", [Message(id="", body=b"")]), "id")
        assert broker.inspecting is not None
        assert sum(depth.ready + depth.delayed for depth in await broker.inspecting.depths()) == 0


@pytest.mark.parametrize("name", ["", "a/b", "x" * 201, "ü" * 101])
def test_an_odd_queue_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"queue name"):
        Queue(atoll.broker("memory://"), name, str)


@pytest.mark.parametrize("name", ["a b", "'; DROP TABLE x; --", "ü", "%", "\n", "."])
async def test_an_ordinary_odd_queue_name_works(name: str, place: str) -> None:
    async with atoll.broker(place) as broker:
        jobs = Queue(broker, name, str)
        await jobs.put("x")
        [taken] = await broker.take(name, 1, lease_s=10)
        assert taken.message.body == b'"x"'


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_lock_or_an_election_without_a_name_is_refused(name: Any) -> None:
    store = atoll.store("memory://")
    for kind in (Lock, Election):
        with pytest.raises(ConfigurationError, match=r"name"):
            kind(store, name)


async def test_a_lock_name_too_long_for_the_store_is_refused_at_once(place: str) -> None:
    async with atoll.store(place) as store:
        with pytest.raises((LimitReached, ConfigurationError), match=r"1024"):
            async with asyncio.timeout(10):
                async with Lock(store, "n" * 2000):
                    pass
        async with asyncio.timeout(10):
            async with Lock(store, "n" * 200):
                pass


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf")])
def test_a_lease_of_no_time_is_refused(ttl_s: float) -> None:
    with pytest.raises(ConfigurationError, match=r"ttl_s"):
        Lock(atoll.store("memory://"), "x", ttl_s=ttl_s)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_in_the_past_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"deadline"), atoll.deadline(seconds):
        pass


@pytest.mark.parametrize("retry_s", [-1.0, float("nan")])
def test_a_worker_that_would_retry_before_it_failed_is_refused(retry_s: float) -> None:
    jobs = Queue(atoll.broker("memory://"), "retries", str)
    with pytest.raises(ConfigurationError, match=r"retry_s"):
        jobs.worker(retry_s=retry_s)(_body)
    with pytest.raises(ConfigurationError, match=r"concurrency|attempts"):
        jobs.worker(attempts=0)(_body)


async def _body(message: str, delivery: atoll.Delivery) -> None: ...


@pytest.mark.parametrize("id", ["", "x" * 65, "ü" * 33])
async def test_a_branch_id_beyond_its_bytes_is_refused(id: str, tmp_path: Path) -> None:
    async with atoll.database(f"sqlite:///{tmp_path}/x.db") as database:
        assert database.participant is not None
        with pytest.raises(ConfigurationError, match=r"1 to 64"):
            await database.participant.begin(id)


async def taken_by_another(store: Store) -> None:
    async with Lock(store, "x", wait_s=0, owner="another"):
        pass


class Jumping(clock.RealClock):
    """The machine's clocks, but somebody sets the wall clock."""

    ahead_s = 0.0

    def wall_now(self) -> float:
        return time.time() + self.ahead_s


@pytest.mark.parametrize("jump_s", [-10 * 86400.0, 10 * 86400.0])
async def test_a_wall_clock_that_jumps_ends_no_lease_and_brings_none_back(jump_s: float, place: str) -> None:
    jumping = Jumping()
    with clock.use(jumping):
        async with atoll.store(place) as store, atoll.broker(place) as broker:
            await broker.put("q", [Message(id="later", body=b"", delay_s=0.4), Message(id="now", body=b"")])
            [taken] = await broker.take("q", 10, lease_s=0.5)
            async with Lock(store, "x", ttl_s=1.0, wait_s=0) as held:
                jumping.ahead_s = jump_s
                await store.transact(put("k", b"v"), guard=held)
                await asyncio.sleep(1.5)  # past the lease's first time: it was renewed
                held.check()
                with pytest.raises(atoll.Taken):
                    await asyncio.create_task(taken_by_another(store))
            async with asyncio.timeout(10):
                found = []
                while len(found) < 2:
                    found += await broker.take("q", 10, lease_s=5, wait_s=1)
            assert {one.message.id: one.attempt for one in found} == {"now": taken.attempt + 1, "later": 1}


async def test_a_compare_of_a_revision_that_never_was_is_unmet(place: str) -> None:
    async with atoll.store(place) as store:
        for revision in (-1, 1 << 62):
            assert await store.transact(put("k", b"v"), compare=[unchanged("k", revision)]) != ()
        await nothing(store)
