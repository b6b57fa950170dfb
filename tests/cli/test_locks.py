"""`atoll locks`: who holds and who waits; the store by URL, by environment, by atoll.toml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.cli.main import main
from atoll.sync import Lock, Store, store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATOLL_STATE", raising=False)
    (tmp_path / "atoll.toml").write_text('[urls]\nstate = "sqlite:///state.db"\n')
    return tmp_path


@pytest.fixture
def state(folder: Path) -> Iterator[Store]:
    with store(f"sqlite:///{folder}/state.db") as opened:
        yield opened


def test_a_held_lock_is_a_line(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with Lock(state, "order/81", owner="api-2, pid 812") as held:
        assert main(["locks", "@state"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "OWNER", "TOKEN", "SINCE", "LEASE", "LEFT", "WAITING"]
    assert line.startswith(f"order/81   api-2, pid 812   {held.token}")


def test_as_json(state: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Lock(state, "order/81", owner="me") as held:
        assert main(["locks", f"sqlite:///{folder}/state.db", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["owner"], found["token"]) == ("order/81", "me", list(held.token))


def test_nobody(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locks"]) == 0
    assert "nobody" in capsys.readouterr().out


def test_below_the_apps_folder_the_manifest_is_found(
    state: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(folder / "a" / "b")
    with Lock(state, "x"):
        assert main(["locks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "x"


def test_the_environment_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATOLL_STATE", "memory://")
    assert main(["locks"]) == 0
    assert "nobody" in capsys.readouterr().out


def test_an_unknown_name_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locks", "@other"]) == 2
    assert "it names @state" in capsys.readouterr().err
