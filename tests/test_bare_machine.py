"""A bare machine: what `make` says when the Python it finds cannot make an environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "venv.sh"


def make(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a Python that is `body`, and without uv."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    python = tmp_path / "python"
    python.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    python.chmod(0o755)
    command = [str(shutil.which("bash")), str(SCRIPT), str(python), str(tmp_path / "venv"), "none.lock"]
    return subprocess.run(command, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60)


def test_a_missing_ensurepip_names_the_package(tmp_path: Path) -> None:
    done = make(
        tmp_path,
        'case "$2" in *ensurepip*) exit 1;; *version_info*print*|*print*) echo 3.11;; *) exit 0;; esac',
    )
    assert done.returncode == 2 and "apt-get install python3.11-venv" in done.stderr, done.stderr


def test_an_old_python_is_refused_with_the_word_to_say(tmp_path: Path) -> None:
    done = make(tmp_path, 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    assert done.returncode == 2 and "3.11 or newer" in done.stderr and "make PYTHON=" in done.stderr


def test_the_lock_has_one_version_and_hashes_for_each_package() -> None:
    text = (ROOT / "requirements" / "dev.lock").read_text()
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(pinned) > 30 and all("==" in line for line in pinned)
    assert text.count("--hash=sha256:") >= len(pinned) and "://" not in text


def test_ci_calls_the_readme_s_test_command() -> None:
    assert (
        "make test" in (ROOT / ".ci" / "run").read_text() and "make test" in (ROOT / "README.md").read_text()
    )
    assert sys.version_info >= (3, 11)
