"""A11: the first minute: the faults are real, the naive way loses, ours does not, nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def demo(what: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atoll", "demo", what, *words]
    here = cwd.with_name(f"{cwd.name}-tmp")  # its own: what others leave in the shared one is not its doing
    here.mkdir()
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, "TMPDIR": str(here)}
    )


def columns(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout))


def left_behind(cwd: Path) -> list[Path]:
    """What the demo left in its folder and in its own temporary one."""
    return [*cwd.iterdir(), *cwd.with_name(f"{cwd.name}-tmp").iterdir()]


def test_a_frozen_holder_loses_others_work_under_a_ttl_and_is_refused_under_a_token(tmp_path: Path) -> None:
    ttl, token = columns(demo("lock", "--faults", "4", "--json", cwd=tmp_path))
    assert ttl["freezes"] == token["freezes"] == 4
    assert ttl["lost"] > 0 and ttl["refused"] == 0, "the naive way must lose, or the demo shows nothing"
    assert token["lost"] == 0 and token["refused"] > 0 and token["said_done"] > 0
    assert left_behind(tmp_path) == []


def test_a_killed_worker_loses_its_job_unless_it_is_leased(tmp_path: Path) -> None:
    pop, queue, inbox = columns(demo("queue", "--faults", "6", "--json", cwd=tmp_path))
    assert pop["kills"] == queue["kills"] == inbox["kills"] == 6
    assert pop["lost"] > 0, "the naive way must lose, or the demo shows nothing"
    assert queue["lost"] == inbox["lost"] == inbox["twice"] == 0
    assert inbox["done"] == inbox["put"]


def test_a_table_for_people_has_a_sentence_above_and_below(tmp_path: Path) -> None:
    done = demo("lock", "--faults", "2", cwd=tmp_path)
    assert "Four processes count under one lock" in done.stdout and "A token can" in done.stdout


@pytest.mark.parametrize("words", [["nothing"], [], ["lock", "--faults", "0"], ["lock", "--faults", "x"]])
def test_wrong_words_are_refused(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atoll", "demo", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
