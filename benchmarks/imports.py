"""What importing costs, in modules: a count says the same on every machine.

A tool that only prints its version should not have to carry the whole workshop to the door.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import ROOT, Expected, Result, Size, Spread, number

LINES = (
    "import atoll",
    "from atoll import Lock",
    "import atoll; atoll.store('sqlite:///state.db')",
    "import asyncio",
)
COUNT = """
import sys, time
before, began = set(sys.modules), time.perf_counter()
{line}
took = time.perf_counter() - began
new = set(sys.modules) - before
ours = sum(name.split('.')[0] == 'atoll' for name in new)
print(len(new), ours, int('asyncio' in new), took * 1000)
"""


def count(line: str) -> tuple[int, int, bool, float]:
    """In a fresh interpreter: modules loaded, of them ours, asyncio among them, milliseconds."""
    answer = subprocess.run(
        [sys.executable, "-c", COUNT.format(line=line)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    ).stdout.split()
    return int(answer[0]), int(answer[1]), answer[2] == "1", float(answer[3])


def run(folder: Path, size: Size) -> Result:
    """Each line `rounds` times."""
    rows, found = [], {}
    for line in LINES:
        counts = [count(line) for _ in range(size.rounds)]
        modules, ours, loads_asyncio, _ = found[line] = counts[0]
        took = Spread.of([milliseconds for _, _, _, milliseconds in counts])
        rows.append(
            [f"`{line}`", modules, ours, "yes" if loads_asyncio else "no", f"{number(took.middle)} ms"]
        )
    modules, _, loads_asyncio, _ = found["import atoll"]
    return Result(
        title="Imports",
        how="Modules that a line loads into a fresh interpreter.",
        tables=[(("", "modules", "Atoll's own", "asyncio", "took"), rows)],
        expected=[
            Expected("`import atoll` without asyncio", f"{modules} modules", not loads_asyncio),
        ],
    )
