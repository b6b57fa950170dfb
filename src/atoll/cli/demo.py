"""`atoll demo lock | queue`: the first minute.

Real processes, really frozen and killed; nothing is left behind.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from atoll.cli.main import NO, YES
from atoll.cli.numbers import whole


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument("what", choices=["lock", "queue"], help="which demonstration")
    parser.add_argument(
        "--faults", type=whole(1), default=10, metavar="N", help="how many freezes or kills (default 10)"
    )


def run(options: argparse.Namespace) -> int:
    """Answers 0 when ours lost nothing and the faults really happened, else 1."""
    return lock(options) if options.what == "lock" else queue(options)


def lock(options: argparse.Namespace) -> int:
    """Four processes count under one lock; its holder is frozen past the lease."""
    from atoll.verify import demo_lock

    if not options.json:
        print(
            "Four processes count under one lock. Its holder is frozen until the lease is over.\n", flush=True
        )
    columns = demo_lock.run(options.faults, progress=Progress(options.json))
    rows = [(c.name, c.said_done, c.counted, c.lost, c.refused) for c in columns]
    show(options.json, columns, ("", "said done", "counted", "lost", "stale writes refused"), rows)
    if not options.json:
        print(
            "\nA lock cannot stop a frozen process. A token can: docs/concepts/fencing.md."
            " Next: atoll demo queue"
        )
    ours = columns[-1]
    return YES if ours.lost == 0 and ours.refused > 0 else NO


def queue(options: argparse.Namespace) -> int:
    """Four workers do jobs; one of them is killed again and again."""
    from atoll.verify import demo_queue

    if not options.json:
        print("Four workers do 300 jobs. One of them is killed with -9, again and again.\n", flush=True)
    columns = demo_queue.run(options.faults, progress=Progress(options.json))
    rows = [(c.name, c.put, c.done, c.lost, c.twice) for c in columns]
    show(options.json, columns, ("", "put", "done", "lost", "done twice"), rows)
    if not options.json:
        print("\nA kill -9 costs the lease's time and no job. An inbox makes the second time do nothing.")
        print("Next: examples/airline, or `atoll verify sqlite:///x.db`")
    return YES if columns[1].lost == 0 and columns[2].lost == columns[2].twice == 0 else NO


class Progress:
    """One line on a terminal that is written over; silent elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def show(as_json: bool, columns: Sequence[Any], head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """The table, for a person or a program."""
    if as_json:
        print(json.dumps([{**dataclasses.asdict(c), "lost": c.lost} for c in columns]))
        return
    Progress(False).clear()
    lines = [head, *([str(cell) if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows)]
    first = max(len(line[0]) for line in lines)
    widths = [max(len(line[i]) for line in lines) + 3 for i in range(1, len(head))]
    for line in lines:
        print(
            f"{line[0]:<{first}}" + "".join(f"{cell:>{w}}" for cell, w in zip(line[1:], widths, strict=True))
        )
