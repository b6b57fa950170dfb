"""Failover: a copy that lags behind is made the first, while the first lies dead.

The deputy was out of the room for the last half hour of the meeting; then the chair falls ill and the deputy
takes over, with the minutes as he knows them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll import clock
from atoll.verify.accidents import Accident, Fate
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.scenario import Hardship
from atoll.verify.staging import VOTING, Stage, Start, accept, leading, replaced, staged

LAG_S = 0.4


def no_replica(start: Start) -> str:
    """Why there is no lagging replica to fail over to."""
    if start.product in VOTING:
        return f"{start.product} has no such replica: only a member with all that was acknowledged is elected"
    if start.product not in ("postgresql", "redis", "valkey"):
        return f"promoting a copy of {start.product} is not set up here"
    return ""


@asynccontextmanager
async def replicated(start: Start, folder: Path) -> AsyncIterator[Stage]:
    """A first and a copy, the copy behind a proxy; with Sentinel, as the sentinels have it."""
    if _by_sentinels(start):
        async with staged(start, folder) as stage:
            yield stage
        return
    async with staged(dataclasses.replace(start, nodes=2), folder) as stage:
        host, port = _place(stage, 0)
        async with Proxy(host, port) as line:
            await _follow(stage, *line.address.split(":"))
            stage.facts["line"] = line
            await _until_linked(stage)
            yield stage


def _by_sentinels(start: Start) -> bool:
    return any(name in ("sentinel", "cluster") and value for name, value in start.settings)


def fail_over(stage: Stage) -> Fate:
    """The line to the copy falls silent, the first is killed, the copy is promoted. It can happen once."""

    async def fate(dice: random.Random, ttl_s: float) -> list[Accident]:
        if _by_sentinels(stage.start):
            return await _voted(stage)
        line: Proxy = stage.facts["line"]
        line.be(Mood.SILENT)
        await asyncio.sleep(LAG_S)
        accident = Accident(Hardship.FAILOVER, stage.cluster.members[0].name, clock.lease_now())
        stage.cluster.members[0].kill()
        await _promote(stage)
        host, port = _place(stage, 1)
        for proxy in stage.proxies:
            proxy.host, proxy.port = host, port
            proxy.be(Mood.CUT)
            proxy.be(Mood.FAITHFUL)
        accident.seconds = clock.lease_now() - accident.at
        accident.proof = line.counts.dropped_to_client
        await accept(stage)
        return [accident]

    return fate


def fail_over_and_bump(stage: Stage) -> Fate:
    """The same, and after a while an operator accepts the copy in any case: `atoll store bump`."""
    happens = fail_over(stage)

    async def fate(dice: random.Random, ttl_s: float) -> list[Accident]:
        accidents = await happens(dice, ttl_s)
        await asyncio.sleep(ttl_s)
        await accept(stage, always=True)
        return accidents

    return fate


async def _voted(stage: Stage) -> list[Accident]:
    number = await leading(stage)
    member = stage.cluster.members[number]
    accident = Accident(Hardship.FAILOVER, member.name, clock.lease_now(), proof=0)
    member.kill()
    accident.proof = int(await replaced(stage, number))
    accident.seconds = clock.lease_now() - accident.at
    await member.start()
    return [accident]


def _place(stage: Stage, number: int) -> tuple[str, int]:
    each = len(stage.cluster.addresses) // 2
    host, _, port = stage.cluster.addresses[number * each].rpartition(":")
    return host, int(port)


async def _follow(stage: Stage, host: str, port: str) -> None:
    """The copy asks through the proxy from now on."""
    if stage.start.product == "postgresql":
        from atoll.verify.servers.postgresql import ask

        mine = _place(stage, 1)[1]
        source = f"host={host} port={port} user=postgres application_name=s1"
        await ask(mine, f"ALTER SYSTEM SET primary_conninfo = '{source}'")
        await ask(mine, "SELECT pg_reload_conf()")
        return
    from atoll.verify.servers.redis import client_of

    client = client_of(_place(stage, 1)[1])
    try:
        await client.execute_command("REPLICAOF", host, port)
    finally:
        await client.aclose()


async def _until_linked(stage: Stage, within_s: float = 20.0) -> None:
    """The copy streams through the proxy."""
    line: Proxy = stage.facts["line"]
    before = -1
    until = clock.loop_now() + within_s
    while clock.loop_now() < until:
        now = line.counts.carried
        if line.links and now == before:
            return
        before = now
        await asyncio.sleep(0.3)


async def _promote(stage: Stage) -> None:
    if stage.start.product == "postgresql":
        await stage.cluster.facts["promote"](1)
        return
    from atoll.verify.servers.redis import client_of

    client = client_of(_place(stage, 1)[1])
    try:
        await client.execute_command("REPLICAOF", "NO", "ONE")
    finally:
        await client.aclose()
