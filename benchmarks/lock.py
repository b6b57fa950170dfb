"""A lock on SQLite: what it costs when nobody else wants it, and how fast it changes hands in a crowd.

A key that is handed over at the door, not hung up and looked for. The uncontended one is compared with
filelock, which forgets who held it and proves nothing; both exclude the processes of one machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import (
    Expected,
    Result,
    Size,
    Spread,
    forced,
    number,
    paired,
    percentile,
    processes,
    ratios,
    ready,
)

from atoll.blocks.lock import Lock
from atoll.engines.sqlite.store import SqliteStore

WAITERS = 16
PLAIN = "plain sqlite3, 2 commits"
Turns = list[tuple[float, float]]
"""When each holder entered and when it left, by the clock that all processes of a machine share."""


def run_atoll(path: Path, seconds: float) -> float:
    """Takings a second by one task, alone."""

    async def body() -> float:
        async with SqliteStore(str(path)) as store:
            lock, done = Lock(store, "order/1"), 0
            async with lock:
                pass
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                async with lock:
                    done += 1
            return done / (time.perf_counter() - began)

    return asyncio.run(body())


def run_plain(path: Path, seconds: float) -> float:
    """The least that a lock kept in a table costs: a row put and removed, a commit each."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.execute("INSERT INTO t VALUES ('order/1', ?)", (b"x" * 100,))
        connection.execute("DELETE FROM t WHERE k = 'order/1'")
        done += 1
    connection.close()
    return done / (time.perf_counter() - began)


def run_filelock(path: Path, seconds: float) -> float:
    import filelock

    lock, done, began = filelock.FileLock(str(path) + ".lock"), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        with lock:
            done += 1
    return done / (time.perf_counter() - began)


def sides(seconds: float) -> dict[str, Callable[[Path], float]]:
    """Those whose library is installed."""
    found: dict[str, Callable[[Path], float]] = {
        "Atoll": lambda path: run_atoll(path, seconds),
        PLAIN: lambda path: run_plain(path, seconds),
    }
    try:
        import filelock  # noqa: F401
    except ImportError:
        return found
    return {**found, "filelock": lambda path: run_filelock(path, seconds)}


async def crowd(path: str, waiters: int, turns: int, worker: bool = False) -> Turns:
    """`waiters` tasks that take one lock `turns` times each, and get in line again at once."""
    entered: Turns = []
    async with SqliteStore(path) as store:

        async def one() -> None:
            lock = Lock(store, "counter")
            for _ in range(turns):
                async with lock:
                    begin = time.monotonic()
                    await asyncio.sleep(0)
                    entered.append((begin, time.monotonic()))

        await store.open()
        if worker:
            ready()
        await asyncio.gather(*(one() for _ in range(waiters)))
    return entered


def handed_over_ms(turns: Turns) -> list[float]:
    """From the end of one body to the beginning of the next, while all were waiting."""
    ordered = sorted(turns)
    gaps = [(after[0] - before[1]) * 1000 for before, after in itertools.pairwise(ordered)]
    assert all(gap >= 0 for gap in gaps), "two held it at once"
    crowded = len(gaps) - WAITERS  # at the end the line empties
    return gaps[WAITERS:crowded] or gaps


def apart(path: str, turns: int) -> Turns:
    """The same crowd as four processes of four."""
    asyncio.run(crowd(path, 1, 1))
    answers = processes("benchmarks.lock", (path, str(turns)), 4)
    return [(begin, end) for answer in answers for begin, end in answer]


async def forced_each(path: str) -> tuple[float, float]:
    """Forced writes of a taking and of a release, nobody else there."""
    with forced() as counting:
        async with SqliteStore(path) as store:
            lock, taking, release = Lock(store, "order/1"), 0, 0
            async with lock:
                pass
            for _ in range(50):
                before = counting.count
                async with lock:
                    taking += counting.count - before
                    before = counting.count
                release += counting.count - before
    return taking / 50, release / 50


def run(folder: Path, size: Size) -> Result:
    """Alone, then sixteen in a line."""
    found = paired(sides(size.seconds), folder, size.rounds)
    taking, release = asyncio.run(forced_each(str(folder / "forced.db")))
    turns = max(3, size.times // 10)
    here, between = [], []
    for round in range(size.rounds):
        here.append(handed_over_ms(asyncio.run(crowd(str(folder / f"here{round}.db"), WAITERS, turns))))
        between.append(handed_over_ms(apart(str(folder / f"apart{round}.db"), turns)))
    rows, p99 = [], []
    for name, gaps in ((f"{WAITERS} tasks, 1 process", here), (f"{WAITERS} tasks, 4 processes", between)):
        worst = Spread.of([percentile(one, 0.99) for one in gaps])
        p99.append(worst)
        rows.append((name, Spread.of([percentile(one, 0.5) for one in gaps]), worst))
    ratio = ratios(found["Atoll"], found[PLAIN])
    alone = [(side, Spread.of(rates)) for side, rates in found.items()]
    return Result(
        title="Lock",
        how=f"Taken and released by one, a second; then handed over among {WAITERS} that wait, in "
        f"milliseconds; middle (lowest - highest) of {size.rounds} rounds.",
        tables=[
            (("alone", "taken a second"), [*alone, ("Atoll / plain", f"{ratio} x")]),
            (("handed over", "p50 ms", "p99 ms"), rows),
        ],
        expected=[
            Expected(
                "uncontended: 1 + 1 forced writes",
                f"{number(taking)} + {number(release)}",
                (taking, release) == (1, 1),
            ),
            Expected(f"{WAITERS} waiters: hand-over p99 below 10 ms", f"{p99[0]} ms", p99[0].middle < 10),
            Expected("the same across 4 processes", f"{p99[1]} ms", p99[1].middle < 10),
        ],
        notes=["filelock writes nothing to a disk, keeps no line and gives no token."],
    )


if __name__ == "__main__":
    _, _, path, turns, _ = sys.argv
    print(json.dumps(asyncio.run(crowd(path, WAITERS // 4, int(turns), True))), flush=True)
