"""Bad luck: Ctrl-C, SIGTERM, a kill -9, a closed terminal. Nothing that was started goes on or is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from command import clean

WAIT_S = 60.0

SHOP = """
import atoll
from atoll import Delivery, Queue
jobs = Queue(atoll.broker("sqlite:///q.db"), "jobs", str)
@jobs.worker(recovery_s=5)
async def body(message: str, delivery: Delivery) -> None: ...
"""
VERBS: dict[str, list[str]] = {
    "demo lock": ["demo", "lock", "--faults", "500"],
    "demo queue": ["demo", "queue", "--faults", "100"],
    "verify": ["verify", "sqlite:///v.db", "--workload", "transact", "--seconds", "60"],
    "work": ["work", "shop", "--processes", "2"],
}


class Running:
    """A verb in a session of its own, with its own folder for temporary files."""

    def __init__(self, folder: Path, words: list[str], before: Callable[[], None] | None = None) -> None:
        (folder / "shop.py").write_text(SHOP)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atoll", *words],
            stdout=self._log, stderr=subprocess.STDOUT, cwd=folder, preexec_fn=before,
            env={**clean(), "TMPDIR": str(self.temporary)}, start_new_session=True,
        )  # fmt: skip
        self.folder = folder

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def children(self) -> set[int]:
        """Every living process that was begun in this test's folder, but for the verb itself."""
        found = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                environ = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"TMPDIR={self.temporary}".encode() in environ.split(b"\0") and state not in "ZX":
                found.add(int(entry.name))
        return found

    def until(self, true: Callable[[], object], what: str) -> None:
        due = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < due, f"waited {WAIT_S} s until {what}\n{self.said}"
            time.sleep(0.05)

    def clear(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()
        for pid in self.children():
            with suppress(ProcessLookupError):  # it has ended by itself just now
                os.kill(pid, signal.SIGKILL)


AT_WORK: dict[str, Callable[[Running], bool]] = {
    "demo lock": lambda one: any(one.temporary.glob("*/state.db-wal")) or any(one.temporary.glob("*/holder")),
    "demo queue": lambda one: any(one.temporary.glob("*/work.db-wal")) and len(one.children()) >= 4,
    "verify": lambda one: any(path.stat().st_size > 5000 for path in one.temporary.rglob("*.jsonl")),
    "work": lambda one: one.said.count("working on") == 2,
}
MOMENTS = [f"{verb}, {when}" for verb in VERBS for when in ("just begun", "at work")]


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A verb with its processes: just begun, or in the middle of their work."""
    verb, _, when = request.param.partition(", ")
    one = Running(tmp_path, VERBS[verb])
    one.until(lambda: len(one.children()) >= 2, "its processes have begun")
    if when == "at work":
        one.until(lambda: AT_WORK[verb](one), "they are at work")
    yield one
    one.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("running", MOMENTS, indirect=True)
def test_a_verb_that_is_stopped_takes_its_processes_and_its_files_along(
    running: Running, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    drains = "[work," in request.node.name
    running.process.send_signal(number)
    code = running.process.wait(WAIT_S)
    assert code == (0 if drains else 128 + number), running.said
    running.until(lambda: not running.children(), "its processes have ended")
    assert list(running.temporary.iterdir()) == []
    assert "Traceback" not in running.said, running.said


@pytest.mark.parametrize("running", MOMENTS, indirect=True)
def test_a_verb_that_is_killed_leaves_no_process(running: Running) -> None:
    running.process.kill()
    running.process.wait()
    running.until(lambda: not running.children(), "its processes have ended")


def test_begun_in_the_background_of_a_script_it_still_hears_sigterm(tmp_path: Path) -> None:
    one = Running(tmp_path, VERBS["demo queue"], before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    try:
        one.until(lambda: len(one.children()) >= 2, "its processes have begun")
        one.process.terminate()
        assert one.process.wait(WAIT_S) == 128 + signal.SIGTERM
        one.until(lambda: not one.children(), "its processes have ended")
        assert list(one.temporary.iterdir()) == []
    finally:
        one.clear()


@pytest.mark.parametrize("words", [["--help"], ["verify", "--help"], ["locks", "memory://", "--json"], []])
def test_a_reader_that_leaves_early_meets_no_traceback(words: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "atoll", *words],
        stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, timeout=WAIT_S, env=clean(), text=True,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""
    quiet = 0 if words[-1:] == ["--help"] else None  # argparse says nothing of it, in some editions
    assert done.returncode in (128 + signal.SIGPIPE, quiet)


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_a_command_without_an_output_still_answers(closed: str, tmp_path: Path) -> None:
    words = " ".join(f"{number}>&-" for number in closed.split())
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m atoll locks memory:// {words}'],
        capture_output=True, cwd=tmp_path, timeout=WAIT_S, env=clean(), text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
