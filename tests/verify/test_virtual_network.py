"""A6: the virtual network: what a link can do to a call, and what the caller is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from atoll import clock
from atoll.engines.memory import MemoryBroker, MemoryStore, MemoryTier, StoreKnobs
from atoll.errors import NotSent, OutcomeUnknown, Refused, WatchLost
from atoll.ports.broker import Message
from atoll.ports.register import Applied
from atoll.ports.store import Token, put
from atoll.ports.tier import Hit, Miss
from atoll.verify.virtual_network import Cut, Link, Weather
from atoll.verify.virtual_time import Simulation


class Two:
    """A server, and a client `main` that reaches it over `link`."""

    def __init__(self, seed: int = 0, **weather: Any) -> None:
        self.simulation = Simulation(seed)
        self.link = Link(self.simulation, self.simulation.main, "server", Weather(**weather))
        self.server = MemoryStore()
        self.store = self.link.store(self.server)

    def run(self, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self.simulation.run(body)

    async def written(self) -> bytes | None:
        entry = (await self.server.get("k")).entry
        return entry.value if entry else None


def test_a_lost_request_is_unknown_and_did_not_happen() -> None:
    two = Two(request_lost=1.0, ceiling_s=3)

    async def body() -> None:
        before = clock.loop_now()
        with pytest.raises(OutcomeUnknown) as raised:
            await two.store.transact(put("k", b"1"), request_id="r1")
        assert raised.value.id == "r1"
        assert clock.loop_now() - before == pytest.approx(3)
        assert await two.written() is None

    two.run(body)


def test_a_lost_reply_is_unknown_and_did_happen() -> None:
    two = Two(reply_lost=1.0)

    async def body() -> None:
        with pytest.raises(OutcomeUnknown):
            await two.store.transact(put("k", b"1"))
        assert await two.written() == b"1"
        assert two.link.counts == {"reply_lost": 1}

    two.run(body)


def test_a_late_request_happens_after_its_sender_gave_up() -> None:
    def absent_when_given_up(seed: int) -> bool:
        two = Two(seed, late=1.0, ceiling_s=3)

        async def body() -> bool:
            try:
                await two.store.transact(put("k", b"1"))
            except OutcomeUnknown:
                pass
            before = await two.written()
            await asyncio.sleep(10)
            assert await two.written() == b"1"
            return before is None

        return bool(two.run(body))

    assert {absent_when_given_up(seed) for seed in range(20)} == {True, False}


def test_a_duplicated_request_is_done_twice_and_answered_once() -> None:
    two = Two(duplicated=1.0)

    async def body() -> None:
        answer = await two.store.transact(put("k", b"1"))
        assert isinstance(answer, Applied) and answer.revision == 1
        await asyncio.sleep(1)
        assert (await two.server.get("k")).revision == 2

    two.run(body)


def test_a_half_open_link_tells_nobody_until_the_ceiling_or_the_nearer_deadline() -> None:
    two = Two(ceiling_s=5)

    async def body() -> None:
        two.link.break_off(Cut.BOTH)
        before = clock.loop_now()
        with pytest.raises(OutcomeUnknown):
            await two.store.get("k")
        assert clock.loop_now() - before == pytest.approx(5)
        with clock.deadline(2), pytest.raises(OutcomeUnknown):
            await two.store.get("k")
        assert clock.loop_now() - before == pytest.approx(7)

    two.run(body)


@pytest.mark.parametrize(
    ("how", "error", "written"),
    [
        (Cut.REFUSED, NotSent, None),
        (Cut.REQUESTS, OutcomeUnknown, None),
        (Cut.REPLIES, OutcomeUnknown, b"1"),
        (Cut.BOTH, OutcomeUnknown, None),
    ],
)
def test_each_kind_of_cut_says_what_it_must(how: Cut, error: type[Exception], written: bytes | None) -> None:
    two = Two()

    async def body() -> None:
        two.link.break_off(how)
        with pytest.raises(error):
            await two.store.transact(put("k", b"1"))
        assert await two.written() == written
        two.link.heal()
        await two.store.transact(put("k", b"2"))
        assert await two.written() == b"2"

    two.run(body)


def test_a_passed_deadline_sends_nothing() -> None:
    two = Two()

    async def body() -> None:
        with clock.deadline(1):
            await asyncio.sleep(2)
            with pytest.raises(NotSent, match="deadline"):
                await two.store.transact(put("k", b"1"))
        assert await two.written() is None

    two.run(body)


def test_a_cancelled_call_goes_on_at_the_server() -> None:
    two = Two(latency_s=(1.0, 1.0))

    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await two.store.transact(put("k", b"1"))
        assert await two.written() == b"1"

    two.run(body)


def test_abilities_that_are_missing_stay_none_and_repr_shows_the_chain() -> None:
    two = Two()
    bare = two.link.store(MemoryStore(knobs=StoreKnobs(history=False, leasing=False)))
    assert bare.leasing is None and bare.history is None
    assert two.store.leasing is not None and two.store.history is not None
    assert repr(two.store) == "<main->server -> <Store memory://>>"


def test_leases_granted_over_a_link_end_when_keep_alives_stop_arriving() -> None:
    two = Two()

    async def body() -> None:
        leasing = two.store.leasing
        assert leasing is not None
        granted = await leasing.grant(5)
        await two.store.transact(put("k", b"1", lease=granted.lease))
        for _ in range(10):
            await asyncio.sleep(2)
            await leasing.keep_alive(granted.lease)
        assert await two.written() == b"1"
        two.link.break_off(Cut.BOTH)
        with pytest.raises(OutcomeUnknown):
            await leasing.keep_alive(granted.lease)
        await asyncio.sleep(10)
        assert await two.written() is None

    two.run(body)


def test_a_guard_is_judged_by_the_server_not_by_the_holders_clock() -> None:
    class Held:
        owner_key, token = "owner", Token(1, 1)

        def check(self) -> None:
            raise AssertionError("the server cannot ask the client's clock")

    two = Two()

    async def body() -> None:
        await two.store.transact(put("owner", b"a"))
        await two.store.transact(put("k", b"1"), guard=Held())
        await two.store.transact(put("owner", b"b"))
        with pytest.raises(Refused):
            await two.store.transact(put("k", b"2"), guard=Held())
        assert await two.written() == b"1"

    two.run(body)


@pytest.mark.parametrize("seed", range(5))
def test_an_observation_starts_anew_after_a_cut_and_misses_no_delete(seed: int) -> None:
    two = Two(seed)

    async def body() -> None:
        known: dict[str, bytes] = {}

        async def watch() -> None:
            async for seen in two.store.observe("k"):
                if seen.reset:
                    known.clear()
                known.update({entry.key: entry.value for entry in seen.changed})
                for key in seen.removed:
                    del known[key]

        watching = asyncio.create_task(watch())
        await two.server.transact(put("k1", b"1"), put("k2", b"1"))
        await asyncio.sleep(1)
        assert known == {"k1": b"1", "k2": b"1"}
        two.link.break_off(Cut.BOTH)
        await asyncio.sleep(1)
        await two.server.delete_if("k1", 1)
        await asyncio.sleep(1)
        assert known == {"k1": b"1", "k2": b"1"}
        two.link.heal()
        await asyncio.sleep(1)
        assert known == {"k2": b"1"}
        watching.cancel()

    two.run(body)


def test_an_observation_that_is_cut_off_for_too_long_says_so() -> None:
    two = Two(liveness_s=10)

    async def body() -> None:
        seen = two.store.observe("k")
        assert (await anext(seen)).reset
        before = clock.loop_now()
        two.link.break_off(Cut.REPLIES)
        with pytest.raises(WatchLost, match="silent for 10 s"):
            await anext(seen)
        assert clock.loop_now() - before == pytest.approx(10)

    two.run(body)


def test_changes_go_on_after_a_cut_from_the_last_that_arrived_and_skip_none() -> None:
    two = Two()

    async def body() -> None:
        history = two.store.history
        assert history is not None
        start, seen = await history.now(), []

        async def follow() -> None:
            async for change in history.changes("k", start):
                seen.extend(entry.value for entry in change.changed)

        following = asyncio.create_task(follow())
        for n in range(30):
            if n == 10:
                two.link.break_off(Cut.REPLIES)
            if n == 20:
                two.link.heal()
            await two.server.transact(put("k", b"%d" % n))
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        assert seen == [b"%d" % n for n in range(30)]
        following.cancel()

    two.run(body)


def test_brokers_and_tiers_are_reached_over_a_link_too() -> None:
    simulation = Simulation(0)
    link = Link(simulation, simulation.main, "server", Weather())

    async def body() -> None:
        server = MemoryBroker()
        broker = link.broker(server)
        await broker.put("q", [Message(id="1", body=b"x")])
        [taken] = await broker.take("q", 5, lease_s=10, wait_s=1)
        assert await broker.take("q", 5, lease_s=10, wait_s=1) == []
        link.break_off(Cut.REPLIES)
        with pytest.raises(OutcomeUnknown):
            await broker.acknowledge("q", [taken.receipt])
        link.heal()
        assert broker.inspecting is not None and await broker.inspecting.dead("q") == []

        tier = link.tier(MemoryTier())
        miss = (await tier.get_many(["a"]))["a"]
        assert isinstance(miss, Miss)
        assert await tier.fill("a", miss.token, b"1", 60)
        assert isinstance((await tier.get_many(["a"]))["a"], Hit)

    simulation.run(body)


def test_a_broker_notices_that_a_waiting_client_hung_up() -> None:
    simulation = Simulation(0)
    link = Link(simulation, simulation.main, "server", Weather())

    async def body() -> None:
        server = MemoryBroker()
        broker = link.broker(server)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await broker.take("q", 1, lease_s=60, wait_s=30)
        await asyncio.sleep(0.1)
        await server.put("q", [Message(id="1", body=b"x")])
        [taken] = await broker.take("q", 1, lease_s=60, wait_s=5)
        assert taken.attempt == 1

    simulation.run(body)
