"""3.4: `make engines` names what is missing, does nothing where all is here, and starts no daemon."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "engines.sh"


def engines(path: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_missing_is_named_with_the_line_to_type(tmp_path: Path) -> None:
    text = (
        SCRIPT.read_text()
        .replace("etcd   ", "no-such-program   ", 1)
        .replace("etcd-server", "no-such-package")
    )
    changed = tmp_path / "engines.sh"
    changed.write_text(text)
    done = subprocess.run(
        ["/bin/bash", str(changed), "--show"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends no-such-package" in done.stdout


def test_where_all_is_here_it_ends_at_once() -> None:
    done = engines(os.environ["PATH"], "--show")
    if done.returncode and os.environ.get("ATOLL_ENGINES") != "all":
        pytest.skip(done.stdout.strip())
    assert done.stdout == "all servers are here: nothing to install\n"


def test_no_package_may_start_a_daemon() -> None:
    text = SCRIPT.read_text()
    assert text.index("exit 101") < text.index("apt-get install -y")
