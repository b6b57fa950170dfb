"""Three members on this machine, each side with the client that its users have: puts and linearizable reads.

Atoll's members are three processes and the client a fourth; so it is with etcd. PySyncObj lives in its user's
process: the load runs in the leader's own, without a socket between.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import atoll
from atoll import put
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.process import family, free_port

VALUE = b"x" * 100
Verbs = dict[str, Callable[[str], Awaitable[object]]]


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of one side showed."""

    rate: float
    p50_ms: float


@asynccontextmanager
async def ours(cluster: Cluster) -> AsyncIterator[Verbs]:
    async with atoll.store(cluster.url) as store:
        yield {
            "put": lambda key: store.transact(put(f"calls/{key}", VALUE)),
            "read": lambda key: store.get("calls/0"),
        }


@asynccontextmanager
async def aetcd(cluster: Cluster, away: int = 0) -> AsyncIterator[Verbs]:
    """On the leader, which is the quickest way for it; or `away` places from it, for it knows one address."""
    import aetcd

    leader = await cluster.leader() + away
    host, _, port = cluster.addresses[2 * (leader % len(cluster.members))].partition(":")
    async with aetcd.Client(host=host, port=int(port)) as client:
        yield {
            "put": lambda key: client.put(f"calls/{key}".encode(), VALUE),
            "read": lambda key: client.get(b"calls/0"),
        }


CLIENTS: dict[str, Callable[[Cluster], AbstractAsyncContextManager[Verbs]]] = {"Atoll": ours, "etcd": aetcd}


async def calls(side: str, cluster: Cluster, verb: str, writers: int, seconds: float) -> Ran:
    """`writers` tasks that call one after another, for `seconds`."""
    async with CLIENTS[side](cluster) as verbs:
        call = verbs[verb]
        await call("0")
        took: list[float] = []
        began = time.perf_counter()

        async def one(place: int) -> None:
            while (sent := time.perf_counter()) - began < seconds:
                await call(f"{place}")
                took.append(time.perf_counter() - sent)

        await asyncio.gather(*(one(place) for place in range(writers)))
        took.sort()
        return Ran(len(took) / (time.perf_counter() - began), took[len(took) // 2] * 1000)


async def next_write_s(side: str, cluster: Cluster) -> float:
    """kill -9 of the leader while somebody writes: seconds until the next write is acknowledged."""
    client = aetcd(cluster, away=1) if side == "etcd" else ours(cluster)
    async with client as verbs:
        await verbs["put"]("0")
        leader = cluster.members[await cluster.leader()]
        leader.kill()
        began = time.perf_counter()
        while True:
            try:
                async with asyncio.timeout(0.5):
                    await verbs["put"]("0")
                break
            except Exception:
                await asyncio.sleep(0.005)
        took = time.perf_counter() - began
    await leader.start()
    return took


def pids(cluster: Cluster) -> list[int]:
    """Every process of the members."""
    return [one for member in cluster.members if member.pid for one in family(member.pid)]


class PySyncObj:
    """Three members of it; words go to the one that leads."""

    def __init__(self, members: list[subprocess.Popen[str]]) -> None:
        self.members = members

    def ask(self, place: int, words: str) -> Any:
        member = self.members[place]
        assert member.stdin is not None and member.stdout is not None
        member.stdin.write(words + "\n")
        member.stdin.flush()
        return json.loads(member.stdout.readline())

    def leader(self, within_s: float = 30.0) -> int:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for place in range(len(self.members)):
                if self.ask(place, "ready") and self.ask(place, "leads"):
                    return place
            time.sleep(0.05)
        raise RuntimeError(f"PySyncObj has no leader after {within_s:g} s")

    def load(self, writers: int, seconds: float) -> Ran:
        found = self.ask(self.leader(), f"load {writers} {seconds}")
        return Ran(found["rate"], found["p50_ms"])


@contextmanager
def pysyncobj() -> Iterator[PySyncObj]:
    """Start three, end three."""
    places = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rivals.pysyncobj_node", me, *(o for o in places if o != me)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for me in places
    ]
    try:
        yield PySyncObj(members)
    finally:
        for member in members:
            member.kill()
            member.wait()
