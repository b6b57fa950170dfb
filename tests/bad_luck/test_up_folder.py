"""Bad luck around `atoll up`: what an earlier life or a hand left in its folder, and the verbs beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import atoll as command
from command import clean

sys.path.insert(0, str(Path(__file__).parent.parent / "up"))
from up_process import SHOP, Up, alive, stop_all

ONE = SHOP.replace("instances = 3", "instances = 1\nstop_grace_s = 2")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    one = Up(tmp_path)
    yield one
    stop_all(one)


def test_litter_of_an_earlier_life_is_swept_away(up: Up) -> None:
    folder = up.folder / ".atoll"
    folder.mkdir()
    (folder / "up.json").write_bytes(b"\xff\x00 not json")
    (folder / "up.lock").write_text("999999999\n")
    (folder / "up.new").write_text("{")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "up.sock"))
    up.manifest(ONE)
    for verb in ("status", "restart"):
        done = command(verb, *(["api"] if verb == "restart" else []), folder=up.folder)
        assert done.returncode == 3 and "found no running `atoll up`" in done.stderr
    (folder / "up.json").unlink()
    up.start().ready("api")
    assert command("status", folder=up.folder).returncode == 0
    assert up.stop(signal.SIGINT) == 0
    assert not (folder / "up.json").exists() and not (folder / "up.sock").exists()


def test_a_corrupt_card_stops_nobody(up: Up) -> None:
    folder = up.folder / ".atoll"
    folder.mkdir()
    (folder / "up.json").write_bytes(b"\xff\x00 not json")
    up.manifest(ONE).start()
    up.until(lambda: "is starting" in up.output, "it has begun")
    up.ready("api")
    json.loads((folder / "up.json").read_text())
    assert up.stop() == 0


def test_what_is_no_file_in_the_folder_is_a_sentence(up: Up) -> None:
    (up.folder / ".atoll" / "up.sock").mkdir(parents=True)
    up.manifest(ONE)
    assert up.start().end() in (2, 3)
    assert "atoll: " in up.output and "up.sock" in up.output and "Traceback" not in up.output


def test_a_service_that_crashes_for_ever_is_given_up_with_a_sentence_and_exit_1(up: Up) -> None:
    up.program("bad.py", "import sys; sys.exit('no database here')")
    up.manifest(
        '[services.bad]\ncommand = ["python", "bad.py"]\nrestarts = { most = 1, within_s = 60 }\n'
    ).start()
    up.until(lambda: bool(up.service("bad")["gave_up"]), "it was given up")
    done = command("status", folder=up.folder)
    assert done.returncode == 1 and "bad-0 gave up; see: atoll logs bad" in done.stdout
    assert "no database here" in command("logs", "bad", folder=up.folder).stdout
    assert up.stop() == 1
    assert "Traceback" not in up.output


def test_ctrl_c_before_the_services_are_ready_leaves_none(up: Up) -> None:
    up.program("slow.py", "import time; open('begun', 'w').close(); time.sleep(600)")
    up.manifest(
        '[services.slow]\ncommand = ["python", "slow.py"]\nready = "/ready"\nstop_grace_s = 2\n'
    ).start()
    up.until(lambda: (up.folder / "begun").exists(), "it has begun")
    pid = up.instance("slow-0")["pid"]
    assert up.stop(signal.SIGINT) == 0
    assert not alive(pid) and "Traceback" not in up.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_first_moment_ends_it_without_a_traceback(number: signal.Signals, up: Up) -> None:
    for wait_s in (0.05, 0.15, 0.3):
        up.manifest(ONE).start()
        time.sleep(wait_s)  # whatever it does then
        code = up.stop(number)
        assert code in (0, -number, 128 + number), up.output
        assert "Traceback" not in up.output or wait_s < 0.1, up.output


def test_a_questioner_that_talks_garbage_or_leaves_harms_nobody(up: Up) -> None:
    up.manifest(ONE).start().ready("api")
    path = str(up.folder / ".atoll" / "up.sock")
    for line in (
        b"",
        b"\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b'{"ask": "dance"}\n',
        b"{" * 100_000,
        b"[" * 200_000 + b"\n",
    ):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(path if len(path) < 100 else os.path.relpath(path))
            try:
                asking.sendall(line)
                asking.shutdown(socket.SHUT_WR)
                asking.recv(65536)
            except OSError:
                pass
    assert command("status", folder=up.folder).returncode == 0
    assert up.stop() == 0
    assert "Traceback" not in up.output, up.output


def test_status_through_a_reader_that_leaves_early(up: Up) -> None:
    up.manifest(ONE).start().ready("api")
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m atoll status | head -1; exit ${{PIPESTATUS[1]}}'],
        cwd=up.folder, env=clean(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "shop" in done.stdout and done.stderr == ""
    assert up.stop() == 0


@pytest.mark.parametrize("content", [b"\x00garbage" * 700, None], ids=["garbage", "a folder"])
def test_verify_says_what_it_cannot_open(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.mkdir() if content is None else path.write_bytes(content)
    done = command("verify", "sqlite:///x.db", "--workload", "transact", "--seconds", "1", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("atoll: found")
    assert not list(tmp_path.glob("*.html"))


def test_verify_says_before_it_begins_that_its_page_cannot_be_written(tmp_path: Path) -> None:
    words = ["--workload", "transact", "--seconds", "1", "--no-faults", "--report", "no/such/page.html"]
    done = command("verify", "memory://", *words, folder=tmp_path)
    assert done.returncode == 2 and "found no folder no/such" in done.stderr
