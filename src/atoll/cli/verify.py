"""`atoll verify URL`: tests what an engine claims, with faults on, and shows the history that breaks it."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path

from atoll.cli import named
from atoll.errors import ConfigurationError
from atoll.verify import report
from atoll.verify import run as runner
from atoll.verify.run import ACTS, NAMES, Report, Wish


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument("url", nargs="?", help="sqlite:///x.db, redis://..., or @name of atoll.toml")
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
    shown = sys.stderr.isatty()

    def progress(text: str) -> None:
        if shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    try:
        return asyncio.run(runner.run(wish, progress))
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """The verb: answers the exit code."""
    if options.report and not options.report.parent.is_dir():
        raise ConfigurationError(
            f"found no folder {options.report.parent} for --report; expected it to be there. "
            "Make it, or name another place. Nothing was run."
        )
    done = verified(options)
    path = options.report or Path(f"verify-{done.wish.seed}.html")
    path.write_text(report.page(done), encoding="utf-8")
    if options.json:
        print(json.dumps({**report.as_data(done), "report": str(path), "exit": done.exit_code()}, indent=2))
    else:
        print(report.text(done, path))
    return done.exit_code()
