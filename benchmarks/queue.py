"""A durable queue on SQLite, beside persist-queue and plain sqlite3.

One message is a put, a take and an acknowledgement, each on the disk before the next: three trips to the
post office. Who comes with many letters at once should not have to make three trips for each.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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

from atoll import clock
from atoll.engines.sqlite.broker import SqliteBroker
from atoll.ports.broker import Message

BODY = b"x" * 200
PLAIN = "plain sqlite3"


async def _worker(broker: SqliteBroker, until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        await broker.put("q", [Message(id=clock.unique_id(), body=BODY)])
        for taken in await broker.take("q", 1, lease_s=30):
            await broker.acknowledge("q", [taken.receipt])
            done += 1
    return done


def run_atoll(path: str, workers: int, seconds: float, worker: bool = False) -> float:
    """`workers` tasks in one process."""

    async def body() -> float:
        async with SqliteBroker(path) as broker:
            await broker.open()
            if worker:
                ready()
            began = time.perf_counter()
            until = began + seconds
            done = await asyncio.gather(*(_worker(broker, until) for _ in range(workers)))
            return sum(done) / (time.perf_counter() - began)

    return asyncio.run(body())


def _plain(path: str, seconds: float, worker: bool = False) -> int:
    plain_file(path, "CREATE TABLE IF NOT EXISTS q (id INTEGER PRIMARY KEY, until REAL NOT NULL, body BLOB)")
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA synchronous=FULL")

    def commit(sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(sql, parameters).fetchall()
        connection.execute("COMMIT")
        return rows

    if worker:
        ready()
    done, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        commit("INSERT INTO q (until, body) VALUES (0, ?)", (BODY,))
        now = time.time()
        taken = commit(
            "UPDATE q SET until = ? WHERE id = (SELECT min(id) FROM q WHERE until < ?) RETURNING id, body",
            (now + 30, now),
        )
        for id, _ in taken:
            commit("DELETE FROM q WHERE id = ?", (id,))
            done += 1
    connection.close()
    return done


def _threads(loop: Callable[[], int], count: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        done = sum(end.result() for end in [pool.submit(loop) for _ in range(count)])
    return done / (time.perf_counter() - began)


def run_plain(path: str, workers: int, seconds: float, worker: bool = False) -> float:
    """What one writes by hand: WAL, FULL, BEGIN IMMEDIATE, a commit for each step; a connection a thread."""
    return _threads(lambda: _plain(path, seconds, worker), workers)


def run_persist(path: str, workers: int, seconds: float, worker: bool = False) -> float:
    """persist-queue's SQLiteAckQueue on one object, with the commits it makes by itself."""
    import persistqueue

    queue = persistqueue.SQLiteAckQueue(path, multithreading=True, auto_commit=True)

    def loop() -> int:
        done, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            queue.put(BODY)
            queue.ack(queue.get())
            done += 1
        return done

    return _threads(loop, workers)


def sides() -> dict[str, Callable[..., float]]:
    """Those whose library is installed."""
    found: dict[str, Callable[..., float]] = {"Atoll": run_atoll, PLAIN: run_plain}
    try:
        import persistqueue  # noqa: F401
    except ImportError:
        return found
    return {**found, "persist-queue": run_persist}


def run(folder: Path, size: Size) -> Result:
    """All crowds, every side in turns."""

    def here(workers: int) -> dict[str, list[float]]:
        runners = {
            name: (lambda path, side=side: side(str(path), workers, size.seconds))  # type: ignore[misc]
            for name, side in sides().items()
        }
        return paired(runners, folder, size.rounds)

    def apart(side: str) -> Callable[[Path], float]:
        def four(path: Path) -> float:
            sides()[side](
                str(path), 1, 0.01
            )  # four that switch a new file to WAL at once lock each other out
            return sum(processes("benchmarks.queue", (side, str(path), str(size.seconds)), 4))

        return four

    found = {"1 worker": here(1), "64 workers": here(64)}
    found["4 processes"] = paired({side: apart(side) for side in ("Atoll", PLAIN)}, folder, size.rounds)
    alone, crowd = found["1 worker"], found["64 workers"]
    first, many = ratios(alone["Atoll"], alone[PLAIN]), ratios(crowd["Atoll"], alone[PLAIN])
    rows = [
        [side, *(Spread.of(found[c][side]) if side in found[c] else "-" for c in found)] for side in sides()
    ]
    rows.append(["Atoll / plain", *(f"{ratios(found[c]['Atoll'], found[c][PLAIN])} x" for c in found)])
    counted = [[f"a message, {n} at once", number(_forced(folder, n, size))] for n in (1, 64)]
    return Result(
        title="Queue",
        how="Messages a second, each put, taken and acknowledged, every step forced to the disk; "
        f"middle (lowest - highest) of {size.rounds} rounds.",
        tables=[(("", *found), rows), (("forced writes for", "each"), counted)],
        expected=[
            Expected("1 worker: 0.7 x plain alone", f"{first} x", first.middle >= 0.7),
            Expected("64 workers: 10 x plain alone", f"{many} x", many.middle >= 10),
        ],
        notes=[
            "persist-queue is not made for several processes on one file. Plain sqlite3 forces 3 a message."
        ],
    )


def _forced(folder: Path, workers: int, size: Size) -> float:
    path = str(folder / f"forced-{workers}.db")
    run_atoll(path, 1, 0.01)
    with forced() as counting:
        rate = run_atoll(path, workers, 0.5)
        return counting.count / max(rate * 0.5, 1)


if __name__ == "__main__":
    _, _, side, path, seconds, _ = sys.argv
    print(json.dumps(sides()[side](path, 1, float(seconds), True)), flush=True)
