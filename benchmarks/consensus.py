"""Three members on this machine: Atoll's Raft, etcd through aetcd, and PySyncObj as its users run it.

Three ways to keep one book in three places. Two of them wait for the disk before they say yes; the third
never does, which is said beside its figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.measure import Expected, Result, Size, Spread, fsync_ms, number, ratios
from benchmarks.rivals import consensus_sides as sides
from benchmarks.turns import forced_by

from atoll.errors import MissingExtra
from atoll.verify import servers
from atoll.verify.servers.cluster import Cluster

WRITERS = (1, 64, 512)
DEEP = 4096
"""Puts under way at once where PySyncObj is at its best: it waits for a heartbeat whatever is under way."""
COUNTED = 60
ENTRIES_A_TIME = 2500
Runs = dict[tuple[str, str, int], list[sides.Ran]]


def run(folder: Path, size: Size) -> Result:
    """All sides that are here, in turns."""
    result = Result(
        title="Consensus",
        how="Three members on this machine, values of 100 bytes: puts and linearizable reads by 1, 64 and "
        f"512 tasks of one client; middle (lowest - highest) of {size.rounds} rounds.",
    )
    asyncio.run(_measured(folder, size, result))
    _replay(folder, size, result)
    return result


async def _measured(folder: Path, size: Size, result: Result) -> None:
    runs: Runs = {}
    next_write: dict[str, list[float]] = {}
    forced: dict[str, dict[int, float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        clusters = {}
        for side in _sides(result):
            clusters[side] = await stack.enter_async_context(_members(side, folder, result))
        peer = stack.enter_context(sides.pysyncobj()) if _there("pysyncobj", result) else None
        for round in range(size.rounds):
            for place in range(len(clusters)):
                side = list(clusters)[(place + round) % len(clusters)]
                for verb in ("put", "read"):
                    for writers in WRITERS if size.seconds > 0.1 else WRITERS[:2]:
                        ran = await sides.calls(side, clusters[side], verb, writers, size.seconds)
                        runs.setdefault((side, verb, writers), []).append(ran)
            for writers in (*WRITERS, DEEP) if peer and size.seconds > 0.1 else ():
                ran = await asyncio.to_thread(peer.load, writers, size.seconds)  # type: ignore[union-attr]
                runs.setdefault(("PySyncObj", "put", writers), []).append(ran)
            if size.seconds > 0.1:
                deep = await sides.calls("Atoll", clusters["Atoll"], "put", DEEP, size.seconds)
                runs.setdefault(("Atoll", "put", DEEP), []).append(deep)
        for side, cluster in clusters.items():
            forced[side] = {n: await _forced(side, cluster, n) for n in (1, 64)}
        for side, cluster in clusters.items():
            next_write[side] = [await sides.next_write_s(side, cluster) for _ in range(max(1, size.rounds))]
    _tables(runs, forced, next_write, result)
    _expected(runs, forced, next_write, fsync_ms(folder)[0], result)


def _sides(result: Result) -> list[str]:
    return ["Atoll", *(["etcd"] if _there("aetcd", result) else [])]


def _there(module: str, result: Result) -> bool:
    found = importlib.util.find_spec(module) is not None
    if not found:
        result.notes.append(f"{module}: not installed; make bench does.")
    return found


@asynccontextmanager
async def _members(side: str, folder: Path, result: Result) -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        product = "raft" if side == "Atoll" else "etcd"
        try:
            cluster = await servers.start(product, Path(made), nodes=3)
        except MissingExtra as missing:
            raise SystemExit(f"{product}: {missing}") from None
        async with cluster:
            yield cluster


async def _forced(side: str, cluster: Cluster, writers: int) -> float:
    """Forced writes of all three members together, for each put."""
    async with sides.CLIENTS[side](cluster) as verbs:
        await verbs["put"]("0")
        with forced_by(sides.pids(cluster)) as seen:
            for _ in range(max(1, COUNTED // writers)):
                await asyncio.gather(*(verbs["put"](str(n)) for n in range(writers)))
    return seen.count / (max(1, COUNTED // writers) * writers)


def _tables(
    runs: Runs, forced: dict[str, dict[int, float]], next_write: dict[str, list[float]], result: Result
) -> None:
    rows: list[tuple[object, ...]] = []
    for (side, verb, at_once), found in sorted(
        runs.items(), key=lambda run: (run[0][1], run[0][2], run[0][0])
    ):
        rates, waits = Spread.of([ran.rate for ran in found]), Spread.of([ran.p50_ms for ran in found])
        count = forced.get(side, {}).get(at_once) if verb == "put" else None
        cell = number(count) if count is not None else "0, never" if side == "PySyncObj" else ""
        rows.append((f"{verb}, {at_once} at once, {side}", rates, waits, cell))
    result.tables.append((("three members", "a second", "p50 ms", "forced writes each, of all three"), rows))
    head = ("kill -9 of the leader", "seconds to the next write")
    result.tables.append((head, [(side, Spread.of(found)) for side, found in next_write.items()]))
    result.notes.append(
        "aetcd speaks to the leader, but for the kill to another member, for it knows one address. "
        "PySyncObj: its defaults, no journal, nothing is forced; the load is in the leader's process; its "
        "reads are local and not linearizable, so they are not shown."
    )


def _expected(
    runs: Runs,
    forced: dict[str, dict[int, float]],
    next_write: dict[str, list[float]],
    fsync: float,
    result: Result,
) -> None:
    def expect(what: str, found: object, held: bool) -> None:
        result.expected.append(Expected(what, str(found), held))

    def ratio(verb: str, at_once: int, other: str) -> Spread:
        mine, theirs = runs["Atoll", verb, at_once], runs[other, verb, at_once]
        return ratios([ran.rate for ran in mine], [ran.rate for ran in theirs])

    alone = Spread.of([ran.p50_ms for ran in runs["Atoll", "put", 1]])
    trip = Spread.of([ran.p50_ms for ran in runs["Atoll", "read", 1]]).middle / 2
    limit = 2 * fsync + 2 * trip + 1
    expect(
        f"one writer: at most 2 fsyncs + 2 round trips + 1 ms = {number(limit)} ms",
        f"{alone} ms",
        alone.middle <= limit,
    )
    for verb in ("put", "read"):
        for at_once in WRITERS:
            if ("etcd", verb, at_once) in runs:
                found = ratio(verb, at_once, "etcd")
                expect(
                    f"{verb}s, {at_once} at once: at least etcd's through aetcd",
                    f"{found} x",
                    found.middle >= 1,
                )
    for at_once in (512, DEEP):
        if ("PySyncObj", "put", at_once) in runs:
            found = ratio("put", at_once, "PySyncObj")
            what = f"puts, {at_once} at once: at least 0.3 x PySyncObj's, unforced"
            expect(what, f"{found} x", found.middle >= 0.3)
    took = Spread.of(next_write["Atoll"])
    expect("kill of the leader: the next write within 1.5 s", f"{took} s", took.high < 1.5)


def _replay(folder: Path, size: Size, result: Result) -> None:
    """A member's whole log applied again, in a process of its own; and what it holds in memory."""
    entries = min(1_000_000, size.times * ENTRIES_A_TIME)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        words = [sys.executable, "-m", "benchmarks.rivals.raft_replay", made, str(entries)]
        found = {}
        for step in ("write", "open", "replay"):
            done = subprocess.run([*words, step], capture_output=True, text=True, check=True, timeout=1800)
            found[step] = json.loads(done.stdout)
    scale = entries / 1_000_000
    rows: list[tuple[object, ...]] = [
        ("written to the log, forced each 1,000", found["write"]["seconds"], "", found["write"]["disk_mb"]),
        ("the log opened", found["open"]["seconds"], found["open"]["memory_mb"], ""),
        ("applied again from the first", found["replay"]["seconds"], found["replay"]["memory_mb"], ""),
    ]
    shown = [(what, *(number(cell) if cell != "" else "" for cell in cells)) for what, *cells in rows]
    head = (f"{entries:,} entries of 100 bytes", "seconds", "MB of memory more", "MB of disk")
    result.tables.append((head, shown))
    if scale < 1:
        result.notes.append(f"Replay: of {entries:,} entries here; the whole form is 1,000,000.")
