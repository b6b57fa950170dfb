"""A6: the blocks themselves in virtual worlds: killed leaders, killed and frozen workers, storms."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from atoll import Delivery, Election, Queue, Term, clock
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.ports.store import put
from atoll.testing import Cut, Killed, Weather, World, simulated

LONG = bool(os.environ.get("ATOLL_LONG"))
SEEDS = 500 if LONG else 40
pytestmark = [pytest.mark.long] if LONG else []
STORM = Weather(reply_lost=0.03, request_lost=0.03, late=0.02, ceiling_s=2)


@simulated(seeds=SEEDS)
async def test_a_killed_leader_is_followed_by_another_and_never_overlaps_with_it(world: World) -> None:
    log = list[tuple[str, int, float]]()

    async def campaign(name: str) -> None:
        async def lead(term: Term) -> None:
            while True:
                await world.store().transact(put("report", name.encode()), guard=term)
                log.append((name, term.token.revision, clock.lease_now()))
                await asyncio.sleep(1)

        await Election(world.store(), "nightly").lead(lead)

    for name in ("a", "b", "c"):
        world.process(name).run(campaign(name))
    for _ in range(2):
        while not log or world.process(log[-1][0])._process.dead:
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        world.kill(log[-1][0])
    while world.process(log[-1][0])._process.dead:
        await asyncio.sleep(1)

    tokens = [token for _, token, _ in log]
    assert tokens == sorted(tokens)
    assert len({name for name, _, _ in log}) == 3
    assert {token: name for name, token, _ in log} == dict((t, n) for n, t, _ in log)


@simulated(seeds=SEEDS, weather=STORM)
async def test_every_message_is_done_though_workers_are_killed_frozen_and_cut_off(world: World) -> None:
    done = dict[int, int]()

    async def work() -> None:
        queue = Queue(world.broker(), "n", int)

        @queue.worker(concurrency=3, attempts=50, recovery_s=5, retry_s=0.5)
        async def handle(n: int, delivery: Delivery) -> None:
            await asyncio.sleep(clock.chance().uniform(0.1, 1.0))
            done[n] = done.get(n, 0) + 1

        while True:  # as a supervisor would
            with contextlib.suppress(NotApplied):
                await queue.work()

    async def send() -> None:
        queue = Queue(world.broker(), "n", int)
        for n in range(30):
            while True:
                with contextlib.suppress(NotApplied, OutcomeUnknown):
                    await queue.put(n, id=f"n/{n}")
                    break
            await asyncio.sleep(0.2)

    for name in ("w1", "w2", "w3"):
        world.process(name).run(work())
    sent = world.process("sender").run(send())
    await asyncio.sleep(3)
    world.kill("w1")
    await world.freeze("w2", seconds=12)
    await asyncio.sleep(2)
    world.cut("w3", Cut.BOTH)
    await asyncio.sleep(8)
    world.heal("w3")
    await sent
    while len(done) < 30:
        await asyncio.sleep(1)
    await asyncio.sleep(30)
    hardships = world.hardships()
    assert hardships["killed"] == hardships["frozen"] == 1 and hardships.get("reply_lost", 0) > 0
    with contextlib.suppress(Killed):
        world.kill("w2")
