"""What every benchmark here measures by: paired rounds, the folder's own fsync, forced writes counted.

Two runners are compared on the same track on the same day, several times, in turns. What is printed is how
far apart they were and how much that varied, not a record.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: `rounds` of `seconds` each, and `times` operations where latency counts."""

    seconds: float = 1.5
    rounds: int = 5
    times: int = 400


TINY = Size(seconds=0.05, rounds=1, times=8)
"""For tests: everything runs, no figure means anything."""


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)
        return cls(ordered[0], ordered[len(ordered) // 2], ordered[-1])

    def __str__(self) -> str:
        return f"{number(self.middle)} ({number(self.low)} - {number(self.high)})"


@dataclass(frozen=True)
class Expected:
    """What was expected of a figure beforehand, what was found, and whether it held."""

    what: str
    found: str
    held: bool


@dataclass
class Result:
    """What one benchmark answers; `notes` are sentences."""

    title: str
    how: str
    tables: list[tuple[Sequence[str], list[Sequence[object]]]] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """As Markdown."""
        parts = [f"## {self.title}", self.how, *(table(head, rows) for head, rows in self.tables)]
        if self.expected:
            rows = [(e.what, e.found, "held" if e.held else "MISSED") for e in self.expected]
            parts.append(table(("expected", "found", ""), rows))
        return "\n\n".join([*parts, *self.notes])


def plain_file(path: Path | str, schema: str) -> None:
    """A WAL file with `schema`, made before a crowd comes: the change to WAL does not wait for another's."""
    until = time.monotonic() + 60
    while True:
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(schema)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        finally:
            connection.close()


def reachable(folder: Path) -> Path | None:
    """`folder` where other accounts may enter it, as a server with an account of its own must; else None."""
    folder.chmod(0o755)
    return folder if all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents) else None


def number(value: float) -> str:
    """Three figures that a person reads."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table(head: Sequence[str], rows: list[Sequence[object]]) -> str:
    """A Markdown table whose columns line up in a terminal too."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|"
        + "|".join("-" * (width + 1) + (":" if place else "-") for place, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def paired(sides: dict[str, Callable[[Path], float]], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Every side once in each round, each on a file of its own, beginning with another one each time."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for round in range(rounds):
        for place in range(len(names)):
            name = names[(place + round) % len(names)]
            path = folder / f"{len(list(folder.iterdir()))}-{round}.db"
            found[name].append(sides[name](path))
    return found


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of the pairs of each round."""
    pairs = zip(mine, theirs, strict=True)
    return Spread.of([one / other if other else math.inf for one, other in pairs])


def fsync_ms(folder: Path, times: int = 400) -> tuple[float, float]:
    """What it costs to force 4 KiB that are there already to this folder's disk: p50 and p99."""
    took = []
    path = folder / "probe"
    with path.open("wb", buffering=0) as file:
        file.write(b"\0" * 4096 * 64)
        os.fsync(file.fileno())
        for count in range(times):
            file.seek(count % 64 * 4096)
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return percentile(took, 0.5), percentile(took, 0.99)


class _File(apsw.VFSFile):
    def __init__(self, forced: Forced, name: Any, flags: Any) -> None:
        super().__init__("unix", name, flags)
        self._forced = forced

    def xSync(self, flags: int) -> None:
        self._forced.count += 1
        super().xSync(flags)
        if self._forced.slower_s:
            time.sleep(self._forced.slower_s)


class Forced(apsw.VFS):
    """SQLite's forced writes in this process, counted by a VFS that passes everything on."""

    def __init__(self, slower_s: float) -> None:
        super().__init__("counting", "unix", makedefault=True)
        self.count = 0
        self.slower_s = slower_s

    def xOpen(self, name: Any, flags: Any) -> apsw.VFSFile:
        return _File(self, name, flags)


@contextmanager
def forced(slower_s: float = 0.0) -> Iterator[Forced]:
    """Count the forced writes of what is opened through apsw inside; make each `slower_s` slower."""
    counting = Forced(slower_s)
    try:
        yield counting
    finally:
        counting.unregister()


def processes(module: str, words: Sequence[str], count: int) -> list[Any]:
    """`python -m module --worker WORDS PLACE` `count` times at once, begun together; what each answered.

    A worker calls `ready()` when it has opened its things, and prints one line of JSON.
    """
    command = [sys.executable, "-m", module, "--worker", *words]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    children = [
        subprocess.Popen(
            [*command, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths},
        )
        for place in range(count)
    ]
    try:
        for child in children:
            assert child.stdout and child.stdout.readline() == "ready\n", f"{module}: a worker did not start"
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.close()
        return [json.loads(child.stdout.readline()) for child in children if child.stdout]
    except BaseException:
        for child in children:
            child.kill()
        raise
    finally:
        for child in children:
            child.wait(timeout=60)
            assert child.stdout
            child.stdout.close()


def ready() -> None:
    """In a worker: say so, and wait until all are."""
    print("ready", flush=True)
    sys.stdin.readline()


def machine() -> list[str]:
    """What the figures were measured on, a line each."""
    system = f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f} at the start"
    return [
        f"{os.cpu_count()} cores of {_processor()}, {system}",
        f"Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()} (apsw)",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
