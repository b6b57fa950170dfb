"""Durable puts on SQLite: Atoll's store beside plain sqlite3 and diskcache.

Every side forces each acknowledged write to the disk before it answers (`synchronous=FULL`), so alone they
pay the same; who has many writers at once can let them share a forced write.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
from benchmarks.measure import (
    Expected,
    Result,
    Size,
    Spread,
    forced,
    number,
    paired,
    plain_file,
    processes,
    ratios,
    ready,
)

from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.store import put

VALUE = b"x" * 100
PLAIN = "plain sqlite3"


async def _atoll(path: str, writers: int, seconds: float, name: str) -> float:
    async with SqliteStore(path) as store:
        await store.transact(put(f"{name}/warm", VALUE))
        if name != "k":
            ready()
        done = 0

        async def one(writer: int) -> None:
            nonlocal done
            count = 0
            while time.perf_counter() < until:
                await store.transact(put(f"{name}/{writer}/{count % 1000}", VALUE))
                count += 1
                done += 1

        began = time.perf_counter()
        until = began + seconds
        await asyncio.gather(*(one(writer) for writer in range(writers)))
        return done / (time.perf_counter() - began)


def run_atoll(path: str, writers: int, seconds: float, name: str = "k") -> float:
    return asyncio.run(_atoll(path, writers, seconds, name))


def _threads(writers: int, seconds: float, write: Callable[[str], Any]) -> float:
    done = [0] * writers

    def one(writer: int) -> None:
        while time.perf_counter() < until:
            write(f"{writer}/{done[writer] % 1000}")
            done[writer] += 1

    began = time.perf_counter()
    until = began + seconds
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(one, range(writers)))
    return sum(done) / (time.perf_counter() - began)


def run_plain(path: str, writers: int, seconds: float, name: str = "k") -> float:
    """One connection and a lock: with a connection each, 64 writers are slower still."""
    plain_file(path, "CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
    connection.execute("PRAGMA synchronous=FULL")
    lock = threading.Lock()

    def write(key: str) -> None:
        with lock:
            connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (f"{name}/{key}", VALUE))

    if name != "k":
        ready()
    try:
        return _threads(writers, seconds, write)
    finally:
        connection.close()


def run_diskcache(path: str, writers: int, seconds: float, name: str = "k") -> float:
    """diskcache with the same promise; by default it promises less."""
    import diskcache

    with diskcache.Cache(path + ".cache", sqlite_synchronous=2, timeout=60) as cache:
        if name != "k":
            ready()
        return _threads(writers, seconds, lambda key: cache.set(f"{name}/{key}", VALUE, retry=True))


def sides() -> dict[str, Callable[..., float]]:
    """Those whose library is installed."""
    found: dict[str, Callable[..., float]] = {"Atoll": run_atoll, PLAIN: run_plain}
    try:
        import diskcache  # noqa: F401
    except ImportError:
        return found
    return {**found, "diskcache": run_diskcache}


def run(folder: Path, size: Size) -> Result:
    """All crowds, every side in turns."""
    crowds: dict[str, Callable[[str, Path], float]] = {
        "1 writer": lambda side, path: sides()[side](str(path), 1, size.seconds),
        "64 writers": lambda side, path: sides()[side](str(path), 64, size.seconds),
        "4 processes": lambda side, path: _apart(side, str(path), size.seconds),
    }
    found: dict[str, dict[str, list[float]]] = {}
    for crowd, measure in crowds.items():
        runners = {
            side: (lambda path, side=side, measure=measure: measure(side, path))  # type: ignore[misc]
            for side in sides()
        }
        found[crowd] = paired(runners, folder, size.rounds)
    alone, crowd = found["1 writer"], found["64 writers"]
    first, many = ratios(alone["Atoll"], alone[PLAIN]), ratios(crowd["Atoll"], alone[PLAIN])
    rows = [[side, *(Spread.of(found[crowd][side]) for crowd in found)] for side in sides()]
    rows.append(["Atoll / plain", *(f"{ratios(found[c]['Atoll'], found[c][PLAIN])} x" for c in found)])
    slower = (f"a disk {SLOWER_S * 1000:g} ms slower", "a second", "beside plain")
    return Result(
        title="Store",
        how=f"Durable puts of {len(VALUE)} bytes, a second; middle (lowest - highest) of {size.rounds} "
        "rounds.",
        tables=[
            (("", *found), rows),
            (("forced writes for", "each"), asyncio.run(_forced(folder))),
            (slower, _slower(folder, size)),
        ],
        expected=[
            Expected("1 writer: 0.7 x plain alone", f"{first} x", first.middle >= 0.7),
            Expected("64 writers: 10 x plain alone", f"{many} x", many.middle >= 10),
        ],
        notes=[
            "64 writers are 64 tasks in Atoll, 64 threads on one connection elsewhere. A put changes threads "
            "twice, so that the event loop never waits for a disk: the faster the disk, the more it weighs; "
            "the slower, the nearer the ratio is to 1 alone, and the higher in a crowd. The last table has "
            "every forced write made slower on purpose, for both.",
        ],
    )


SLOWER_S = 0.002


def run_apsw(path: str, seconds: float) -> float:
    """Plain SQLite through apsw, so that its disk can be made slower too."""
    connection = apsw.Connection(path)
    connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")

    def write(key: str) -> None:
        connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, VALUE))

    try:
        return _threads(1, seconds, write)
    finally:
        connection.close()


def _slower(folder: Path, size: Size) -> list[list[object]]:
    runners: dict[str, Callable[[Path], float]] = {
        "Atoll, 1 writer": lambda path: run_atoll(str(path), 1, size.seconds),
        "Atoll, 64 writers": lambda path: run_atoll(str(path), 64, size.seconds),
        "plain SQLite alone": lambda path: run_apsw(str(path), size.seconds),
    }
    with forced(SLOWER_S):
        found = paired(runners, folder, size.rounds)
    plain = found["plain SQLite alone"]
    return [[who, Spread.of(rates), f"{ratios(rates, plain)} x"] for who, rates in found.items()]


def _apart(side: str, path: str, seconds: float) -> float:
    sides()[side](path, 1, 0.01)  # four that switch a new file to WAL at once lock each other out
    return sum(processes("benchmarks.store", (side, path, str(seconds)), 4))


async def _forced(folder: Path) -> list[list[object]]:
    found: list[list[object]] = []
    with forced() as counting:
        async with SqliteStore(str(folder / "forced.db")) as store:
            assert store.leasing
            for place in range(10):
                await store.transact(put("warm", b"%d" % place))
            lease, _ = await store.leasing.grant(60)

            async def count(what: str, times: int, calls: Any, each: int = 1) -> None:
                before = counting.count
                for _ in range(times):
                    await calls()
                found.append([what, number((counting.count - before) / times / each)])

            async def crowd() -> None:
                await asyncio.gather(*(store.transact(put(f"b{place}", VALUE)) for place in range(64)))

            leasing = store.leasing
            await count("a put alone", 64, lambda: store.transact(put("a", VALUE)))
            await count("a put among 64", 10, crowd, 64)
            await count("a lease renewed", 64, lambda: leasing.keep_alive(lease))
            await count("a read", 64, lambda: store.get("warm"))
    return found


if __name__ == "__main__":
    _, _, side, path, seconds, place = sys.argv
    print(json.dumps(sides()[side](path, 1, float(seconds), f"p{place}")), flush=True)
