"""B6, bad luck at the start: a second up, a busy port, a missing command: a sentence and a code."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
from up_process import SHOP, Up, alive


def test_a_second_up_on_the_folder_is_told_the_pid_of_the_first(shop: Up) -> None:
    second = shop.run("up", ".")
    assert second.returncode == 3
    assert shop.process is not None
    assert f"(pid {shop.process.pid})" in second.stderr and "already runs in" in second.stderr
    assert shop.service("api")["state"] == "ready"


@pytest.mark.parametrize("door", ["gateway", "admin"])
def test_a_busy_port_is_named_with_who_has_it_and_nothing_is_started(door: str, up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        text = (
            SHOP.replace("port = 0", f"port = {port}")
            if door == "gateway"
            else f"{SHOP}[admin]\nport = {port}\n"
        )
        code = up.manifest(text).start().end()
    assert code == 3
    assert f"[{door}]: port {port} is taken by" in up.output and f"(pid {os.getpid()})" in up.output
    assert not (up.folder / ".atoll" / "logs").exists()


def test_a_missing_command_is_named_with_its_line_and_nothing_is_started(up: Up) -> None:
    up.manifest(
        SHOP + '[services.x]\ncommand = ["no-such-program"]\n[services.y]\ncommand = ["./nor-this"]\n'
    )
    assert up.start().end() == 2
    assert "atoll.toml:14: found the command 'no-such-program', which is not there" in up.output
    assert "atoll.toml:16: found the command './nor-this'" in up.output
    assert not (up.folder / ".atoll").exists()
    assert up.run("up", "--check").returncode == 2


def test_a_faulty_manifest_is_exit_2_with_every_fault(up: Up) -> None:
    up.manifest("[services.x]\ncommand = 'x'\ninstances = -1\n")
    assert up.start().end() == 2
    assert "has 2 faults; nothing was started" in up.output
    machine = up.run("up", "--json")
    assert machine.returncode == 2 and '"error": "ManifestFaults"' in machine.stdout


def test_a_good_manifest_can_be_checked_without_starting_it(up: Up) -> None:
    checked = up.manifest(SHOP).run("up", "--check")
    assert (checked.returncode, checked.stdout.strip()) == (0, f"{up.folder}/atoll.toml is right: 1 services")


def test_a_missing_library_of_the_extra_names_the_line_to_type(up: Up) -> None:
    up.manifest(SHOP)
    hide = "import sys\nsys.modules['uvicorn'] = None\n"
    code = f"{hide}from atoll.cli.main import main\nsys.exit(main(['up', '.']))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=up.folder, timeout=30
    )
    assert answer.returncode == 2, answer.stderr
    assert 'pip install "atoll[up]"' in answer.stderr


def test_a_folder_that_may_not_be_written_is_said_so(up: Up) -> None:
    up.manifest(SHOP)
    (up.folder / ".atoll").write_text("a file where the folder should be")
    assert up.start().end() == 3
    assert ".atoll" in up.output and "Traceback" not in up.output


def test_an_up_whose_folder_is_removed_stops_itself(up: Up) -> None:
    up.manifest(SHOP).start().ready("api")
    pids = [one["pid"] for one in up.service("api")["instances"]]
    shutil.rmtree(up.folder / ".atoll")
    assert up.end() == 1, up.output
    assert ".atoll was removed under this `up`, stopping" in up.output and "Traceback" not in up.output
    assert not any(map(alive, pids))
