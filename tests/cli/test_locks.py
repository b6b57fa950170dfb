"""`atoll locks`: who holds and who waits; the store by URL, by environment, by atoll.toml."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll import LockLost, Refused, put
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


def test_what_the_lease_has_left_is_told(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with Lock(state, "order/81", owner="api-2", ttl_s=20):
        assert main(["locks", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert 10 < found["lease_left_s"] <= 20 and found["cause"] == "" and found["kind"] == "lock"


def test_everybody_who_waits_is_shown_in_order(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with Lock(state, "order/81", owner="api-2"):
        entered = [threading.Thread(target=wait_for, args=(state, f"api-{n}"), daemon=True) for n in (0, 1)]
        for number, thread in enumerate(entered, 1):
            thread.start()
            until(lambda number=number: len(line_of(capsys)) == number)
        assert main(["locks", "--waiting"]) == 0
        shown = capsys.readouterr().out
        assert "2, first api-0 since" in shown
        assert shown.index("1. api-0") < shown.index("2. api-1")
    for thread in entered:
        thread.join(20)


def wait_for(state: Store, owner: str) -> None:
    with Lock(state, "order/81", owner=owner):
        pass


def line_of(capsys: pytest.CaptureFixture[str]) -> list[object]:
    assert main(["locks", "--json"]) == 0
    return list(json.loads(capsys.readouterr().out)[0]["line"])


def until(question: Callable[[], bool]) -> None:
    due = time.monotonic() + 20
    while not question():
        assert time.monotonic() < due
        time.sleep(0.02)


def test_a_paused_holder_is_named_as_the_cause(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import os, signal, atoll\nfrom atoll.sync import Lock, store\n"
        f"with store('sqlite:///{folder}/state.db') as state, Lock(state, 'x', owner='api-2', ttl_s=6):\n"
        "    print('held', flush=True); os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout and child.stdout.readline() == "held\n"

        def told() -> bool:
            assert main(["locks"]) == 0
            return "x: api-2, not renewed for" in capsys.readouterr().out

        until(told)
    finally:
        child.kill()
        child.wait()


def test_a_lock_is_taken_away_and_the_record_says_by_whom(
    state: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LockLost), Lock(state, "order/81", owner="api-2", ttl_s=1) as held:
        assert main(["locks", "break", "order/81", "--yes", "--by", "ann", "--reason", "gone"]) == 0
        assert "order/81 was taken away from api-2" in capsys.readouterr().out
        with pytest.raises(Refused):
            state.transact(put("k", b"late"), guard=held)
        until(lambda: held.lost)
    assert main(["locks", "breaks"]) == 0
    assert "lock order/81, of api-2: it was broken by ann: gone" in capsys.readouterr().out


def test_without_yes_and_without_a_person_nothing_is_broken(
    state: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("order/81\n"))
    with Lock(state, "order/81", owner="api-2") as held:
        assert main(["locks", "break", "order/81"]) == 2
        assert "say --yes" in capsys.readouterr().err
        state.transact(put("k", b"1"), guard=held)


def test_what_nobody_holds_cannot_be_broken(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locks", "break", "order/81", "--yes"]) == 3
    assert "nobody holds order/81" in capsys.readouterr().err


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
