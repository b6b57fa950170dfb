"""4.5: clients of one CASPaxos register in simulated weather: lost, late, doubled letters, cuts, freezes.

Every answer of all of them is judged as one register's, seed after seed, in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import caspaxos_crowd as crowd

from atoll.engines.caspaxos import CasPaxosOptions, CasPaxosRegister
from atoll.engines.caspaxos.acceptor import Acceptor
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.testing import Cut, Weather, World, simulated
from atoll.verify.history import History
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.revisions import judge

ROUGH = Weather(request_lost=0.01, reply_lost=0.02, duplicated=0.02, late=0.02, ceiling_s=0.2)
TURNS = 8


def register(world: World) -> CasPaxosRegister:
    """A handle of the calling process on the world's three stores."""
    stores: list[Any] = [world.store(name) for name in ("a", "b", "c")]
    options = CasPaxosOptions(best_effort=True, ceiling_s=5.0, acceptor_s=0.5)
    return CasPaxosRegister(stores, options=options)


async def client(world: World, book: History, name: str, added: list[int]) -> None:
    """Adds to one key and wanders over others; errors are answers."""
    left = [TURNS]
    mine = crowd.Recorded(register(world), book, name)

    def going() -> bool:
        left[0] -= 1
        return left[0] >= 0

    async def adding() -> None:
        for _ in range(TURNS):
            try:
                added[await crowd.add(mine)] += 1
            except (NotApplied, OutcomeUnknown):
                added[0] += 1

    await asyncio.gather(crowd.wander(mine, random.Random(f"{name}{world.seed}"), going), adding())


async def opened(one: CasPaxosRegister) -> None:
    """The first time all must be there, and letters may be lost."""
    while True:
        try:
            await one.open()
            return
        except (NotApplied, OutcomeUnknown):
            await asyncio.sleep(0.1)


async def story(world: World) -> Judgement:
    """Three clients, of whom one is cut off and one is frozen for a while."""
    book, added = History(), [0, 0]
    await opened(register(world))
    running = [world.process(name).run(client(world, book, name, added)) for name in ("p", "q", "r")]
    await asyncio.sleep(0.2)
    world.cut("p", random.Random(world.seed).choice(list(Cut)))
    await world.freeze("q", seconds=2.0)
    await asyncio.sleep(1.0)
    world.heal("p")
    await asyncio.gather(*running)
    last = crowd.Recorded(register(world), book, "last")
    total = (await last.get(crowd.SUM)).entry
    count = int(total.value.split()[0]) if total else 0
    assert added[1] <= count <= sum(added)
    return judge(book)


def enough(found: list[Answer]) -> bool:
    """Whether the mistake was seen; the first seed is always run twice."""
    return len(found) > 1 and Answer.NO in found


@simulated(seeds=10, weather=ROUGH)
async def test_in_any_weather_every_answer_is_one_register_s(world: World) -> None:
    judgement = await story(world)
    crowd.expect_held(judgement)
    assert judgement.counts["writes"] > 10


def test_a_promise_that_is_not_kept_is_caught_in_this_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: acceptors that take a vote under any ballot."""

    async def accept(self: Acceptor, key: str, message: Any, clock: int) -> Any:
        from atoll.algorithms.paxos import Accepted, Cell

        def any_ballot(cell: Cell[Any]) -> Any:
            return Cell(cell.promised, message.ballot, message.value), Accepted(message.ballot, message.value)

        reply = await self._obey(key, any_ballot)
        await self.raise_clock(clock)
        return reply

    monkeypatch.setattr(Acceptor, "accept", accept)
    found: list[Answer] = []

    @simulated(seeds=8, weather=ROUGH)
    async def broken(world: World) -> None:
        if enough(found):
            return
        try:
            found.append((await story(world)).answer)
        except AssertionError:
            found.append(Answer.NO)

    broken()
    assert Answer.NO in found


def test_a_clock_that_is_not_raised_is_caught_in_this_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without the clock, revisions of different keys fall behind each other."""

    async def nothing(self: Acceptor, at_least: int) -> None:
        return None

    monkeypatch.setattr(Acceptor, "raise_clock", nothing)
    found: list[Answer] = []

    @simulated(seeds=4, weather=ROUGH)
    async def broken(world: World) -> None:
        if enough(found):
            return
        found.append((await story(world)).answer)

    broken()
    assert Answer.NO in found
