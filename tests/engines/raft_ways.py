"""What tests of the raft store share: members behind porters, a leader to be hurt, bounded patience."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from atoll import clock
from atoll.ports.store import Token, put
from atoll.verify.proxy import Mood
from atoll.verify.servers.cluster import Cluster
from engines.etcd_crowd import Porters, owner_of
from servers import server

T = TypeVar("T")
PATIENCE_S = 20.0


class Held:
    """A guard that always believes that it holds."""

    def __init__(self, owner_key: str, token: Token) -> None:
        self.owner_key, self.token = owner_key, token

    def check(self) -> None:
        return None


class Doormen(Porters):
    """As Porters, but whoever is no member still reaches the lonely one: its clients stay with it."""

    def owner(self, client: int) -> int:
        """The process behind a connection; 0 where it cannot be told just now."""
        if client not in self.owners:
            found = owner_of(client)
            if not found:
                return 0
            self.owners[client] = found
        return self.owners[client]

    def concerned(self, door: int, client: int) -> bool:
        owner = self.owner(client)
        return owner != os.getpid() and (door == self.doors_of_the_lonely or owner == self.lonely)

    def mood(self, mood: Mood) -> None:
        """Of all doors, for this process: the members hear each other as before."""
        self.owners.clear()  # ports are used again
        for proxy in self.proxies:
            proxy.concerns = lambda client: self.owner(client) == os.getpid()
            proxy.be(mood)

    @property
    def swallowed(self) -> int:
        return sum(proxy.counts.answers_swallowed for proxy in self.proxies)


@asynccontextmanager
async def behind_doormen(nodes: int = 3) -> AsyncIterator[tuple[Cluster, Doormen]]:
    """Members that everybody reaches by a porter."""
    doormen = Doormen()
    try:
        async with server("raft", nodes=nodes, between=doormen.between) as cluster:
            cluster.url = f"raft://{','.join(cluster.addresses[1::2])}"
            yield cluster, doormen
    finally:
        await doormen.close()


async def until(holds: Callable[[], Awaitable[T]], what: str) -> T:
    """The first true answer, within PATIENCE_S."""
    due = clock.loop_now() + PATIENCE_S
    while True:
        answer = await holds()
        if answer:
            return answer
        assert clock.loop_now() < due, f"not so after {PATIENCE_S:g} s: {what}"
        await asyncio.sleep(0.02)


async def another_leader(cluster: Cluster, than: int) -> int:
    """Who leads, as soon as it is somebody else."""

    async def other() -> list[int]:
        leader = await cluster.leader()
        return [leader] if leader != than else []

    return (await until(other, f"somebody other than {than} leads"))[0]


async def lost(store: Any, doormen: Doormen, past: Any, key: str, value: bytes) -> asyncio.Task[Any]:
    """Write where answers are swallowed; when it was done (seen `past` the porters) and its answer lost."""
    at = await store.attached()
    await store.get(key)  # a line stands
    lines = list(at.members.links.values())
    doormen.mood(Mood.SWALLOW)
    asking = asyncio.create_task(store.transact(put(key, value)))

    async def done() -> bool:
        entry = (await past.get(key)).entry
        return bool(entry and entry.value == value and not all(line.standing for line in lines))

    await until(done, "it was done, and its answer was lost")
    doormen.mood(Mood.FAITHFUL)
    return asking
