"""Bad luck: a store that has no room, or is away, for a while. Who campaigns or recovers tries on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import DiskFull, Election, NotSent, OutcomeUnknown, Overloaded, ReadOnly, Term, Transactions


class Troubled:
    """A store in front of another whose writes raise `error` for as long as it is set."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.error: Exception | None = None
        self.refused = 0
        self.url, self.history, self.leasing = inner.url, inner.history, self
        self.get, self.range, self.observe = inner.get, inner.range, inner.observe
        self.epoch, self.open, self.close = inner.epoch, inner.open, inner.close
        self.moving, self.examining, self.shadow = inner.moving, inner.examining, inner.shadow

    def _may(self) -> None:
        if self.error is not None:
            self.refused += 1
            raise self.error

    async def transact(self, *then: Any, **words: Any) -> Any:
        self._may()
        return await self._inner.transact(*then, **words)

    async def grant(self, ttl_s: float) -> Any:
        self._may()
        return await self._inner.leasing.grant(ttl_s)

    async def keep_alive(self, lease: str) -> float:
        self._may()
        return float(await self._inner.leasing.keep_alive(lease))

    async def revoke(self, lease: str) -> None:
        await self._inner.leasing.revoke(lease)


TROUBLES = [DiskFull, ReadOnly, Overloaded, NotSent, OutcomeUnknown]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("when", ["campaigning", "leading"])
async def test_an_election_goes_on_when_the_trouble_is_over(trouble: type[Exception], when: str) -> None:
    store: Any = Troubled(atoll.store("memory://"))
    leads = asyncio.Event()

    async def reign(term: Term) -> None:
        leads.set()
        await asyncio.sleep(3600)

    if when == "campaigning":
        store.error = trouble("in trouble")
    campaign = asyncio.create_task(Election(store, "x", ttl_s=0.5).lead(reign))
    async with asyncio.timeout(30):
        if when == "leading":
            await leads.wait()
            leads.clear()
            store.error = trouble("in trouble")
        while store.refused < 3:
            await asyncio.sleep(0.01)
        if when == "leading":
            await asyncio.sleep(0.6)  # longer than the lease: the term is over
        assert not campaign.done(), campaign
        store.error = None
        await leads.wait()
    campaign.cancel()
    await asyncio.gather(campaign, return_exceptions=True)


async def test_a_deadline_ends_a_campaign(tmp_path: Path) -> None:
    store = atoll.store("memory://")
    held = asyncio.Event()

    async def reign(term: Term) -> None:
        held.set()
        await asyncio.sleep(3600)

    first = asyncio.create_task(Election(store, "x").lead(reign))
    await held.wait()
    async with asyncio.timeout(20):
        with pytest.raises(atoll.Taken), atoll.deadline(0.3):
            await Election(store, "x").lead(reign)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_recovery_goes_on_when_the_trouble_is_over(trouble: type[Exception], tmp_path: Path) -> None:
    store: Any = Troubled(atoll.store(f"sqlite:///{tmp_path}/state.db"))
    databases = [atoll.database(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    for database in databases:
        async with database.begin() as db:
            await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    moves = Transactions(store, *databases, grace_s=0.5)
    for database in databases:
        assert database.participant is not None
        branch = await database.participant.begin("app/1-0123456789ab-1")
        await branch.tx.execute("INSERT INTO t VALUES (1)")
        await branch.prepare()
    store.error = trouble("in trouble")
    recovering = asyncio.create_task(moves.recover())
    async with asyncio.timeout(30):
        while store.refused < 2 and not recovering.done():
            await asyncio.sleep(0.01)
        assert not recovering.done() and len(await moves.in_doubt()) == 1
        store.error = None
        while await moves.in_doubt():
            await asyncio.sleep(0.02)
    recovering.cancel()
    await asyncio.gather(recovering, return_exceptions=True)
    for database in databases:
        await database.close()
