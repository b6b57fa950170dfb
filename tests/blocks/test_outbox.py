"""A8: an outbox's message leaves if and only if the transaction committed, whoever dies in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import ConfigurationError, NotSent, Outbox, OutcomeUnknown, Queue
from atoll.blocks.outbox import BATCH
from atoll.ports.broker import Accepted, Message


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    return atoll.database(f"sqlite:///{tmp_path}/shop.db")


async def table(shop: Any) -> None:
    async with shop, shop.begin() as db:
        await db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)")


async def waiting(queue: Queue[Any]) -> list[bytes]:
    taken = await queue.broker.take(queue.name, 1000, lease_s=60)
    return sorted(t.message.body for t in taken)


async def test_what_commits_arrives_and_what_rolls_back_never_did(shop: Any) -> None:
    await table(shop)
    placed = Queue(atoll.broker("memory://"), "placed-1", int)
    outbox = Outbox(shop)
    async with shop.begin() as db:
        await db.execute("INSERT INTO orders VALUES (1)")
        await outbox.put(db, placed, 1)
    with pytest.raises(RuntimeError):
        async with shop.begin() as db:
            await outbox.put(db, placed, 2)
            raise RuntimeError("changed my mind")
    assert await outbox.relay_once() == 1
    assert await waiting(placed) == [b"1"]
    assert await outbox.relay_once() == 0
    await shop.close()


async def test_a_message_keeps_its_id_its_key_and_its_headers_on_the_way(shop: Any) -> None:
    await table(shop)
    placed = Queue(atoll.broker("memory://"), "placed-2", int)
    outbox = Outbox(shop)
    headers = {"traceparent": "00-a-b-01"}
    async with shop.begin() as db:
        id = await outbox.put(db, placed, 1, id="order/1", key="customer-7", headers=headers)
    await outbox.relay_once()
    [taken] = await placed.broker.take(placed.name, 10, lease_s=60)
    assert (taken.message.id, id, taken.message.key) == ("order/1", "order/1", "customer-7")
    assert taken.message.headers["traceparent"] == "00-a-b-01"
    await shop.close()


class Unreliable:
    """A broker in front of another that loses its first answers, before or after the put."""

    def __init__(self, inner: Any, failures: list[str]) -> None:
        self.inner, self.failures = inner, failures
        self.url = inner.url

    async def open(self) -> Any:
        return await self.inner.open()

    async def put(self, queue: str, messages: list[Message]) -> list[Accepted]:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "not sent":
            raise NotSent("the wire is cut")
        answer = await self.inner.put(queue, messages)
        if failure == "reply lost":
            raise OutcomeUnknown("no answer")
        return list(answer)


@pytest.mark.parametrize("failures", [["not sent"], ["reply lost"], ["reply lost", "not sent", "reply lost"]])
async def test_a_relay_without_an_answer_sends_again_under_the_same_id(
    shop: Any, failures: list[str]
) -> None:
    await table(shop)
    inner = atoll.broker("memory://")
    placed: Queue[int] = Queue(Unreliable(inner, failures), "placed-3", int)  # type: ignore[arg-type]
    outbox = Outbox(shop)
    async with shop.begin() as db:
        for n in range(5):
            await outbox.put(db, placed, n)
    async with atoll.background(outbox.relay()):
        got: list[bytes] = []
        while len(got) < 5:
            got += [t.message.body for t in await inner.take("placed-3", 10, lease_s=600, wait_s=60)]
    assert sorted(got) == [b"0", b"1", b"2", b"3", b"4"]
    await shop.close()


async def test_a_message_for_a_queue_unknown_here_stays_and_is_said_once(
    shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await table(shop)
    outbox = Outbox(shop)
    elsewhere = Queue(atoll.broker("memory://"), "placed-4", int)
    async with shop.begin() as db:
        await outbox.put(db, elsewhere, 1)
    del elsewhere
    assert await outbox.relay_once() == 0
    assert await outbox.relay_once() == 0
    assert sum("no queue named placed-4" in r.getMessage() for r in caplog.records) == 1
    assert (await shop.relaying.waiting())[0] == 1
    await shop.close()


async def test_two_services_on_one_file_do_not_hold_up_each_others_messages(shop: Any) -> None:
    await table(shop)
    outbox = Outbox(shop)
    mine, theirs = (Queue(atoll.broker("memory://"), f"placed-of-{who}", int) for who in ("me", "them"))
    async with shop.begin() as db:
        for n in range(BATCH):
            await outbox.put(db, theirs, n)
        await outbox.put(db, mine, 1)
    name = theirs.name
    del theirs
    assert await outbox.relay_once() == 1, "a full batch of another's messages lay before mine"
    assert await waiting(mine) == [b"1"]
    assert await outbox.relay_once() == 0
    left = await shop.relaying.staged(BATCH + 1, claim_s=30, queues=[name])
    assert len(left) == BATCH, "what this process does not know, it also does not claim"
    await shop.close()


async def test_two_queues_of_one_name_on_two_brokers_are_refused(shop: Any) -> None:
    await table(shop)
    outbox = Outbox(shop)
    one, other = (Queue(atoll.broker("memory://"), "placed-5", int) for _ in range(2))
    async with shop.begin() as db:
        await outbox.put(db, one, 1)
    with pytest.raises(ConfigurationError, match="two queues named placed-5"):
        await outbox.relay_once()
    assert other.name == one.name
    await shop.close()


async def test_a_transaction_of_an_unknown_library_is_refused_with_what_to_write() -> None:
    outbox = Outbox(atoll.database("sqlite:///unused.db"))
    with pytest.raises(ConfigurationError, match=r"atoll\.database"):
        await outbox.put(object(), Queue(atoll.broker("memory://"), "placed-6", int), 1)


RELAY = """
import asyncio, os, signal, sys
import atoll
from atoll import Outbox, Queue

shop, broker = atoll.database(sys.argv[1]), atoll.broker(sys.argv[2])
placed = Queue(broker, "placed", int)

async def main():
    relaying = shop.relaying
    forget = relaying.forget
    async def die(positions):
        os.kill(os.getpid(), signal.SIGKILL)   # after the put, before the forgetting
    relaying.forget = die
    await Outbox(shop).relay()

asyncio.run(main())
"""


async def test_a_relay_killed_between_put_and_forget_loses_nothing_and_doubles_nothing(
    shop: Any, tmp_path: Path
) -> None:
    await table(shop)
    url = f"sqlite:///{tmp_path}/queue.db"
    broker = atoll.broker(url)
    placed = Queue(broker, "placed", int)
    outbox = Outbox(shop)
    async with shop.begin() as db:
        for n in range(10):
            await outbox.put(db, placed, n)
    died = subprocess.run([sys.executable, "-c", RELAY, f"sqlite:///{tmp_path}/shop.db", url], timeout=60)
    assert died.returncode == -signal.SIGKILL
    async with atoll.background(outbox.relay()):
        while (await shop.relaying.waiting())[0]:
            await broker.take("nothing", 1, lease_s=1, wait_s=0.1)
    counts = Counter(await waiting(placed))
    assert counts == Counter({str(n).encode(): 1 for n in range(10)})
    await shop.close()
    await broker.close()
