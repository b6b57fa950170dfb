"""`python -m atoll.verify.swim`: simulate SWIM, print the tables, keep the figures and the picture.

Exit codes: 0 all members learnt of every crash, 1 some did not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from atoll.verify.swim import figures, picture


def main(words: list[str] | None = None) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m atoll.verify.swim", description="SWIM, simulated and measured"
    )
    parser.add_argument("--sizes", default="10,32,100,316,1000", help="members, with commas between")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each experiment")
    parser.add_argument("--keep", type=Path, help="a folder for swim.json and swim.svg")
    asked = parser.parse_args(words)
    try:
        sizes = [int(size) for size in asked.sizes.split(",")]
    except ValueError:
        parser.error(f"found --sizes {asked.sizes}; expected numbers such as 10,100,1000")
    try:
        found = figures.run(sizes, asked.seeds, lambda line: print(line, file=sys.stderr, flush=True))
    except AssertionError as broken:
        print(broken)
        return 1
    print("\n".join(figures.tables(found)))
    if asked.keep is not None:
        (asked.keep / "swim.json").write_text(json.dumps(found, indent=1) + "\n")
        (asked.keep / "swim.svg").write_text(picture.draw(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
