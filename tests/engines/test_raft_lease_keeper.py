"""4.4: the leader asks the log to end what is over, until it is known that it did; nobody else asks."""

from __future__ import annotations

import asyncio
from typing import Any

from atoll.algorithms.raft.events import Role
from atoll.engines.raft import command
from atoll.engines.raft.lease_keeper import LeaseKeeper
from atoll.errors import AtollError, NotSent, OutcomeUnknown

TTL_S = 0.02


class State:
    """Two leases stand in it."""

    def __init__(self) -> None:
        self.on_leases: list[Any] = []

    def leases(self) -> dict[str, float]:
        return {"short": TTL_S, "long": 3600.0}


class Consensus:
    """A leader whose first proposals come to nothing, as `errors` say."""

    name, leader, leader_place, term = "a", "a", "", 3

    def __init__(self, *errors: AtollError) -> None:
        self.state = State()
        self.on_became: list[Any] = []
        self.is_leader = True
        self.errors = [*errors]
        self.asked: list[tuple[str, ...]] = []
        self.done = asyncio.Event()

    async def propose(self, data: bytes) -> bytes:
        _, [asked] = command.unpack(data)
        assert isinstance(asked, command.Expire)
        self.asked.append(asked.leases)
        if self.errors:
            raise self.errors.pop(0)
        self.done.set()
        for told in self.state.on_leases:
            told(dict.fromkeys(asked.leases))
        return b""

    async def read_barrier(self) -> None: ...


async def ended(consensus: Consensus) -> LeaseKeeper:
    keeper = LeaseKeeper(consensus)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await consensus.done.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return keeper


async def test_what_is_over_is_ended_and_what_is_not_is_left() -> None:
    consensus = Consensus()
    keeper = await ended(consensus)
    assert consensus.asked == [("short",)]
    assert await keeper.remaining("short") is None and await keeper.renew("long") == 3600.0
    keeper.close()


async def test_an_end_that_was_not_taken_is_asked_for_again() -> None:
    consensus = Consensus(NotSent("busy"), NotSent("busy"))
    (await ended(consensus)).close()
    assert consensus.asked == [("short",)] * 3


async def test_an_end_that_is_not_known_is_asked_for_again_and_meanwhile_nothing_is_renewed() -> None:
    consensus = Consensus(OutcomeUnknown("who knows"))
    keeper = LeaseKeeper(consensus)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while not consensus.asked:
            await asyncio.sleep(0.001)
    assert await keeper.renew("short") is None
    async with asyncio.timeout(10):
        await consensus.done.wait()
    assert consensus.asked == [("short",)] * 2
    keeper.close()


async def test_one_that_was_deposed_asks_for_no_end() -> None:
    consensus = Consensus(NotSent("deposed"))
    keeper = LeaseKeeper(consensus)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while not consensus.asked:
            await asyncio.sleep(0.001)
    consensus.is_leader = False
    for told in consensus.on_became:
        told(Role.FOLLOWER, 4, "b")
    async with asyncio.timeout(10):
        while keeper._tasks:
            await asyncio.sleep(0.001)
    assert consensus.asked == [("short",)] and keeper._timer is None
    keeper.close()
