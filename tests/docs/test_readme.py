"""README: its lines run, from the built wheel, alone in a bare environment.

An editable install hides a file that was forgotten; a wheel in an empty environment does not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("atoll-*-py3-none-any.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return python


def run(python: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(python), "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )


def python_block() -> str:
    [block] = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)
    return str(block)


def test_the_wheel_brings_two_packages_and_no_more(bare: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(bare), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
    )
    names = {line.partition("==")[0] for line in done.stdout.split()} - {"pip", "setuptools", "wheel"}
    assert names == {"atoll", "apsw", "msgspec"}


def test_every_name_of_the_front_door_opens_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    done = run(
        bare, "import atoll\nfor n in atoll.__all__: getattr(atoll, n)\nprint(len(atoll.__all__))", tmp_path
    )
    assert done.returncode == 0 and int(done.stdout) > 30, done.stderr


def test_the_lines_of_the_readme_run(bare: Path, tmp_path: Path) -> None:
    body = (
        python_block()
        + """
import asyncio

async def main():
    async with shop.begin() as db:
        await db.execute("CREATE TABLE bill (id INTEGER PRIMARY KEY)")
    async with stock.begin() as db:
        await db.execute("CREATE TABLE reserved (id INTEGER PRIMARY KEY)")
    await bill(7)
    async with atoll.background(Outbox(shop).relay(), placed.work()):
        while True:
            async with stock.read() as db:
                if rows := await db.execute("SELECT id FROM reserved"):
                    break
            await asyncio.sleep(0.01)
    print(rows)

async def bounded():
    async with asyncio.timeout(60):
        await main()

asyncio.run(bounded())
"""
    )
    done = run(bare, body, tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "[(7,)]", done.stdout + done.stderr


def test_the_demo_of_the_first_screen_runs_and_its_table_has_the_readme_s_head(
    bare: Path, tmp_path: Path
) -> None:
    atoll = bare.parent / "atoll"
    done = subprocess.run(
        [str(atoll), "demo", "lock", "--faults", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    head = next(line for line in done.stdout.splitlines() if "said done" in line)
    assert head.split() == next(line for line in README.splitlines() if "said done" in line).split()
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_up_without_its_extra_says_what_to_type(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "atoll.toml").write_text('[app]\nname = "x"\n[services.a]\ncommand = ["true"]\n')
    atoll = bare.parent / "atoll"
    done = subprocess.run([str(atoll), "up"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'pip install "atoll[up]"' in done.stderr, done.stderr


def test_readme_names_only_paths_that_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_screen_says_what_it_is_and_when_not_to_use_it() -> None:
    order = ["$ atoll demo lock", "```python", "## What is proved", "## When not to use it", "\nmake demo"]
    places = [README.index(part) for part in order]
    assert places == sorted(places)
