"""`atoll verify raft --simulate`, or `swim`: whole groups of the real machine, one for each seed."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path

from atoll.errors import ConfigurationError
from atoll.verify.raft import report
from atoll.verify.raft.simulate import Outcome, simulate, simulated
from atoll.verify.swim import report as swim

NOTHING_ELSE = ("start", "workload", "seconds", "table", "report")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that `verify` takes for a simulation."""
    parser.add_argument(
        "--simulate", action="store_true", help="with the place `raft` or `swim`: a world for each seed"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds, from --seed on (1)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="on so many processes (raft: each processor; swim: 1)"
    )
    parser.add_argument("--trace", type=Path, metavar="PATH", help="write all that happened under one seed")


def run(options: argparse.Namespace) -> int:
    """Play the seeds: 0 when every invariant held, 1 when one did not."""
    first, seeds = checked(options)
    if options.url == "swim":
        lives = list(swim.played(range(first, first + seeds), min(options.jobs or 1, seeds)))
        print(json.dumps(swim.as_data(lives), indent=2) if options.json else swim.text(lives))
        return int(any(life.violation is not None for life in lives))
    if options.trace is not None:
        with options.trace.open("w", encoding="utf-8") as file:
            outcomes = [simulate(first, trace=file)]
    else:
        outcomes = played(first, seeds, options.jobs or os.cpu_count() or 1)
    done = report.summary(outcomes)
    print(json.dumps(report.as_data(done), indent=2) if options.json else report.text(done))
    return done.exit_code()


def checked(options: argparse.Namespace) -> tuple[int, int]:
    """The first seed and how many; refuses what has no meaning here."""
    if options.url not in ("raft", "swim"):
        raise ConfigurationError(
            f"found --simulate with {options.url or 'no place'}; expected atoll verify raft --simulate, "
            "or atoll verify swim --simulate."
        )
    if options.url == "swim" and options.trace is not None:
        raise ConfigurationError("found --trace with swim; expected --seeds, --seed, --jobs: a seed replays.")
    if others := [name for name in NOTHING_ELSE if getattr(options, name) is not None]:
        raise ConfigurationError(f"found --{others[0]} beside --simulate; expected --seeds, --seed, --trace.")
    seeds = 1 if options.seeds is None else options.seeds
    if seeds < 1 or (options.jobs is not None and options.jobs < 1):
        raise ConfigurationError("found --seeds or --jobs below 1; expected at least 1.")
    if options.trace is not None and (seeds > 1 or not options.trace.parent.is_dir()):
        raise ConfigurationError(
            f"found --trace {options.trace} with {seeds} seeds; expected one seed and a folder that is there."
        )
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(10_000, 100_000_000)
    return first, seeds


def played(first: int, seeds: int, jobs: int) -> list[Outcome]:
    """All outcomes, with progress on standard error where that is a terminal."""
    outcomes: list[Outcome] = []
    broken = 0
    for outcome in simulated(range(first, first + seeds), min(jobs, seeds)):
        outcomes.append(outcome)
        broken += outcome.violation is not None
        if sys.stderr.isatty():
            said = f"{len(outcomes):,} of {seeds:,} seeds, {broken} broken"
            print(f"\r\033[K{said}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return outcomes
