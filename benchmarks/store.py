"""Durable puts on SQLite: Atoll's store beside plain sqlite3 and diskcache, in one run on one folder.

Every side forces each acknowledged write to disk (`synchronous=FULL`). The folder's own fsync stands
beside the figures, because it decides most of them; the forced writes per operation are counted, not timed.

Run: python -m benchmarks.store [folder]
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import apsw

from atoll.engines.sqlite.limits import StoreOptions
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.store import put

SECONDS = 1.5
VALUE = b"x" * 100


def fsync_p50_s(folder: str) -> float:
    """The folder's own price: 100 bytes written over and forced, the median of 200."""
    took = []
    with open(os.path.join(folder, "probe"), "wb", buffering=0) as file:
        file.write(b"\0" * 1_000_000)
        os.fsync(file.fileno())
        for number in range(200):
            file.seek(number * 4096)
            since = time.perf_counter()
            file.write(VALUE)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - since)
    return sorted(took)[100]


async def atoll(path: str, writers: int, name: str = "k") -> float:
    async with SqliteStore(path) as store:
        done = 0

        async def one(writer: int) -> None:
            nonlocal done
            number = 0
            while time.perf_counter() < until:
                await store.transact(put(f"{name}/{writer}/{number % 1000}", VALUE))
                number += 1
                done += 1

        since = time.perf_counter()
        until = since + SECONDS
        await asyncio.gather(*(one(writer) for writer in range(writers)))
        return done / (time.perf_counter() - since)


def run_atoll(path: str, writers: int, name: str = "k") -> float:
    return asyncio.run(atoll(path, writers, name))


def _threads(writers: int, write: Callable[[str], Any]) -> float:
    done = [0] * writers

    def one(writer: int) -> None:
        while time.perf_counter() < until:
            write(f"{writer}/{done[writer] % 1000}")
            done[writer] += 1

    since = time.perf_counter()
    until = since + SECONDS
    threads = [threading.Thread(target=one, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - since)


def run_plain(path: str, writers: int, name: str = "k") -> float:
    """One connection and a lock: with a connection each, 64 writers are slower still."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
    lock = threading.Lock()

    def write(key: str) -> None:
        with lock:
            connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (f"{name}/{key}", VALUE))

    try:
        return _threads(writers, write)
    finally:
        connection.close()


def run_diskcache(path: str, writers: int, name: str = "k") -> float:
    import diskcache

    with diskcache.Cache(path + ".cache", sqlite_synchronous=2, timeout=60) as cache:
        return _threads(writers, lambda key: cache.set(f"{name}/{key}", VALUE, retry=True))


SIDES: dict[str, Callable[..., float]] = {
    "atoll": run_atoll,
    "sqlite3": run_plain,
    "diskcache": run_diskcache,
}


def run_processes(side: str, path: str) -> float:
    """Four processes with one writer each, on one file."""
    SIDES[side](path, 1, "warm")
    command = [sys.executable, "-m", "benchmarks.store", "--worker", side, path]
    children = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(4)
    ]
    return sum(float(child.communicate()[0]) for child in children)


class _Counting(apsw.VFS):
    syncs = 0

    def __init__(self) -> None:
        super().__init__("counting", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _CountingFile(name, flags)


class _CountingFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        _Counting.syncs += 1
        super().xSync(flags)


async def forced(path: str) -> dict[str, float]:
    """Forced writes per operation."""
    counting = _Counting()
    found = {}
    async with SqliteStore(path, options=StoreOptions(vfs="counting")) as store:
        assert store.leasing
        for number in range(10):
            await store.transact(put("warm", b"%d" % number))
        lease, _ = await store.leasing.grant(60)

        async def many(what: str, count: int, calls: Callable[[int], Any]) -> None:
            before = counting.syncs
            await calls(count)
            found[what] = (counting.syncs - before) / count

        async def alone(count: int) -> None:
            for number in range(count):
                await store.transact(put(f"a{number}", VALUE))

        async def together(count: int) -> None:
            for _ in range(count // 64):
                await asyncio.gather(*(store.transact(put(f"b{number}", VALUE)) for number in range(64)))

        async def renewals(count: int) -> None:
            for _ in range(count):
                await store.leasing.keep_alive(lease)

        async def reads(count: int) -> None:
            for _ in range(count):
                await store.get("warm")

        await many("a put alone", 64, alone)
        await many("a put among 64", 640, together)
        await many("a lease renewed", 64, renewals)
        await many("a read", 64, reads)
    return found


def available() -> list[str]:
    try:
        import diskcache  # noqa: F401
    except ImportError:
        return ["atoll", "sqlite3"]
    return list(SIDES)


def main(folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        print(f"durable puts of {len(VALUE)} bytes, per second; fsync p50 {fsync_p50_s(place) * 1e6:.0f} us")
        print(f"{'':12}{'1 writer':>14}{'64 writers':>14}{'4 processes':>14}")
        rates: dict[str, list[float]] = {}
        for side in available():
            path = os.path.join(place, f"{side}.db")
            SIDES[side](path, 1)
            rates[side] = [SIDES[side](path, 1), SIDES[side](path, 64), run_processes(side, path)]
            print(f"{side:12}" + "".join(f"{rate:14,.0f}" for rate in rates[side]))
        ratios = [mine / plain for mine, plain in zip(rates["atoll"], rates["sqlite3"], strict=True)]
        print(f"{'of sqlite3':12}" + "".join(f"{ratio:13.2f}x" for ratio in ratios))
        print(f"64 writers of Atoll beside one of sqlite3: {rates['atoll'][1] / rates['sqlite3'][0]:.1f}x")
        for what, count in asyncio.run(forced(os.path.join(place, "forced.db"))).items():
            print(f"forced writes for {what}: {count:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, side, path, number = sys.argv
        print(SIDES[side](path, 1, number))
    else:
        main(*sys.argv[1:2])
