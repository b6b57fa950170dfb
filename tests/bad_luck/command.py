"""The command as a stranger meets it: a real process, its answer, its sentence, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

WAIT_S = 60.0


def atoll(
    *words: str, folder: Path, env: Mapping[str, str] | None = None, wait_s: float = WAIT_S
) -> subprocess.CompletedProcess[str]:
    """Run a verb in `folder`. A traceback fails the test wherever it is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "atoll", *words],
        capture_output=True, cwd=folder, env={**clean(), **(env or {})}, timeout=wait_s,
        text=True, errors="replace",
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def clean() -> dict[str, str]:
    """This environment without what names an app of somebody's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
