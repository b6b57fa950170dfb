"""The memory broker: waiting, waking, bounds, and what a lost or killed taker leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll.urls
from atoll import clock
from atoll.engines.memory import BrokerKnobs, MemoryBroker
from atoll.errors import LimitReached, OutcomeUnknown
from atoll.ports.broker import Accepted, Message, Settled
from atoll.verify import virtual_time


def broker(**knobs: Any) -> MemoryBroker:
    return MemoryBroker(knobs=BrokerKnobs(**knobs))


def message(id: str, delay_s: float = 0.0) -> Message:
    return Message(id=id, body=id.encode(), delay_s=delay_s)


def test_a_waiting_taker_gets_what_comes_due_to_the_moment() -> None:
    async def body() -> None:
        mine = broker()
        started = clock.loop_now()
        await mine.put("q", [message("delayed", 5)])
        taken = await mine.take("q", 1, lease_s=30, wait_s=100)
        assert taken[0].message.id == "delayed"
        assert clock.loop_now() - started == pytest.approx(5, abs=0.01)
        again = await mine.take("q", 1, lease_s=30, wait_s=100)
        assert again[0].attempt == 2
        assert clock.loop_now() - started == pytest.approx(35, abs=0.01)

    virtual_time.run(body)


def test_a_lease_given_while_another_waits_still_wakes_it() -> None:
    async def body() -> None:
        mine = broker()
        started = clock.loop_now()
        waiting = asyncio.create_task(mine.take("q", 1, lease_s=100, wait_s=1000))
        await asyncio.sleep(1)
        await mine.put("q", [message("a")])
        assert (await waiting)[0].attempt == 1
        second = asyncio.create_task(mine.take("q", 1, lease_s=5, wait_s=1000))
        third = asyncio.create_task(mine.take("q", 1, lease_s=5, wait_s=1000))
        assert (await second)[0].attempt == 2 and clock.loop_now() - started == pytest.approx(101, abs=0.01)
        assert (await third)[0].attempt == 3 and clock.loop_now() - started == pytest.approx(106, abs=0.01)

    virtual_time.run(body)


def test_an_idle_taker_asks_nothing_while_it_waits() -> None:
    async def body() -> None:
        mine, asked = broker(), 0
        take = mine.world.take

        def counted(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return take(*arguments)

        mine.world.take = counted  # type: ignore[method-assign]
        assert await mine.take("q", 1, lease_s=1, wait_s=3600) == []
        assert asked <= 2

    virtual_time.run(body)


async def test_a_taker_cancelled_while_it_waits_takes_nothing() -> None:
    mine = broker()
    waiting = asyncio.create_task(mine.take("q", 1, lease_s=30, wait_s=60))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await mine.put("q", [message("a")])
    assert [t.attempt for t in await mine.take("q", 1, lease_s=30)] == [1]


def test_a_take_whose_reply_is_lost_comes_again_after_its_lease() -> None:
    async def body() -> None:
        mine, name = atoll.urls.broker("memory://lost-take"), "memory://lost-take?reply_loss=1"
        await mine.put("q", [message("a")])
        with pytest.raises(OutcomeUnknown):
            await atoll.urls.broker(name).take("q", 1, lease_s=20)
        assert await mine.take("q", 1, lease_s=20) == []
        taken = await mine.take("q", 1, lease_s=20, wait_s=60)
        assert [t.attempt for t in taken] == [2]

    virtual_time.run(body)


def test_a_put_whose_reply_is_lost_is_put_once() -> None:
    async def body() -> None:
        mine, weak = (atoll.urls.broker(f"memory://lost-put{loss}") for loss in ("", "?reply_loss=1"))
        with pytest.raises(OutcomeUnknown):
            await weak.put("q", [message("a")])
        assert list(await mine.put("q", [message("a")])) == [Accepted.DUPLICATE]
        assert len(await mine.take("q", 9, lease_s=20)) == 1

    virtual_time.run(body)


def test_an_id_is_forgotten_after_its_window() -> None:
    async def body() -> None:
        mine = broker(dedupe_window_s=10)
        await mine.put("q", [message("a")])
        await asyncio.sleep(9)
        assert list(await mine.put("q", [message("a")])) == [Accepted.DUPLICATE]
        await asyncio.sleep(2)
        assert list(await mine.put("q", [message("a")])) == [Accepted.ACCEPTED]

    virtual_time.run(body)


async def test_a_full_queue_refuses_the_whole_put() -> None:
    mine = broker(waiting_max=3)
    await mine.put("q", [message("a"), message("b")])
    with pytest.raises(LimitReached) as full:
        await mine.put("q", [message("c"), message("d")])
    assert full.value.retry_after_s is not None
    assert len(await mine.take("q", 9, lease_s=30)) == 2


async def test_settled_receipts_are_forgotten_beyond_their_bound() -> None:
    mine = broker(receipts_max=2)
    await mine.put("q", [message(name) for name in "abc"])
    receipts = [t.receipt for t in await mine.take("q", 3, lease_s=30)]
    await mine.acknowledge("q", receipts)
    assert list(await mine.acknowledge("q", receipts)) == [Settled.UNKNOWN, Settled.ACKED, Settled.ACKED]


def test_without_leases_a_message_in_hand_stays_there() -> None:
    async def body() -> None:
        mine = broker(leased=False)
        assert mine.leased is None
        await mine.put("q", [message("a")])
        taken = await mine.take("q", 1, lease_s=1)
        assert taken[0].lease_until is None
        assert await mine.take("q", 1, lease_s=1, wait_s=1000) == []

    virtual_time.run(body)


async def test_what_was_given_back_goes_behind_what_waits() -> None:
    mine = broker()
    await mine.put("q", [message("poison"), message("good")])
    first = (await mine.take("q", 1, lease_s=30))[0]
    await mine.give_back("q", first.receipt)
    assert [t.message.id for t in await mine.take("q", 2, lease_s=30)] == ["good", "poison"]
