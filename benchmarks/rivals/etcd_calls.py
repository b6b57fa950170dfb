"""Puts and reads on etcd, at 1 and 64 at once: Atoll's client beside aetcd, calls a second and CPU of a call.

Atoll's put is a transaction that also asks whether the store is frozen; aetcd's is a bare Put, and beside it
the same transaction by hand.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.measure import Expected, Result, Size, Spread, ratios

import atoll
from atoll import put

VALUE = b"x" * 100
Verbs = dict[str, Callable[[str], Awaitable[object]]]


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Verbs]:
    async with atoll.store(url) as store:
        yield {
            "put": lambda key: store.transact(put(f"calls/{key}", VALUE)),
            "get": lambda k: store.get("calls/0"),
        }


@asynccontextmanager
async def theirs(url: str) -> AsyncIterator[Verbs]:
    import aetcd

    parts = urlsplit(url)
    async with aetcd.Client(host=parts.hostname or "", port=parts.port or 2379) as client:

        def txn(key: str) -> Awaitable[object]:
            return client.transaction(  # type: ignore[no-any-return]
                compare=[client.transactions.create(b"nothing") == 0],
                success=[client.transactions.put(key.encode(), VALUE)],
                failure=[],
            )

        yield {
            "put": lambda key: client.put(f"aetcd/{key}".encode(), VALUE),
            "put in a transaction": txn,
            "get": lambda key: client.get(b"aetcd/0"),
        }


Sides = dict[str, Callable[[str], AbstractAsyncContextManager[Verbs]]]
SIDES: Sides = {"Atoll": ours, "aetcd": theirs}


async def _calls(side: str, url: str, verb: str, clients: int, seconds: float) -> tuple[float, float]:
    """Calls a second, and microseconds of this process for each."""
    async with SIDES[side](url) as verbs:
        call = verbs[verb]
        await call("0")
        done = 0
        began, busy = time.perf_counter(), time.process_time()

        async def one(place: int) -> None:
            nonlocal done
            while time.perf_counter() - began < seconds:
                await call(f"{place}/{done % 100}")
                done += 1

        await asyncio.gather(*(one(place) for place in range(clients)))
        return done / (time.perf_counter() - began), (time.process_time() - busy) / done * 1e6


def add(url: str, size: Size, result: Result) -> None:
    """The table and what was expected of it."""
    if importlib.util.find_spec("aetcd") is None:
        result.notes.append("etcd, calls beside aetcd: not run, it is not installed (make bench does).")
        return
    rows: list[tuple[object, ...]] = []
    for clients in (1, 64):
        for verb in ("put", "get"):
            pairs = [
                ("Atoll", verb),
                ("aetcd", verb),
                *([("aetcd", "put in a transaction")] * (verb == "put")),
            ]
            found: dict[tuple[str, str], list[tuple[float, float]]] = {pair: [] for pair in pairs}
            for round in range(size.rounds):
                for place in range(len(pairs)):
                    side, what = pairs[(place + round) % len(pairs)]
                    found[side, what].append(asyncio.run(_calls(side, url, what, clients, size.seconds)))
            for (side, what), runs in found.items():
                rates, costs = ([run[n] for run in runs] for n in (0, 1))
                rows.append((f"{clients} at once, {what}, {side}", Spread.of(rates), Spread.of(costs)))
            mine, other = found["Atoll", verb], found["aetcd", verb]
            rate = ratios([one for one, _ in mine], [one for one, _ in other])
            cost = ratios([one for _, one in mine], [one for _, one in other])
            what = f"etcd, {clients} at once: {verb}s at least equal to aetcd's"
            result.expected.append(Expected(what, f"{rate} x", rate.middle >= 1))
            what = f"etcd, {clients} at once: CPU of a {verb} not above aetcd's"
            result.expected.append(Expected(what, f"{cost} x", cost.middle <= 1))
    result.tables.append((("etcd, one member", "calls a second", "CPU us a call"), rows))
