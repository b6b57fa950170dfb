"""Real processes for the tests: started from a few lines of code, ended whatever happens."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HEAD = """
import asyncio, os, sys, time
from atoll.engines.sqlite.store import SqliteStore
from atoll.engines.sqlite.limits import StoreOptions
from atoll.engines.sqlite.file import SqliteFile
from atoll.ports.store import put, delete, absent, unchanged
path, *arguments = sys.argv[1:]
"""


@contextmanager
def process(code: str, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `code` after HEAD, with `path` and `arguments` read from `arguments`."""
    child = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdin and child.stdout
        child.stdin.close()
        child.stdout.close()


def line(child: subprocess.Popen[str]) -> str:
    """The next line the child prints."""
    assert child.stdout
    return child.stdout.readline().strip()
