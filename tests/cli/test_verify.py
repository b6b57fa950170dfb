"""A6: `atoll verify` says of each claim what came of it, and ends with the documented code."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.engines.memory.world import StoreWorld


def atoll(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "atoll", "verify", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)


def test_a_sqlite_file_is_verified_under_kills_and_pauses_and_left_as_it_was(tmp_path: Path) -> None:
    import asyncio

    import atoll as library

    async def mine() -> None:
        async with library.store(f"sqlite:///{tmp_path}/x.db") as store:
            await store.transact(library.put("mine", b"kept"))

    asyncio.run(mine())
    done = atoll(
        "sqlite:///x.db",
        "--seconds",
        "2.5",
        "--json",
        "--workload",
        "lock",
        "--workload",
        "transact",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(done.stdout)
    assert [c["claim"] for c in data["claims"]] == [
        "stale writes accepted",
        "tokens only rise",
        "transactions whole",
    ]
    assert {c["verdict"] for c in data["claims"]} == {"held"}
    faults = data["claims"][2]["faults"]
    assert faults["lost answers"] > 0
    assert faults["kill -9"] + data["claims"][0]["faults"]["kill -9"] > 0
    page = (tmp_path / data["report"]).read_text()
    assert page.startswith("<!doctype html>")
    rows = sqlite3.connect(tmp_path / "x.db").execute("SELECT key FROM atoll_entry").fetchall()
    assert rows == [("mine",)]
    assert [p for p in os.listdir(tmp_path) if p.startswith(".")] == []


def test_power_cuts_are_tried_on_files_beside_and_removed(tmp_path: Path) -> None:
    done = atoll(
        "sqlite:///x.db", "--workload", "power", "--seconds", "2", "--report", "r.html", folder=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "durable after power loss  held" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["r.html", "r.json"]


def test_memory_says_what_it_could_not_test(tmp_path: Path) -> None:
    done = atoll(
        "memory://", "--seconds", "0.3", "--workload", "register", "--workload", "power", folder=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not tested: several processes, kill -9 (memory lives in one process)" in done.stdout
    assert "durable after power loss  not run" in done.stdout
    assert "A pass is not a proof" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["memory://", "--workload", "nothing"], 2, "expected one of register, set"),
        (["memory://", "--seconds", "0"], 2, "more than 0"),
        (["mongodb://x/y"], 2, "not in this release"),
        (["etcd://10.1.2.3:2379"], 2, "Add --yes"),
        ([], 2, "expected one"),
        (["memory://", "--start", "etcd:3"], 2, "expected one"),
        (["--start", "oracle"], 2, "expected one of postgresql, etcd"),
        (["--start", "etcd:many"], 2, "as in etcd:3"),
        (["sqlite:///nowhere/x.db", "--seconds", "0.2", "--workload", "register"], 2, "nowhere"),
    ],
)
def test_wrong_words_are_answered_with_what_was_expected(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    done = atoll(*words, folder=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_store_ends_with_1_and_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from atoll.cli.main import main

    true_write = StoreWorld._write

    def forgets(self: StoreWorld, operation: object) -> object:
        entry = true_write(self, operation)  # type: ignore[arg-type]
        if self.revision % 30 == 0:
            self._remove(entry.key)
        return entry

    monkeypatch.setattr(StoreWorld, "_write", forgets)
    page = tmp_path / "r.html"
    words = [
        "verify",
        "memory://",
        "--seconds",
        "0.4",
        "--workload",
        "register",
        "--report",
        str(page),
        "--seed",
        "7",
    ]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "single keys in one order  broken" in said
    assert "--seed 7" in said
    assert '<rect class="bad"' in page.read_text()
