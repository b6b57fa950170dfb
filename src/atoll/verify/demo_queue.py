"""`atoll demo queue`: four workers do jobs while one of them is killed with -9, again and again.

Three rows on the same SQLite file. Taking a job off the list and then doing it loses what the dead had in
hand. A lease brings it back, so it may be done twice. An inbox notes the job in the same transaction as
its effect, so the second time does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.verify import leash

JOBS = 300
WORKERS = 4
WORK_S = 0.02
LEASE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one way of taking jobs came to."""

    name: str
    put: int
    done: int
    lost: int
    twice: int
    kills: int


def run(kills: int = 10, *, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """All three, one after the other, each in a folder that is removed."""
    ways = {"pop": "pop, then work", "queue": "Atoll queue", "inbox": "Atoll queue and inbox"}
    rows = []
    for way, name in ways.items():
        with tempfile.TemporaryDirectory(prefix="atoll-demo-") as folder:
            rows.append(_row(way, name, Path(folder), kills, progress))
    return rows


def _row(way: str, name: str, folder: Path, kills: int, progress: Callable[[str], None]) -> Row:
    _prepare(folder)
    if way != "pop":
        asyncio.run(_put_all(folder))
    workers = [_start(way, folder) for _ in range(WORKERS)]
    dice, done_kills = random.Random(7), 0
    try:
        due = time.monotonic() + 120
        counts: dict[int, int] = {}
        while time.monotonic() < due and not (len(counts) >= JOBS - kills and _over(way, folder, workers)):
            counts = _done(folder)
            if done_kills < kills and sum(counts.values()) > (done_kills + 1) * JOBS // (kills + 2):
                victim = dice.randrange(WORKERS)
                workers[victim].kill()
                workers[victim].wait()
                workers[victim] = _start(way, folder)
                done_kills += 1
                progress(f"{name}: {done_kills} of {kills} killed, {len(counts)} of {JOBS} jobs done")
            time.sleep(0.02)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    counts = _done(folder)
    twice = sum(n > 1 for n in counts.values())
    return Row(name=name, put=JOBS, done=len(counts), lost=JOBS - len(counts), twice=twice, kills=done_kills)


def _prepare(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "work.db")) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE done (job INTEGER)")
        database.execute("CREATE TABLE list (job INTEGER PRIMARY KEY)")
        database.executemany("INSERT INTO list VALUES (?)", [(n,) for n in range(JOBS)])


def _done(folder: Path) -> dict[int, int]:
    """Job -> how often its effect is there."""
    with contextlib.closing(sqlite3.connect(folder / "work.db", timeout=10)) as database:
        return dict(database.execute("SELECT job, count(*) FROM done GROUP BY job"))


def _over(way: str, folder: Path, workers: list[subprocess.Popen[bytes]]) -> bool:
    if way == "pop":
        with contextlib.closing(sqlite3.connect(folder / "work.db", timeout=10)) as database:
            left = database.execute("SELECT count(*) FROM list").fetchone()[0]
        return left == 0 and all(w.poll() is not None for w in workers)
    return asyncio.run(_nothing_waits(folder))


async def _put_all(folder: Path) -> None:
    jobs = _queue(folder)
    await jobs.put_many(list(range(JOBS)))
    await jobs.broker.close()


async def _nothing_waits(folder: Path) -> bool:
    jobs = _queue(folder)
    inspecting = jobs.broker.inspecting
    assert inspecting is not None
    depths = await inspecting.depths()
    await jobs.broker.close()
    return all(d.ready + d.delayed + d.leased == 0 for d in depths)


def _queue(folder: Path) -> Any:
    from atoll import Queue, broker

    return Queue(broker(f"sqlite:///{folder}/queue.db"), "jobs", int)


def _start(way: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "atoll.verify.demo_queue", way, str(folder)], env=leash.environment()
    )


def _pop_and_work(folder: Path) -> None:
    """The way without a lease: the job is off the list before it is done."""
    with contextlib.closing(
        sqlite3.connect(folder / "work.db", timeout=10, isolation_level=None)
    ) as database:
        while True:
            row = database.execute(
                "DELETE FROM list WHERE job = (SELECT job FROM list LIMIT 1) RETURNING job"
            ).fetchone()
            if row is None:
                return
            time.sleep(WORK_S)
            database.execute("INSERT INTO done VALUES (?)", row)


async def _work_on_queue(folder: Path) -> None:
    """The same work, leased: a dead worker's job comes back after the lease."""
    jobs = _queue(folder)
    database = sqlite3.connect(folder / "work.db", timeout=10, isolation_level=None)

    @jobs.worker(recovery_s=LEASE_S, attempts=50)  # type: ignore[untyped-decorator]
    async def do(job: int, delivery: Any) -> None:
        await asyncio.sleep(WORK_S)
        database.execute("INSERT INTO done VALUES (?)", (job,))
        await asyncio.sleep(WORK_S)  # a moment in which a kill leaves it done and not acknowledged

    await jobs.work()


async def _work_with_inbox(folder: Path) -> None:
    """And its effect and "seen" in one transaction."""
    from atoll import Inbox, database

    jobs = _queue(folder)
    inbox = Inbox(database(f"sqlite:///{folder}/work.db"))

    @inbox.worker(jobs, recovery_s=LEASE_S, attempts=50)
    async def do(job: int, db: Any) -> None:
        await asyncio.sleep(WORK_S)
        await db.execute("INSERT INTO done VALUES (?)", (job,))

    await jobs.work()


def main(way: str, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if way == "pop":
        _pop_and_work(folder)
    else:
        asyncio.run({"queue": _work_on_queue, "inbox": _work_with_inbox}[way](folder))


if __name__ == "__main__":
    leash.hold()
    if os.getppid() != 1:
        main(sys.argv[1], Path(sys.argv[2]))
