"""`atoll status`, `logs`, `restart`: their text, --json, and their codes without a running app."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from atoll.cli import status
from atoll.cli.main import main


def service(name: str, state: str, ready: int, wanted: int, **more: Any) -> dict[str, Any]:
    rest = {"restarts": 0, "last": "", "gave_up": [], "waits_for": [], "traffic": None, **more}
    return {"service": name, "state": state, "ready": ready, "wanted": wanted, **rest}


STATUS: dict[str, Any] = {
    "app": "shop",
    "up_s": 8040.0,
    "ok": False,
    "sentence": "shop needs a look.",
    "admin": "http://a",
    "gateway": None,
    "urls": [{"name": "state", "scheme": "sqlite"}],
    "problems": [{"kind": "services", "text": "auditor-1 gave up; see: atoll logs auditor"}],
    "services": [
        service("api", "ready", 3, 3, traffic={"req_s": 212.0, "p50_ms": 4.2, "p99_ms": 31.4}),
        service("auditor", "gave up", 1, 2, restarts=6, last="14:09:40 exit 1", gave_up=["auditor-1"]),
        service("replay", "waiting", 0, 1, waits_for=["api"]),
    ],
    "transactions": {"asked": True, "rows": [{"id": "t", "age_s": 41.0}, {"id": "t", "age_s": 40.0}]},
    "queues": {
        "asked": True,
        "rows": [{"queue": "placed", "ready": 2, "delayed": 0, "leased": 1, "dead": 3}],
    },
    "locks": {"asked": True, "rows": [{"kind": "leader"}]},
}


def test_the_table_says_what_people_look_for() -> None:
    lines = status.text(STATUS).splitlines()
    assert lines[0] == "shop  up 2 h 14 m    state sqlite"
    assert [re.split("  +", line) for line in lines[1:5]] == [
        ["SERVICE", "READY", "RESTARTS", "LAST", "REQ/S", "P50/P99 MS"],
        ["api", "3/3", "0", "212", "4 / 31"],
        ["auditor", "1/2", "6", "14:09:40 exit 1, gave up; see: atoll logs auditor"],
        ["replay", "0/1", "0", "waits for api"],
    ]
    assert re.split("   +", lines[5]) == [
        "1 transaction in doubt (41 s)",
        "3 messages waiting",
        "3 dead letters (placed)",
        "1 leader, 0 locks held",
    ]
    assert lines[6:] == ["! auditor-1 gave up; see: atoll logs auditor", "page http://a"]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "atoll.toml").write_text('[services.x]\ncommand = ["x"]\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [["status"], ["restart", "x"]])
def test_without_a_running_app_it_is_3_and_how_to_start_one(
    words: list[str], app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 3
    assert f"found no running `atoll up` in {app}. Start it there: atoll up" in capsys.readouterr().err
    assert main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"] == "NotSent"


def test_a_socket_left_by_a_dead_up_is_no_running_app(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (app / ".atoll").mkdir()
    (app / ".atoll" / "up.sock").touch()
    assert main(["status"]) == 3


def test_without_a_manifest_it_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    assert "found no atoll.toml" in capsys.readouterr().err


def test_logs_are_read_from_the_files_also_when_nothing_runs(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = app / ".atoll" / "logs"
    logs.mkdir(parents=True)
    (logs / "api-0.log.1").write_text("one\ntwo\n")
    (logs / "api-0.log").write_text("three\n")
    (logs / "api-1.log").write_text("uno\n")
    (logs / "my-api-0.log").write_text("other\n")
    assert main(["logs", "api", "--lines", "2"]) == 0
    assert capsys.readouterr().out == "api-0 | two\napi-0 | three\napi-1 | uno\n"
    assert main(["logs", "api-1"]) == 0
    assert capsys.readouterr().out == "uno\n"
    assert main(["logs", "api", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "instances": {"api-0": ["one", "two", "three"], "api-1": ["uno"]}
    }
    assert main(["logs", "nobody"]) == 2
    assert "kept is that of: api, my-api" in capsys.readouterr().err
