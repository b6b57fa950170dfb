"""A durable queue on SQLite, beside persist-queue and plain sqlite3, in one run on one folder.

`python -m benchmarks.queue [--seconds 3] [--folder DIR]`. One message is a put, a take and an
acknowledgement, each on the disk before the next. Figures are messages a second and their ratio to plain
sqlite3 with one worker; beside them the folder's own fsync, and the forced writes a message cost, counted in
a run of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Loop = Callable[[str, float], int]
BODY = b"x" * 200


class Forced:
    """Counts the forced writes of Atoll's own SQLite, by a VFS that passes everything on."""

    def __init__(self) -> None:
        import apsw

        count = self
        count.number = 0

        class File(apsw.VFSFile):
            def xSync(self, flags: int) -> None:
                count.number += 1
                super().xSync(flags)

        class System(apsw.VFS):
            def __init__(self) -> None:
                super().__init__("counting", "unix", makedefault=True)

            def xOpen(self, name: Any, flags: Any) -> Any:
                return File("unix", name, flags)

        self.system = System()


async def _atoll_worker(broker: Any, queue: str, until: float) -> int:
    from atoll import clock
    from atoll.ports.broker import Message

    done = 0
    while time.perf_counter() < until:
        await broker.put(queue, [Message(id=clock.unique_id(), body=BODY)])
        for taken in await broker.take(queue, 1, lease_s=30):
            await broker.acknowledge(queue, [taken.receipt])
            done += 1
    return done


def atoll_queue(path: str, seconds: float, tasks: int = 1) -> int:
    """`tasks` tasks in one process, each putting, taking, acknowledging."""
    from atoll.engines.sqlite.broker import SqliteBroker

    async def body() -> int:
        async with SqliteBroker(path) as broker:
            until = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(_atoll_worker(broker, "q", until) for _ in range(tasks))))

    return asyncio.run(body())


def atoll_64(path: str, seconds: float) -> int:
    """64 tasks in one process."""
    return atoll_queue(path, seconds, 64)


def plain_queue(path: str, seconds: float) -> int:
    """What one writes by hand: WAL, FULL, BEGIN IMMEDIATE, a commit for each step."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS q (id INTEGER PRIMARY KEY, until REAL NOT NULL, body BLOB)"
    )

    def commit(sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(sql, parameters).fetchall()
        connection.execute("COMMIT")
        return rows

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


def persist_queue(path: str, seconds: float, queue: Any = None) -> int:
    """persist-queue's SQLiteAckQueue, with the commits it makes by itself."""
    import persistqueue

    queue = queue or persistqueue.SQLiteAckQueue(path, multithreading=True, auto_commit=True)
    done, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        queue.put(BODY)
        item = queue.get()
        queue.ack(item)
        done += 1
    return done


def threads(loop: Callable[[], int], count: int) -> int:
    """The same loop on `count` threads."""
    answers: list[int] = []
    started = [threading.Thread(target=lambda: answers.append(loop())) for _ in range(count)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return sum(answers)


def plain_64(path: str, seconds: float) -> int:
    """64 threads with a connection each."""
    return threads(lambda: plain_queue(path, seconds), 64)


def persist_64(path: str, seconds: float) -> int:
    """64 threads on one queue object."""
    import persistqueue

    queue = persistqueue.SQLiteAckQueue(path, multithreading=True, auto_commit=True)
    return threads(lambda: persist_queue(path, seconds, queue), 64)


def _child(loop: Loop, path: str, seconds: float, gate: Any, answers: Any) -> None:
    gate.wait()
    answers.put(loop(path, seconds))


def processes(loop: Loop, count: int, path: str, seconds: float) -> int:
    """The same loop in `count` processes on one file."""
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(count), context.Queue()
    children = [
        context.Process(target=_child, args=(loop, path, seconds, gate, answers)) for _ in range(count)
    ]
    for child in children:
        child.start()
    total = sum(answers.get(timeout=seconds + 120) for _ in children)
    for child in children:
        child.join()
    return total


def fsync_p50_ms(folder: Path) -> float:
    """What one forced write of 4 KiB costs in this folder, the middle of 200."""
    times = []
    with open(folder / "fsync", "wb") as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def measure(folder: Path, seconds: float) -> list[tuple[str, str, float, str]]:
    """(who, how many, messages a second, forced writes a message)."""
    rows: list[tuple[str, str, float, str]] = []

    def run(who: str, crowd: str, loop: Loop, counted: str = "-") -> None:
        path = str(folder / f"{len(rows)}.db")
        start = time.perf_counter()
        done = loop(path, seconds)
        took = time.perf_counter() - start
        if counted == "count":
            forced = Forced()
            most = loop(str(folder / f"{len(rows)}-counted.db"), 0.5)
            forced.system.unregister()
            counted = f"{forced.number / max(most, 1):.2f}"
        rows.append((who, crowd, done / max(took if crowd[0] != "4" else seconds, seconds), counted))

    def four(loop: Loop) -> Loop:
        return lambda path, seconds: processes(loop, 4, path, seconds)

    run("plain sqlite3", "1", plain_queue, "3")
    run("persist-queue", "1", persist_queue)
    run("Atoll", "1", atoll_queue, "count")
    run("plain sqlite3", "64 threads", plain_64, "3")
    run("persist-queue", "64 threads", persist_64)
    run("Atoll", "64 tasks", atoll_64, "count")
    run("plain sqlite3", "4 processes", four(plain_queue), "3")
    run("Atoll", "4 processes", four(atoll_queue))
    run("Atoll", "4 x 64 tasks", four(atoll_64))
    return rows


def report(seconds: float, folder: Path | None = None) -> str:
    """The table, as text."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        p50 = fsync_p50_ms(Path(made))
        rows = measure(Path(made), seconds)
    alone = rows[0][2]
    lines = [
        f"Durable queue on SQLite: put + take + acknowledge, each forced; fsync p50 {p50:.2f} ms, "
        f"{os.cpu_count()} cores, {seconds:g} s each",
        f"{'':<16}{'workers':<16}{'messages/s':>12}{'x plain alone':>16}{'forced/message':>16}",
        *(f"{who:<16}{crowd:<16}{rate:>12,.0f}{rate / alone:>16.2f}{n:>16}" for who, crowd, rate, n in rows),
        "persist-queue is not made for several processes on one file.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    print(report(options.seconds, options.folder))
