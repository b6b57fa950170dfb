"""A1: docs/start.md is the API: strict type checkers read it as a user's program, misuse included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import page
import pytest

MISUSES = {
    "a queue of orders takes orders": "async def bad() -> None:\n    await placed.put('not an order')\n",
    "a lock needs a store": "Lock(broker, 'x')\n",
    "a token has no arithmetic with text": "async def bad(term: Term) -> None:\n    x: str = term.token\n",
    "a worker takes its queue's type": "@placed.worker()\nasync def bad(n: int, d: Delivery) -> None: pass\n",
}


def write_page(folder: Path, extra: str = "") -> list[str]:
    files = []
    for name, source in page.modules().items():
        path = folder / f"{name}.py"
        path.write_text(source + (extra if name == "page_shop_shared" else ""))
        files.append(str(path))
    return files


def mypy(folder: Path, files: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", str(config(folder)),
         "--disable-error-code=empty-body", "--cache-dir", str(page.ROOT / ".mypy_cache" / "page"), *files],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def config(folder: Path) -> Path:
    path = folder / "mypy.ini"
    path.write_text(
        f"[mypy]\nmypy_path = {page.STUBS}:{page.ROOT / 'src'}\npython_version = 3.11\n"
        "[mypy-apsw.*]\nignore_missing_imports = True\n[mypy-aiosqlite.*]\nignore_missing_imports = True\n"
    )
    return path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.11 or newer")
def test_mypy_strict_accepts_the_page(tmp_path: Path) -> None:
    done = mypy(tmp_path, write_page(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MISUSES)
def test_mypy_refuses_a_misuse(name: str, tmp_path: Path) -> None:
    done = mypy(tmp_path, write_page(tmp_path, extra="\n" + MISUSES[name]))
    assert done.returncode == 1, f"mypy accepted a misuse: {name}\n{done.stdout}"


def test_pyright_accepts_the_page(tmp_path: Path) -> None:
    write_page(tmp_path)
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(page.STUBS), str(page.ROOT / "src")],
        "stubPath": str(page.STUBS),
        # The page leaves bodies out and shows names it does not use; nothing else is forgiven.
        **dict.fromkeys(["reportUnusedExpression", "reportUnusedFunction", "reportReturnType"], False),
        "reportMissingTypeStubs": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "-p", str(tmp_path)], capture_output=True, text=True, timeout=300)
    if not done.stdout.lstrip().startswith("{") and not os.environ.get("CI"):
        pytest.skip(f"pyright cannot run here: {(done.stderr or done.stdout).strip()[-200:]}")
    errors = [
        f"{Path(d['file']).name}:{d['range']['start']['line'] + 1} {d['message']}"
        for d in json.loads(done.stdout)["generalDiagnostics"]
        if d["severity"] == "error"
    ]
    assert not errors, "\n".join(errors)
