"""Bad luck: a broker that refuses one message, is away, or does not answer. The others' work goes on."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import Delivery, NotSent, Outbox, Queue
from atoll.blocks.work import work

numbers = itertools.count()


def queue(broker: Any, kind: Any = str) -> Queue[Any]:
    """A queue of a name that no other test has, since an outbox finds its way by names."""
    return Queue(broker, f"bad-luck-{next(numbers)}", kind)


async def bodies(queue: Queue[Any]) -> list[bytes]:
    return [t.message.body for t in await queue.broker.take(queue.name, 1000, lease_s=60)]


class Away:
    """A broker that nobody reaches."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.url = inner, inner.url

    async def open(self) -> Any:
        return await self.inner.open()

    async def put(self, queue: str, messages: Any) -> Any:
        raise NotSent("nobody there")


async def test_a_message_too_large_for_its_broker_does_not_hold_up_those_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = queue(atoll.broker(f"sqlite:///{tmp_path}/q.db?body_bytes_max=100"))
    async with atoll.database(f"sqlite:///{tmp_path}/shop.db") as shop, jobs.broker:
        outbox = Outbox(shop)
        async with shop.begin() as db:
            await outbox.put(db, jobs, "x" * 1000, id="large")
            for number in range(5):
                await outbox.put(db, jobs, str(number))
        assert await outbox.relay_once() == 5
        assert sorted(await bodies(jobs)) == [b'"0"', b'"1"', b'"2"', b'"3"', b'"4"']
        assert (await shop.relaying.waiting())[0] == 1
    assert "the first is large" in caplog.text and "at most 100" in caplog.text


async def test_a_broker_that_is_away_does_not_hold_up_the_queues_of_another(tmp_path: Path) -> None:
    gone, here = queue(Away(atoll.broker("memory://"))), queue(atoll.broker("memory://"))
    async with atoll.database(f"sqlite:///{tmp_path}/shop.db") as shop:
        outbox = Outbox(shop)
        async with shop.begin() as db:
            await outbox.put(db, gone, "1")
            await outbox.put(db, here, "2")
        assert await outbox.relay_once() == 1
        assert await bodies(here) == [b'"2"']
        async with shop.begin() as db:
            await outbox.put(db, gone, "3")
        with pytest.raises(NotSent):
            await outbox.relay_once()
        assert (await shop.relaying.waiting())[0] == 2


class Mute:
    """A broker whose lease is never renewed: the call stays without an answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.url, self.delaying, self.inspecting = inner.url, inner.delaying, inner.inspecting
        self.open, self.put, self.take = inner.open, inner.put, inner.take
        self.acknowledge, self.give_back, self.bury = inner.acknowledge, inner.give_back, inner.bury
        self.leased = self
        self.asked = 0

    async def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        self.asked += 1
        await asyncio.sleep(3600)
        return None


async def test_a_body_is_stopped_at_the_end_of_its_lease_also_when_the_renewal_hangs() -> None:
    broker = Mute(atoll.broker("memory://"))
    jobs = queue(broker)
    at_once, most, stopped = 0, 0, asyncio.Event()

    @jobs.worker(recovery_s=1.0, concurrency=2, attempts=50, retry_s=0.0)
    async def body(message: str, delivery: Delivery) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.sleep(3600)
        finally:
            at_once -= 1
            if delivery.attempt >= 3:
                stopped.set()

    await jobs.put("x")
    running = asyncio.create_task(work([jobs], drain_s=0.1))
    async with asyncio.timeout(20):
        await stopped.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert broker.asked >= 2
    assert most == 1, "two had the message at once"
