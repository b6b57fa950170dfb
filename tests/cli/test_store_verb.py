"""`atoll store`: every action on files, by the words that people type: exit codes and sentences."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import atoll
from atoll.cli.main import main
from atoll.errors import ReadOnly
from atoll.ports.moving import note
from atoll.ports.store import put
from atoll.sync import Lock, store

Said = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATOLL_STATE", raising=False)
    (tmp_path / "atoll.toml").write_text('[urls]\nstate = "sqlite:///a.db"\nnew = "sqlite:///b.db"\n')
    with store(f"sqlite:///{tmp_path}/a.db") as state:
        for number in range(20):
            state.transact(put(f"k/{number:02d}", b"%d" % number))
    return tmp_path


def contents(path: Path) -> dict[str, bytes]:
    with store(f"sqlite:///{path}") as state:
        return {e.key: e.value for e in state.range().entries if not e.key.startswith("atoll/")}


def test_copy(folder: Path, capsys: Said) -> None:
    assert main(["store", "copy", "@state", "@new"]) == 0
    assert "20 entries, 30 bytes: in" in capsys.readouterr().out
    assert contents(folder / "b.db") == contents(folder / "a.db")


def test_copy_onto_something_is_refused_with_what_it_is(folder: Path, capsys: Said) -> None:
    with store(f"sqlite:///{folder}/b.db") as other:
        other.transact(put("mine", b"1"))
    assert main(["store", "copy", "@state", "@new"]) == 2
    assert "found 1 other entries" in capsys.readouterr().err
    assert main(["store", "copy", "@state", "@new", "--force"]) == 0
    assert contents(folder / "b.db") == contents(folder / "a.db")


def test_move(folder: Path, capsys: Said) -> None:
    assert main(["store", "move", "@state", "@new"]) == 0
    assert "20 entries moved" in capsys.readouterr().out
    with (
        store(f"sqlite:///{folder}/a.db") as old,
        pytest.raises(ReadOnly, match=f"moved to sqlite:///{folder}/b"),
    ):
        old.transact(put("k", b"late"))
    assert contents(folder / "b.db") == contents(folder / "a.db")
    assert main(["store", "move", "@state", "@new"]) == 0
    assert "this move was done already" in capsys.readouterr().out


def test_move_names_the_place_absolutely_for_those_who_stand_elsewhere(folder: Path) -> None:
    assert main(["store", "move", "sqlite:///a.db", "sqlite:///b.db"]) == 0
    with (
        store(f"sqlite:///{folder}/a.db") as old,
        pytest.raises(ReadOnly, match=f"to sqlite:///{folder}/b.db"),
    ):
        old.transact(put("k", b"late"))


def test_move_says_who_holds_and_moves_nothing(folder: Path, capsys: Said) -> None:
    with store(f"sqlite:///{folder}/a.db") as old, Lock(old, "order/81", owner="api-2, pid 812"):
        assert main(["store", "move", "@state", "@new", "--wait", "0.2"]) == 1
        said = capsys.readouterr().out
        assert "nothing was moved" in said and "lock order/81   api-2, pid 812 since" in said
        assert "--interrupt" in said
        old.transact(put("k", b"goes on"))


def test_move_interrupts_when_it_is_told_to(folder: Path, capsys: Said) -> None:
    code = (
        f"from atoll.sync import Lock, store\nimport time\nwith store('sqlite:///{folder}/a.db') as old:\n"
        "    with Lock(old, 'x', owner='frozen', ttl_s=1):\n        print('held', flush=True)\n"
        "        time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout and child.stdout.readline() == "held\n"
        began = time.monotonic()
        assert main(["store", "move", "@state", "@new", "--wait", "0.1", "--interrupt"]) == 0
        assert time.monotonic() - began >= 1, "its holder may have believed in it for so long"
        assert "interrupted:\n    lock x   frozen since" in capsys.readouterr().out
    finally:
        child.kill()
        child.wait()


def test_what_was_frozen_is_thawed_but_not_what_was_left_behind(folder: Path, capsys: Said) -> None:
    async def freeze() -> None:
        async with atoll.store(f"sqlite:///{folder}/a.db") as opened:
            assert opened.moving
            await opened.moving.freeze(note("sqlite:///b.db", "abcdef12", done=False))

    asyncio.run(freeze())
    assert main(["store", "thaw", "@state"]) == 0
    assert "takes writes again; it said: it is being moved to" in capsys.readouterr().out
    assert main(["store", "move", "@state", "@new"]) == 0
    assert main(["store", "thaw", "@state"]) == 2
    assert "two stores are used as one" in capsys.readouterr().err
    assert main(["store", "thaw", "@state", "--force"]) == 0


def test_a_move_killed_in_the_middle_is_asked_again(folder: Path, capsys: Said) -> None:
    with store(f"sqlite:///{folder}/a.db") as old, Lock(old, "x", owner="somebody"):
        words = [sys.executable, "-m", "atoll", "store", "move", "@state", "@new"]
        child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert child.stderr and "waiting for 1 to finish: lock x (somebody)" in child.stderr.readline()
        child.kill()
        child.wait()
        old.transact(put("k/00", b"0"))
    assert main(["store", "move", "@state", "@new"]) == 0
    assert "goes on, or was killed just now" in capsys.readouterr().err
    assert contents(folder / "b.db") == contents(folder / "a.db")


KILLS = [
    "a:fault_kill=after-freeze:1",
    "b:fault_kill=before-transact~k/",
    "b:fault_kill=after-transact~k/",
    "b:fault_kill=before-bump",
    "b:fault_kill=after-bump",
    "b:fault_kill=before-transact~atoll/moved",
    "b:fault_kill=after-transact~atoll/moved",
    "a:fault_kill=before-freeze:2",
]


@pytest.mark.parametrize("where", KILLS)
def test_a_move_killed_anywhere_goes_on_and_nothing_is_lost(
    where: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_FAULTS", "1")
    side, _, point = where.partition(":")
    urls = [f"faulty+sqlite:///{one}.db?{point}" if one == side else f"sqlite:///{one}.db" for one in "ab"]
    with store(f"sqlite:///{folder}/a.db") as old, Lock(old, "x") as held:
        before = held.token
    child = subprocess.run([sys.executable, "-m", "atoll", "store", "move", *urls], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    with store(f"sqlite:///{folder}/a.db") as old, pytest.raises(ReadOnly, match="moved to"):
        old.transact(put("k", b"late"))
    assert main(["store", "move", "sqlite:///a.db", "sqlite:///b.db"]) == 0
    assert contents(folder / "b.db") == contents(folder / "a.db")
    with store(f"sqlite:///{folder}/b.db") as new, Lock(new, "x") as held:
        assert held.token > before and held.token.epoch > before.epoch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_move_that_is_stopped_gives_the_old_store_back(folder: Path, number: signal.Signals) -> None:
    with store(f"sqlite:///{folder}/a.db") as old, Lock(old, "x", owner="somebody"):
        words = [sys.executable, "-m", "atoll", "store", "move", "@state", "@new"]
        child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert child.stderr and "waiting" in child.stderr.readline()
        child.send_signal(number)
        assert child.wait(20) == 128 + number
        old.transact(put("k", b"goes on"))


def test_bump_rises_and_says_so(folder: Path, capsys: Said) -> None:
    assert main(["store", "bump", "@state"]) == 0
    assert "is at epoch 2" in capsys.readouterr().out
    assert main(["store", "bump", "@state", "--above", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"epoch": 8}


def test_backup_and_restore(folder: Path, capsys: Said) -> None:
    assert main(["store", "backup", "@state", "a.bak"]) == 0
    assert "20 entries of" in capsys.readouterr().out
    assert os.stat("a.bak").st_mode & 0o777 == 0o600
    assert main(["store", "restore", "@new", "a.bak"]) == 0
    assert "now at epoch 2" in capsys.readouterr().out
    assert contents(folder / "b.db") == contents(folder / "a.db")
    assert main(["store", "backup", "@state", "a.bak"]) == 2
    assert "there already" in capsys.readouterr().err


def test_a_restore_of_a_spoiled_file_makes_nothing(folder: Path, capsys: Said) -> None:
    assert main(["store", "backup", "@state", "a.bak"]) == 0
    Path("a.bak").write_bytes(Path("a.bak").read_bytes().replace(b"k/07", b"k/08"))
    assert main(["store", "restore", "@new", "a.bak"]) == 2
    assert "not as it was written" in capsys.readouterr().err
    assert not (folder / "b.db").exists()
    assert main(["store", "restore", "@new", "none.bak"]) == 3


def test_check(folder: Path, capsys: Said) -> None:
    assert main(["store", "check", "@state"]) == 0
    assert "20 entries read, 0 of them under leases" in capsys.readouterr().out
    assert main(["store", "check", "@state", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []


def test_check_of_a_damaged_file_is_1(folder: Path, capsys: Said) -> None:
    import apsw

    connection = apsw.Connection(str(folder / "a.db"))
    connection.execute("UPDATE atoll_entry SET revision = 99 WHERE key = 'k/01'")
    connection.close()
    assert main(["store", "check", "@state"]) == 1
    assert "'k/01'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["copy", "@state"], 2, "expected 2: atoll store copy URL URL2"),
        (["bump", "@state", "@new"], 2, "expected 1"),
        (["move", "@state", "@state"], 2, "are one store; expected two"),
        (["move", "@state", "@new", "--wait", "-1"], 2, "--wait -1"),
        (["check", "sqlite:///none.db"], 3, "found no file"),
        (["copy", "sqlite:///none.db", "@new"], 3, "found no file"),
    ],
)
def test_wrong_words(words: list[str], code: int, sentence: str, folder: Path, capsys: Said) -> None:
    assert main(["store", *words]) == code
    assert sentence in capsys.readouterr().err
    assert not (folder / "none.db").exists() and not (folder / "b.db").exists()


def test_a_password_in_the_words_is_accepted_with_a_warning(capsys: Said) -> None:
    assert main(["store", "check", "redis://u:pa55@127.0.0.1:1/0"]) != 0
    said = capsys.readouterr()
    assert "@state" in said.err and "export ATOLL_STATE='redis://u:***@127.0.0.1:1/0'" in said.err
    assert "pa55" not in said.err + said.out
