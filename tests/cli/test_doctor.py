"""`atoll doctor`: settings, what they cost and the fix, heaviest first; 1 when something breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.cli import doctor
from atoll.cli.main import main
from atoll.engines.sqlite import examining
from atoll.ports.examining import Finding, Weight
from atoll.ports.store import put
from atoll.sync import store

Said = pytest.CaptureFixture[str]


@pytest.fixture
def state(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/a.db"
    with store(url) as opened:
        opened.transact(put("k", b"1"))
    return url


def test_a_good_file_breaks_nothing_and_says_what_it_is_worth(state: str, capsys: Said) -> None:
    assert main(["doctor", state]) == 0
    said = capsys.readouterr().out
    assert f"{state}  (store)" in said
    assert "a power cut on its node" in said and "the processes of one machine" in said
    assert "a read takes" in said and "ms; the slowest of 10" in said
    assert "journal_mode, synchronous: wal, FULL" in said
    assert said.rstrip().endswith(
        ("No promise is broken, and none is weaker than it could be.", "could be: 1.")
    )


def test_everything_is_told_with_all(state: str, capsys: Said) -> None:
    main(["doctor", state, "--all"])
    assert "Every answered write was forced to the disk first." in capsys.readouterr().out


def test_memory_breaks_what_people_rely_on(capsys: Said) -> None:
    assert main(["doctor", "memory://"]) == 1
    said = capsys.readouterr().out
    assert "BREAKS" in said and "-> Name a file instead: sqlite:///state.db" in said
    assert said.rstrip().endswith("Promises broken: 1. Weaker than it could be: 0.")


def test_what_exclusive_recipes_refuse_is_told(capsys: Said) -> None:
    assert main(["doctor", "memory://?forgets_at_failover=true"]) == 1
    assert "two may hold one lock" in capsys.readouterr().out


def test_a_frozen_store_is_told_with_its_note(state: str, tmp_path: Path, capsys: Said) -> None:
    assert main(["store", "move", state, f"sqlite:///{tmp_path}/b.db"]) == 0
    assert main(["doctor", state]) == 1
    said = capsys.readouterr().out
    assert "frozen: it was moved to" in said and "atoll store thaw" in said


def test_as_json(state: str, capsys: Said) -> None:
    assert main(["doctor", state, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "store" and told["breaks"] is False and len(told["read_ms"]) == 10
    assert {finding["weight"] for finding in told["findings"]} <= {"fine", "note", "costs", "breaks"}
    assert all(finding["cost"] for finding in told["findings"])


@pytest.mark.parametrize(
    ("door", "words"), [("broker", "an answered put survives"), ("tier", "a copy may vanish")]
)
def test_a_broker_and_a_tier_say_what_they_can(door: str, words: str, capsys: Said) -> None:
    assert main(["doctor", "memory://", "--as", door]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["sqlite:///none.db"], 3, "found no file"),
        (["nonsense"], 2, "has no scheme"),
        (["gopher://x"], 2, "gopher://"),
        (["@nobody"], 2, "ATOLL_NOBODY"),
    ],
)
def test_what_cannot_be_examined(
    words: list[str], code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *words]) == code
    assert sentence in capsys.readouterr().err and list(tmp_path.iterdir()) == []


# What is said of one fact, and of its opposite.


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.6.23", True),
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.50.7", True),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.54.1", True),
    ],
)
def test_a_sqlite_that_can_lose_pages_is_known_by_its_version(version: str, safe: bool) -> None:
    assert (examining.of_version("x", version).weight is Weight.FINE) == safe


@pytest.mark.parametrize(
    ("mode", "synchronous", "weight"),
    [("wal", 2, Weight.FINE), ("wal", 1, Weight.BREAKS), ("delete", 2, Weight.BREAKS)],
)
def test_a_journal_that_is_not_forced_breaks(mode: str, synchronous: int, weight: Weight) -> None:
    assert examining.of_journal(mode, synchronous).weight is weight


def test_a_file_on_a_network_or_in_memory_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, weight in (("nfs4", Weight.COSTS), ("tmpfs", Weight.COSTS), ("ext4", Weight.FINE)):
        monkeypatch.setattr(examining.place, "file_system", lambda folder, kind=kind: kind)
        assert examining.of_file_system("/x/a.db", shared_kernel=True).weight is weight


def test_a_file_that_everybody_may_write_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    for mode, weight in ((0o666, Weight.NOTE), (0o660, Weight.FINE)):
        (tmp_path / "a.db").chmod(mode)
        assert examining.of_owner(str(tmp_path / "a.db")).weight is weight


def test_a_log_that_is_not_copied_back_costs(tmp_path: Path) -> None:
    with open(tmp_path / "a.db-wal", "wb") as file:
        file.truncate(examining.WAL_LONG + 1)
    assert examining.of_log(str(tmp_path / "a.db")).weight is Weight.COSTS


def test_the_heaviest_come_first_and_the_verdict_counts_them() -> None:
    findings = [
        Finding(setting="appendfsync", value="no", weight=Weight.BREAKS, cost="Lost.", fix="always"),
        Finding(setting="ttl", value="1", weight=Weight.FINE, cost="Good."),
    ]
    shown = doctor.text(doctor.Report("redis://h/0", "store", findings=findings))
    assert shown.index("appendfsync: no") < shown.index("-> always") < shown.index("ttl: 1")
    assert shown.endswith("Promises broken: 1. Weaker than it could be: 0.")
