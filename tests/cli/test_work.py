"""A8: `atoll work MODULE[:queue]`: real processes, SIGTERM drain, kill -9, health port, wrong words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.verify.servers.process import free_port

MODULE = '''
"""What a team's module looks like."""
import asyncio, os
from pathlib import Path
import atoll
from atoll import Queue

HERE = Path(__file__).parent
broker = atoll.broker(f"sqlite:///{HERE}/queue.db")
jobs = Queue(broker, "jobs", int)
others = Queue(broker, "others", int)
silent = Queue(broker, "silent", int)

def note(name, n):
    with open(HERE / name, "a") as file:
        file.write(f"{n} {os.getpid()}\\n")

@jobs.worker(concurrency=2, recovery_s=1)
async def do(n, delivery):
    note("begun", n)
    await asyncio.sleep(SLEEP)
    note("done", n)

@others.worker()
async def other(n, delivery):
    note("others", n)
'''


@pytest.fixture
def team(tmp_path: Path) -> Path:
    (tmp_path / "team.py").write_text(MODULE.replace("SLEEP", "0.2"))
    return tmp_path


def put(folder: Path, name: str, numbers: list[int]) -> None:
    import atoll
    from atoll import Queue

    async def go() -> None:
        broker = atoll.broker(f"sqlite:///{folder}/queue.db")
        await Queue(broker, name, int).put_many(numbers)
        await broker.close()

    asyncio.run(go())


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    due = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < due, "did not come"
        time.sleep(0.02)


@contextlib.contextmanager
def work(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "atoll", "work", *words]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_runs_every_worker_of_the_module_and_drains_on_sigterm(team: Path) -> None:
    put(team, "jobs", [1, 2, 3, 4, 5, 6])
    put(team, "others", [7])
    with work(team, "team") as process:
        until(lambda: len(lines(team / "begun")) >= 4 and lines(team / "others"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    begun, done = ({line[0] for line in lines(team / name)} for name in ("begun", "done"))
    assert begun == done, "what was begun before SIGTERM was finished"


def test_one_queue_can_be_named(team: Path) -> None:
    put(team, "jobs", [1])
    put(team, "others", [7])
    with work(team, "team:jobs"):
        until(lambda: lines(team / "done"))
    assert not lines(team / "others")


def test_several_processes_share_and_a_killed_one_is_replaced(team: Path) -> None:
    put(team, "jobs", list(range(30)))
    with work(team, "team", "--processes", "2") as process:
        until(lambda: len({pid for _, pid in lines(team / "begun")}) == 2)
        victim = int(lines(team / "begun")[-1][1])
        os.kill(victim, signal.SIGKILL)
        until(lambda: {n for n, _ in lines(team / "done")} == {str(n) for n in range(30)})
        until(lambda: len({pid for _, pid in lines(team / "begun")}) >= 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_no_worker_outlives_a_killed_parent(team: Path) -> None:
    put(team, "jobs", list(range(4)))
    with work(team, "team", "--processes", "2") as process:
        until(lambda: len({pid for _, pid in lines(team / "begun")}) == 2)
        pids = {int(pid) for _, pid in lines(team / "begun")}
        process.kill()
        until(lambda: not any(alive(pid) for pid in pids))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_the_health_port_answers_probes_and_garbage(team: Path) -> None:
    port = free_port()
    with work(team, "team", "--health-port", str(port)) as process:
        until(lambda: ask(port, "/ready") == 200)
        assert ask(port, "/live") == 200
        assert ask(port, "/secret") == 404
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"\x00" * 20_000 + b"\r\n")
        assert ask(port, "/ready") == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def ask(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["nowhere"], "there is no module nowhere", 2),
        (["team:nothing"], "declares no queue nothing with a worker; it declares jobs, others", 2),
        (["json"], "declares nothing to run", 2),
        (["team", "--processes", "0"], "found 0; expected 1 or more", 2),
    ],
)
def test_wrong_words_are_answered_with_a_sentence(team: Path, words: list[str], says: str, code: int) -> None:
    command = [sys.executable, "-m", "atoll", "work", *words]
    done = subprocess.run(command, cwd=team, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr


def test_a_busy_health_port_is_named(team: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "atoll", "work", "team", "--health-port", str(port)]
        done = subprocess.run(command, cwd=team, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and str(port) in done.stderr and "--health-port" in done.stderr
