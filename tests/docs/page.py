"""Cuts docs/start.md into modules: one for each file the page shows, so that tools can read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "start.md"
STUBS = ROOT / "docs" / "stubs"

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
_TITLE = re.compile(r'^"""(?P<file>[\w/]+\.py)')
_IMPORT = re.compile(r"^from (?P<module>atoll[\w.]*) import (?P<names>.+)$", re.M)


def planned() -> set[str]:
    """Names that have a signature on the page and no block yet."""
    return set(re.findall(r"^class (\w+)", (STUBS / "planned.pyi").read_text(), re.M)) - {"Step"}


def modules() -> dict[str, str]:
    """Module name -> source. A block that opens with a file's docstring starts a new module."""
    found: dict[str, list[str]] = {}
    name = "page"
    for block in _BLOCK.findall(PAGE.read_text()):
        if title := _TITLE.match(block):
            name = "page_" + title["file"].removesuffix(".py").replace("/", "_")
        found.setdefault(name, []).append(block)
    return {name: with_planned("\n".join(blocks)) for name, blocks in found.items()}


def with_planned(source: str) -> str:
    """The same source, with planned names imported from the stubs instead of from atoll."""
    missing = planned()

    def split(match: re.Match[str]) -> str:
        names = [n.strip() for n in match["names"].split(",")]
        there = [n for n in names if n not in missing]
        later = [n for n in names if n in missing]
        lines = [f"from {match['module']} import {', '.join(there)}"] if there else []
        return "\n".join(lines + ([f"from planned import {', '.join(later)}"] if later else []))

    return _IMPORT.sub(split, source)
