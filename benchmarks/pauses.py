"""Holders stopped past their lease: how long two worked at once, and whether a late write was taken.

No lock can stop a frozen process; it wakes up in the middle of its line. What counts is whether anybody takes
the letter it posts then. The same body, the same stops, with and without a token that is checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT, Expected, Result, Size, number, percentile, reachable

from atoll.errors import MissingExtra
from atoll.verify import servers

TTL_S = 0.5
PAUSES = 50
SIDES = (
    ("Atoll, a body that awaits", "atoll", "awaits"),
    ("Atoll, a body that computes", "atoll", "computes"),
    ("Atoll, a thread", "atoll", "thread"),
    ("Atoll, the sync face", "atoll", "sync"),
    ("redis-py Lock, a body that awaits", "redis-py", "awaits"),
)


@dataclass
class Stay:
    """One holder's time inside, as it saw it."""

    process: int
    entered: float
    last_step: float
    wrote: float | None = None


def run(folder: Path, size: Size) -> Result:
    """All sides on one Redis that forces each write."""
    result = Result(
        title="Pauses",
        how=f"Three processes want one lock on Redis (ttl {TTL_S:g} s); whoever holds it is stopped past its "
        "lease. Overlap: how long the stopped one went on working after the next had entered.",
    )
    pauses = max(1, min(PAUSES, size.times // 8))
    try:
        with tempfile.TemporaryDirectory(dir=reachable(folder)) as data:
            Path(data).chmod(0o755)
            cluster = asyncio.run(servers.start("redis", Path(data), appendfsync="always"))
            try:
                rows = [(name, *_side(cluster.url, folder, side, body, pauses)) for name, side, body in SIDES]
            finally:
                asyncio.run(cluster.close())
    except MissingExtra as missing:
        result.notes.append(f"not run. {missing}")
        result.tables.append((("", "pauses"), [("Atoll", 0)]))
        return result
    head = (
        "",
        "pauses that bit",
        "overlap p50 ms, where any",
        "overlap most ms",
        "late writes taken",
        "stopped before, or refused",
    )
    result.tables.append((head, rows))
    ours = sum(int(row[4]) for row in rows[:-1])
    result.expected.append(Expected("late writes taken by Atoll's guard: 0", str(ours), ours == 0))
    result.notes.append("Every pause ends in a frozen process waking up: an overlap of 0 cannot be promised.")
    return result


def _side(url: str, folder: Path, side: str, body: str, pauses: int) -> tuple[object, ...]:
    paths = [folder / f"{side}-{body}-{place}" for place in range(3)]
    until = time.monotonic() + pauses * TTL_S * 4 + 5
    children = [_start(url, side, body, path, until) for path in paths]
    try:
        bit = _pauses(children, paths, pauses)
    finally:
        for child in children:
            child.kill()
            child.wait()
    stays = sorted(
        (stay for n, path in enumerate(paths) for stay in _stays(n, path)), key=lambda s: s.entered
    )
    overlaps, late = [], 0
    for place, stay in enumerate(stays):
        others = [one.entered for one in stays[place + 1 : place + 8] if one.process != stay.process]
        if not others or stay.last_step <= min(others):
            overlaps += [0.0] if others and _was_stopped(stay) else []
        else:
            overlaps.append((stay.last_step - min(others)) * 1000)
        if others and stay.wrote is not None and stay.wrote > min(others):
            late += 1
    refused = sum(line[0] == "refused" for path in paths for line in _lines(path))
    worked = [one for one in overlaps if one > 0]
    return (
        bit,
        number(percentile(worked, 0.5)) if worked else "0",
        number(max(worked)) if worked else "0",
        late,
        refused,
    )


def _was_stopped(stay: Stay) -> bool:
    return stay.last_step - stay.entered > TTL_S


def _start(url: str, side: str, body: str, path: Path, until: float) -> subprocess.Popen[bytes]:
    part = {"url": url, "side": side, "body": body, "path": str(path), "until": until, "ttl_s": TTL_S}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    path.touch()
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pauses_worker", json.dumps(part)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )


def _pauses(children: list[subprocess.Popen[bytes]], paths: list[Path], wanted: int) -> int:
    """Stop whoever is inside, past its lease, as often as wanted; how many were inside."""
    bit, until = 0, time.monotonic() + wanted * TTL_S * 6 + 20
    while bit < wanted and time.monotonic() < until:
        inside = [n for n, path in enumerate(paths) if _lines(path, last=True)[-1:] and _inside(path)]
        if not inside or any(child.poll() is not None for child in children):
            time.sleep(0.002)
            continue
        child = children[inside[0]]
        os.kill(child.pid, signal.SIGSTOP)
        try:
            bit += _inside(paths[inside[0]])
            time.sleep(TTL_S * 1.6)
        finally:
            os.kill(child.pid, signal.SIGCONT)
        awake = time.monotonic() + 3  # its stay ends before anybody is stopped again: one pause, one overlap
        while _inside(paths[inside[0]]) and time.monotonic() < awake:
            time.sleep(0.005)
    return bit


def _inside(path: Path) -> bool:
    lines = _lines(path, last=True)
    return bool(lines) and lines[-1][0] in ("in", "step")


def _lines(path: Path, *, last: bool = False) -> list[list[object]]:
    with path.open("rb") as file:
        if last:
            file.seek(max(0, path.stat().st_size - 200))
        text = file.read().decode()
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the first half of a line, or the second
            continue
    return found


def _stays(process: int, path: Path) -> list[Stay]:
    found: list[Stay] = []
    for what, when in _lines(path):
        if what == "in":
            found.append(Stay(process, float(str(when)), float(str(when))))
        elif what == "step" and found:
            found[-1].last_step = float(str(when))
        elif what == "write" and found:
            found[-1].wrote = float(str(when))
    return found
