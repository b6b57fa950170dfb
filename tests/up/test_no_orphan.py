"""B6, no orphan: whatever is killed, nothing that was started by it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from up_process import Up, alive

FAMILY = """
import os, subprocess, sys, time
names = ["child", "fled"]
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"])
    subprocess.Popen([sys.executable, __file__, "fled"], start_new_session=True)
else:
    with open(sys.argv[1] + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1] + ".pid")
time.sleep(600)
"""


def family(up: Up) -> list[int]:
    """A service, its child, and its child in a session of its own."""
    up.program("family.py", FAMILY)
    up.manifest('[services.family]\ncommand = ["python", "family.py"]\n').start().ready("family")
    files = [up.folder / "child.pid", up.folder / "fled.pid"]
    up.until(lambda: all(map(Path.is_file, files)), "the children have begun")
    pids = [up.instance("family-0")["pid"], *(int(file.read_text()) for file in files)]
    up.seen |= set(pids)
    assert all(map(alive, pids))
    return pids


def guardian(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_kill_9_of_up_leaves_no_process(up: Up) -> None:
    pids = family(up)
    pids.append(guardian(pids[0]))
    assert up.process is not None
    os.kill(up.process.pid, signal.SIGKILL)
    up.until(lambda: not any(map(alive, pids)), "nothing is left")
    again = Up(up.folder).start()
    again.until(lambda: "is starting" in again.output, "the folder can be taken again")
    again.ready("family")
    assert again.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_a_service_is_the_end_of_its_children(number: int, up: Up) -> None:
    pids = family(up)
    os.kill(pids[0], number)
    up.until(lambda: not any(map(alive, pids)), "nothing of the first life is left")
    up.until(lambda: up.instance("family-0")["restarts"] == 1, "a new life has begun")
    up.ready("family")


def test_kill_9_of_the_guardian_takes_the_service_along_and_a_new_one_is_started(up: Up) -> None:
    pids = family(up)
    os.kill(guardian(pids[0]), signal.SIGKILL)
    up.until(lambda: not any(map(alive, pids[:2])), "the service is gone")
    up.until(lambda: up.instance("family-0")["restarts"] == 1, "it is noticed")
    up.ready("family")
    os.kill(pids[2], signal.SIGKILL)


def test_stopping_leaves_no_process(up: Up) -> None:
    pids = family(up)
    assert up.stop() == 0
    assert not any(map(alive, pids))


def test_without_a_guardian_the_same_family_stays_so_the_test_bites(up: Up) -> None:
    (up.folder / "up.log").touch()
    up.program("family.py", FAMILY)
    naive = "import subprocess, sys, time; subprocess.Popen([sys.executable, 'family.py']); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", naive], cwd=up.folder)
    files = [up.folder / "child.pid", up.folder / "fled.pid"]
    up.until(lambda: all(map(Path.is_file, files)), "the children have begun")
    pids = [int(file.read_text()) for file in files]
    service = guardian(pids[0])
    parent.kill()
    parent.wait()
    stayed = [pid for pid in (service, *pids) if alive(pid)]
    for pid in stayed:
        os.kill(pid, signal.SIGKILL)
    assert len(stayed) == 3
