"""One change over two or three SQLite files: Atoll's transaction beside plain commits in sequence.

The plain side is faster and may be killed between two of its commits; that half of a change is what a
transaction's further writes are paid for. Both force every commit that they answer for.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import Result, Size, Spread, forced, number, percentile, plain_file, ratios

from atoll.blocks.transaction import Transactions
from atoll.engines.sqlite.database import SqliteDatabase
from atoll.engines.sqlite.store import SqliteStore

TABLE = "CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY NOT NULL, cents INTEGER NOT NULL)"
WRITE = "INSERT INTO account VALUES (?, 1) ON CONFLICT DO UPDATE SET cents = cents + 1"
CROWDS = (1, 16)
FILES = (2, 3)


async def atoll(folder: Path, files: int, crowd: int, times: int) -> tuple[float, list[float], float]:
    """Transactions a second, milliseconds of each, forced writes of each."""
    databases = [SqliteDatabase(folder / f"{place}.db", name=f"d{place}") for place in range(files)]
    took: list[float] = []
    with forced() as counting:
        async with SqliteStore(str(folder / "state.db")) as state:
            for database in databases:
                async with database.begin() as tx:
                    await tx.execute(TABLE)
            moves = Transactions(state, *databases, app="bench")

            async def one(name: str) -> None:
                async with moves.begin() as tx:
                    for database in databases:
                        await (await tx.join(database)).execute(WRITE, (name,))

            async def many(place: int) -> None:
                for count in range(max(1, times // crowd)):
                    began = time.perf_counter()
                    await one(f"{place}/{count % 50}")
                    took.append((time.perf_counter() - began) * 1000)

            await one("warm")
            before, began = counting.count, time.perf_counter()
            await asyncio.gather(*(many(place) for place in range(crowd)))
            seconds, writes = time.perf_counter() - began, counting.count - before
            for database in databases:
                await database.close()
    return len(took) / seconds, took, writes / len(took)


def plain(folder: Path, files: int, crowd: int, times: int) -> tuple[float, list[float]]:
    """A commit in each file, one after the other; a thread for each of `crowd`."""
    took: list[float] = []

    paths = [folder / f"plain{place}.db" for place in range(files)]
    for path in paths:
        plain_file(path, TABLE)

    def many(place: int) -> None:
        connections = [sqlite3.connect(path, isolation_level=None, timeout=60) for path in paths]
        for connection in connections:
            connection.execute("PRAGMA synchronous=FULL")
        gate.wait()
        for count in range(max(1, times // crowd)):
            began = time.perf_counter()
            for connection in connections:
                connection.execute(WRITE, (f"{place}/{count % 50}",))
            took.append((time.perf_counter() - began) * 1000)
        for connection in connections:
            connection.close()

    gate = threading.Barrier(crowd + 1, timeout=60)
    with ThreadPoolExecutor(crowd) as pool:
        ends = [pool.submit(many, place) for place in range(crowd)]
        gate.wait()
        began = time.perf_counter()
        for end in ends:
            end.result()
    return len(took) / (time.perf_counter() - began), took


def run(folder: Path, size: Size) -> Result:
    """Two and three files, 1 and 16 at once, in turns."""
    rows = []
    for files in FILES:
        for crowd in CROWDS:
            rows += _pair(folder, files, crowd, size)
    return Result(
        title="Transaction",
        how="A row written in each of 2 or 3 files, all or nothing, beside plain sqlite3 that commits them "
        "one after the other (and can be killed in between); middle (lowest - highest) of "
        f"{size.rounds} rounds.",
        tables=[(("", "a second", "p50 ms", "p99 ms", "forced writes each"), rows)],
        notes=[
            "A transaction prepares in every file at once, then decides, each forced; carrying it out "
            "is not forced, because the promise in the file outlives a power cut. So a lone one over n files "
            "forces n + 1 writes, of which it waits for two in sequence.",
        ],
    )


def _pair(folder: Path, files: int, crowd: int, size: Size) -> list[list[object]]:
    mine, theirs = [], []
    for round in range(size.rounds):
        place = folder / f"transaction{files}-{crowd}-{round}"
        os.mkdir(place)
        sides = [
            lambda place=place: mine.append(asyncio.run(atoll(place, files, crowd, size.times))),  # type: ignore[misc]
            lambda place=place: theirs.append(plain(place, files, crowd, size.times)),  # type: ignore[misc]
        ]
        for side in sides if round % 2 else reversed(sides):
            side()
    row = [f"{files} files, {crowd} at once", *_figures([(r, t) for r, t, _ in mine])]
    writes = Spread.of([forced_each for _, _, forced_each in mine])
    other = [f"{files} plain commits, {crowd} at once", *_figures(theirs), number(files)]
    ratio = ratios([rate for rate, _, _ in mine], [rate for rate, _ in theirs])
    return [[*row, number(writes.middle)], other, ["Atoll / plain", f"{ratio} x", "", "", ""]]


def _figures(runs: list[tuple[float, list[float]]]) -> list[Spread]:
    return [
        Spread.of([rate for rate, _ in runs]),
        Spread.of([percentile(took, 0.5) for _, took in runs]),
        Spread.of([percentile(took, 0.99) for _, took in runs]),
    ]
