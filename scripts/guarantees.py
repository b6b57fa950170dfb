"""Guarantees: puts the results of runs into docs/guarantees.json and their table into docs/guarantees.md.

python scripts/guarantees.py RESULT.json ...: runs of an engine replace the recorded ones of that engine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from atoll.verify import table

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(paths: list[Path]) -> int:
    """Record, and print what the page says now."""
    record, page = DOCS / "guarantees.json", DOCS / "guarantees.md"
    runs = table.read([record]) if record.exists() else []
    fresh = [table.shortened(run) for run in table.read(paths)] if paths else []
    engines = {run["engine"] for run in fresh}
    runs = [run for run in runs if run["engine"] not in engines] + fresh
    record.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    text = table.markdown(runs)
    page.write_text(table.within(page.read_text(), text))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(word) for word in sys.argv[1:]]))
