"""A verb that SIGTERM ends says so by its exit code, wherever the signal meets it."""

from __future__ import annotations

import signal
import subprocess
import sys

CODE = """
import signal, sys
from atoll.cli.main import Ended
asked = Ended()
try:
    with asked:
        exec("signal.raise_signal(signal.SIGTERM)")   # as a dataclass being made at import
except KeyboardInterrupt:
    sys.exit(128 + asked.by)
"""


def test_sigterm_inside_an_exec_ends_with_its_own_number() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
