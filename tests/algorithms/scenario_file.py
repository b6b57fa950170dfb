"""Text scenarios: commands and the answers below them, one file a story.

    command words
    ----
    answer, as many lines as it has

`REWRITE=1 pytest ...` writes the answers anew; then read the diff. Answers end at an empty line.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

RULE = "----"


def check(path: Path, answer: Callable[[list[str]], list[str]]) -> None:
    """Run every command of the file through `answer`, and compare what stands below it."""
    told = replay(path.read_text(), answer)
    if os.environ.get("REWRITE") == "1":
        path.write_text(told)
    assert told == path.read_text(), f"{path.name} tells another story:\n{told}"


def replay(text: str, answer: Callable[[list[str]], list[str]]) -> str:
    """The same text with the answers that are given now."""
    parts = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        told = [line for line in lines if line.startswith("#")]
        asked = [line for line in lines if not line.startswith("#")]
        if asked:
            command = asked[: asked.index(RULE)] if RULE in asked else asked
            said = [line for one in command for line in answer(one.split())] or ["(nothing)"]
            told += [*command, RULE, *said]
        parts.append("\n".join(told))
    return "\n\n".join(parts) + "\n"
