"""`atoll logs [SERVICE]`: what its instances printed, from the kept files; `--follow` goes on."""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from atoll.cli import named
from atoll.cli.numbers import whole
from atoll.errors import ConfigurationError

FOLLOW_EVERY_S = 0.2


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's words."""
    parser.add_argument("service", nargs="?", help="a service or an instance, as api or api-2; default: all")
    parser.add_argument("--app", metavar="FOLDER", help="the app's folder; default: above here")
    parser.add_argument("--lines", type=whole(0), default=50, help="how many of the last lines of each (50)")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")


def run(options: argparse.Namespace) -> int:
    """0; 2 when there is no such service."""
    folder = named.app_folder(options.app) / ".atoll" / "logs"
    files = matching(folder, options.service)
    kept = {path.stem: list(last(path, options.lines)) for path in files}
    if options.json:
        print(json.dumps({"instances": kept}))
        return 0
    width = max(map(len, kept)) if len(kept) > 1 else 0
    for name, lines in kept.items():
        for line in lines:
            _show(name, line, width)
    if options.follow:
        follow(files, width)
    return 0


def matching(folder: Path, service: str | None) -> list[Path]:
    """The files of a service's instances, or of one."""
    every = sorted(folder.glob("*.log")) if folder.is_dir() else []
    names = {path.stem.rpartition("-")[0] for path in every}
    found = [p for p in every if service in (None, p.stem) or p.stem.rpartition("-")[0] == service]
    if not found:
        known = ", ".join(sorted(names)) or "none"
        what = f"of {service!r} " if service else ""
        raise ConfigurationError(f"found no output {what}in {folder}; kept is that of: {known}.")
    return found


def last(path: Path, lines: int) -> Iterable[str]:
    """The last lines, those of the full file before it included."""
    kept: deque[str] = deque(maxlen=max(0, lines))
    for part in (path.with_suffix(".log.1"), path):
        if part.is_file():
            with part.open(encoding="utf-8", errors="replace") as file:
                kept.extend(line.rstrip("\n") for line in file)
    return kept


def follow(files: list[Path], width: int) -> None:
    """Print what is added, also after the file was changed for a new one; until Ctrl-C."""
    opened = {path: _open_at_end(path) for path in files}
    while True:
        for path, file in opened.items():
            for line in file:
                _show(path.stem, line.rstrip("\n"), width)
            if path.is_file() and path.stat().st_size < file.tell():
                file.close()
                opened[path] = path.open(encoding="utf-8", errors="replace")
        time.sleep(FOLLOW_EVERY_S)


def _open_at_end(path: Path) -> IO[str]:
    file = path.open(encoding="utf-8", errors="replace")
    file.seek(0, 2)
    return file


def _show(name: str, line: str, width: int) -> None:
    print(f"{name:<{width}} | {line}" if width else line, flush=True)
