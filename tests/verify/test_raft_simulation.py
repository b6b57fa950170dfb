"""4.2: `atoll verify raft --simulate`: a seed names a run to the byte, and the table shows what bit whom."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.verify.raft import report
from atoll.verify.raft.counts import FAULTS, ROLES, Counts
from atoll.verify.raft.profile import profile_of
from atoll.verify.raft.runtime import Runtime
from atoll.verify.raft.simulate import simulate, simulated


def atoll(*words: str, folder: Path, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own, with hashes of its own."""
    return subprocess.run(
        [sys.executable, "-m", "atoll", "verify", *words],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_seed_names_a_run_to_the_byte_in_any_process(tmp_path: Path) -> None:
    traces, hashes = [], []
    for hash_seed in ("1", "2"):
        path = tmp_path / f"trace-{hash_seed}"
        words = ("raft", "--simulate", "--seed", "3", "--trace", str(path), "--json")
        done = atoll(*words, folder=tmp_path, hash_seed=hash_seed)
        assert done.returncode == 0, done.stdout + done.stderr
        hashes.append(json.loads(done.stdout)["trace"])
        traces.append(path.read_bytes())
    assert traces[0] == traces[1]
    assert hashes[0] == hashes[1]
    assert simulate(3).trace_hash == hashes[0]
    assert simulate(4).trace_hash != hashes[0]


def test_the_command_prints_figures_the_table_and_how_to_play_it_again(tmp_path: Path) -> None:
    done = atoll("raft", "--simulate", "--seeds", "3", "--seed", "0", "--jobs", "2", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "raft, 3 seeds from 0: all invariants held"
    assert all(any(line.startswith(fault) for line in lines) for fault in FAULTS)
    assert all(role in done.stdout for role in ROLES)
    assert lines[-1] == "A pass is not a proof. Again: atoll verify raft --simulate --seeds 3 --seed 0"


def test_several_processes_give_what_one_gives() -> None:
    alone, together = report.summary([*simulated(range(3))]), report.summary([*simulated(range(3), 2)])
    assert report.as_data(alone) == report.as_data(together)


def test_a_fault_that_bit_nobody_in_some_role_is_a_missing_cell() -> None:
    counts = Counts()
    assert len(counts.missing) == len(FAULTS) * len(ROLES)
    counts.cells["loss", "leader"] = 1
    assert ("loss", "leader") not in counts.missing and ("loss", "candidate") in counts.missing


class Mute(Runtime):
    """Loses all that its clients ask."""

    def ask(self, client: Any, number: int, request: Any) -> None:
        pass


def test_a_broken_seed_is_named_with_the_command_that_plays_it_again() -> None:
    profile = replace(profile_of(5), load_s=1.0, healed_s_max=1.0)
    trace = io.StringIO()
    broken = simulate(5, runtime=Mute, profile=profile, trace=trace)
    done = report.summary([broken, simulate(6, profile=profile)])
    said = report.text(done)
    assert done.exit_code() == 1
    assert "raft, 2 seeds from 5: broken in 1" in said
    assert "seed 5 at" in said and "liveness after healing" in said
    assert "again: atoll verify raft --simulate --seed 5 --trace trace-5.txt" in said
    assert report.as_data(done)["broken"][0]["seed"] == 5
    assert "violation: liveness after healing" in trace.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sqlite:///x.db", "--simulate"), "expected atoll verify raft --simulate"),
        (("raft", "--simulate", "--seeds", "0"), "expected at least 1"),
        (("raft", "--simulate", "--workload", "lock"), "found --workload beside --simulate"),
        (("raft", "--simulate", "--seeds", "2", "--trace", "t"), "expected one seed"),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = atoll(*words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
