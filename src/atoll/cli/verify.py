"""`atoll verify URL`: tests what an engine claims, with faults on, and shows the history that breaks it."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atoll.cli import named, simulation
from atoll.errors import ConfigurationError
from atoll.ports.examining import Finding
from atoll.verify import report, servers, table
from atoll.verify import run as runner
from atoll.verify.run import ACTS, NAMES, Report, Wish

TABLED = ("postgresql", "etcd:3", "redis")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument("url", nargs="?", help="sqlite:///x.db, redis://..., @name of atoll.toml, or raft")
    parser.add_argument(
        "--start", metavar="SERVERS", help="start servers and hurt them: etcd:3, redis?appendfsync=everysec"
    )
    parser.add_argument(
        "--workload",
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(dict.fromkeys((*NAMES, *ACTS)))}; may be given again; all by default",
    )
    parser.add_argument(
        "--seconds", type=float, help="how long each workload runs (10; 20 on servers it starts)"
    )
    parser.add_argument("--yes", action="store_true", help="also on a server beyond this machine")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="calls a second at most, on a server of yours (600)"
    )
    parser.add_argument("--mb", type=float, default=0.0, help="megabytes written at most, there (64)")
    parser.add_argument("--seed", type=int, help="the dice of an earlier run")
    parser.add_argument("--no-faults", action="store_true", help="no kills, no pauses, nothing lost")
    parser.add_argument(
        "--report", type=Path, metavar="PATH", help="the HTML page; ./verify-SEED.html by default"
    )
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    simulation.arguments(parser)
    parser.add_argument(
        "--table",
        nargs="*",
        type=Path,
        metavar="RESULT",
        help="print engine by guarantee from saved results; without any, run what is installed here",
    )


def verified(options: argparse.Namespace) -> Report:
    """Run it, with its progress on standard error where that is a terminal."""
    seconds = (20.0 if options.start else 10.0) if options.seconds is None else options.seconds
    if not seconds > 0:
        raise ConfigurationError(f"found --seconds {seconds:g}; expected more than 0.")
    if bool(options.url) == bool(options.start):
        raise ConfigurationError(
            "found neither a URL nor --start, or both; expected one: the URL of a place of yours, or "
            "servers to start and hurt, as in --start etcd:3."
        )
    wish = Wish(
        url=named.url(options.url) if options.url else "",
        start=options.start or "",
        workloads=tuple(dict.fromkeys(options.workload or NAMES)),
        seconds=seconds,
        seed=options.seed if options.seed is not None else random.SystemRandom().randrange(10_000, 100_000),
        faults=not options.no_faults,
        yes=options.yes,
        rate=options.rate,
        bytes_max=round(options.mb * 1_000_000),
    )
    return played(wish, quiet=options.json)


def played(wish: Wish, *, quiet: bool) -> Report:
    """Play it, with its progress on standard error where that is a terminal."""
    shown = sys.stderr.isatty()

    def progress(text: str) -> None:
        if shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def first(findings: Sequence[Finding]) -> None:
        if not quiet and (said := report.preflight(findings)):
            print(said, flush=True)

    try:
        return asyncio.run(runner.run(wish, progress, first))
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """The verb: answers the exit code."""
    if options.simulate:
        return simulation.run(options)
    if options.report and not options.report.parent.is_dir():
        raise ConfigurationError(
            f"found no folder {options.report.parent} for --report; expected it to be there. "
            "Make it, or name another place. Nothing was run."
        )
    if options.table is not None:
        return tabled(options)
    done = verified(options)
    path = options.report or Path(f"verify-{done.wish.seed}.html")
    data = saved(done, path)
    if options.json:
        print(json.dumps(data, indent=2))
    else:
        print(report.text(done, path))
    return done.exit_code()


def saved(done: Report, path: Path) -> dict[str, Any]:
    """Write the page, and the same for programs beside it."""
    path.write_text(report.page(done), encoding="utf-8")
    data = {**report.as_data(done), "report": str(path), "exit": done.exit_code()}
    path.with_suffix(".json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    return data


def tabled(options: argparse.Namespace) -> int:
    """`--table`: from results, or by running every server that is installed here."""
    if options.url or options.start:
        raise ConfigurationError("found --table beside a URL or --start; expected saved results or nothing.")
    if options.table:
        print(table.markdown(table.read(options.table)))
        return 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10_000, 100_000)
    runs, codes = [], []
    for start in (name for name in TABLED if servers.program(name.partition(":")[0]).find()):
        wish = Wish(start=start, seconds=options.seconds or 20.0, seed=seed)
        done = played(wish, quiet=True)
        runs.append(saved(done, Path(f"verify-{start.replace(':', '-')}-{seed}.html")))
        codes.append(done.exit_code())
    if not runs:
        raise ConfigurationError("found no server on this machine to verify. Type: make engines")
    print(table.markdown(runs))
    return 1 if 1 in codes else max(codes)
