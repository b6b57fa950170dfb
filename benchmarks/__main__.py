"""`make bench`: every benchmark on this machine and in this folder, written to benchmarks/RESULTS.md.

    python -m benchmarks [store queue lock transaction coordination consensus pauses imports] [--folder DIR]
                         [--rounds 5] [--seconds 1.5] [--times 400] [--output FILE]

Figures of one machine compare sides, not machines. With names given, only those run, and nothing is written
unless --output says where.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import ROOT, Result, Size, fsync_ms, machine, number

NAMES = ("store", "queue", "lock", "transaction", "coordination", "consensus", "pauses", "imports")


def main(words: list[str] | None = None) -> int:
    """Run, show, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named"
    )
    parser.add_argument("--folder", type=Path, help="the disk to measure on; the folder for temporary files")
    parser.add_argument("--rounds", type=int, default=Size().rounds)
    parser.add_argument("--seconds", type=float, default=Size().seconds, help="each side in each round")
    parser.add_argument("--times", type=int, default=Size().times, help="operations where latency counts")
    parser.add_argument("--output", type=Path, help="where to write; benchmarks/RESULTS.md if none is named")
    options = parser.parse_args(words)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"found {', '.join(sorted(unknown))}; expected names of {', '.join(NAMES)}")
    size = Size(seconds=options.seconds, rounds=options.rounds, times=options.times)
    output = options.output or (None if options.names else ROOT / "benchmarks" / "RESULTS.md")
    text = measured(options.names or NAMES, options.folder, size)
    if output is not None:
        output.write_text(text, encoding="utf-8")
        print(f"\nwritten to {output}")
    return 0


def measured(names: list[str] | tuple[str, ...], folder: Path | None, size: Size) -> str:
    """The whole of RESULTS.md; each part is shown as soon as it is there."""
    parts = [_head(size)]
    for place, name in enumerate(names):
        print(f"[{place + 1}/{len(names)}] {name} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=folder, prefix="atoll-bench-") as made:
            before = fsync_ms(Path(made))
            result: Result = importlib.import_module(f"benchmarks.{name}").run(Path(made), size)
            after = fsync_ms(Path(made))
        fsync = " and ".join(f"p50 {number(p50)}, p99 {number(p99)}" for p50, p99 in (before, after))
        result.notes.append(f"The folder's fsync in ms before and after: {fsync}.")
        parts.append(result.text())
        print(f"\n{parts[-1]}\n\n({time.perf_counter() - began:.0f} s)\n", flush=True)
    return "\n\n".join(parts) + "\n"


def _head(size: Size) -> str:
    lines = [f"- {line}" for line in [time.strftime("%Y-%m-%d"), *machine()]]
    return "\n".join(
        [
            "# Figures",
            "",
            "Written by `make bench`. What was expected stands beside what was found, held or missed.",
            f"Sides run in turns, {size.rounds} rounds of {size.seconds:g} s; compare within a table only.",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
