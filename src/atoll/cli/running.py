"""Asks the running `atoll up` of a folder one question, by its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any


def ask(
    folder: Path,
    question: dict[str, Any],
    *,
    timeout_s: float = 10.0,
    line: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The last line of the answer; lines before it are given to `line` as they come."""
    from atoll.up import control

    async def asking() -> dict[str, Any]:
        last: dict[str, Any] = {}
        async for value in control.ask(folder / ".atoll", question, timeout_s):
            last = value
            if "line" in value:
                line(str(value["line"]))
        return last

    return asyncio.run(asking())
