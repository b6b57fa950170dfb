"""A6: the power is cut at every moment of a recorded run; durable engines survive, others are caught."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from atoll.verify import strace_recorder
from atoll.verify.crash_states import Bounds, CrashReport, explore
from atoll.verify.crash_subjects import broker_crashes, numbers, store_crashes, store_survey, store_verdict
from atoll.verify.disk_trace import (
    Created,
    Disk,
    FolderForced,
    FolderMade,
    Forced,
    Linked,
    Marked,
    Renamed,
    Step,
    Truncated,
    Unlinked,
    Wrote,
    cut,
)
from atoll.verify.judgement import Answer
from atoll.verify.vfs_recorder import Film, filming


async def test_the_sqlite_store_keeps_its_word_through_every_power_cut(tmp_path: Path) -> None:
    report = await store_crashes(tmp_path, seed=3, bounds=Bounds(frames_max=60))
    assert report.answer is Answer.YES, "\n".join(map(str, report.losses))
    assert report.opened > 50
    assert report.acknowledged == 30


async def test_the_sqlite_broker_keeps_its_word_through_every_power_cut(tmp_path: Path) -> None:
    report = await broker_crashes(tmp_path, seed=3, bounds=Bounds(frames_max=60))
    assert report.answer is Answer.YES, "\n".join(map(str, report.losses))
    assert report.opened > 50


async def survey(folder: Path) -> dict[str, bytes]:
    """What a plain SQLite file holds, in the words of `store_verdict`."""
    path = folder / "plain.db"
    if not path.exists():
        return {}
    connection = apsw.Connection(str(path))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 't'").fetchall():
            return {}
        return dict(connection.execute("SELECT k, v FROM t").fetchall())
    finally:
        connection.close()


def plain(folder: Path, synchronous: str, journal: str) -> Film:
    """Film a plain SQLite file: each commit is answered as soon as it returns."""
    with filming(folder) as (film, vfs):
        connection = apsw.Connection(str(folder / "plain.db"), vfs=vfs)
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("CREATE TABLE t(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
        for n in range(10):
            film.mark(f"asked {n}")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES(?, ?)", (f"a/{n}", (b"%d" % n) * 400))
            connection.execute("INSERT INTO t VALUES(?, ?)", (f"b/{n}", b"%d" % n))
            connection.execute("COMMIT")
            film.mark(f"acked {n}")
        connection.close()
        return film


@pytest.mark.parametrize(
    ("synchronous", "journal", "answer"),
    [
        ("FULL", "WAL", Answer.YES),
        ("EXTRA", "DELETE", Answer.YES),
        ("NORMAL", "WAL", Answer.NO),
        ("OFF", "WAL", Answer.NO),
        ("OFF", "DELETE", Answer.NO),
    ],
)
async def test_sqlite_itself_is_judged_by_its_settings(
    tmp_path: Path, synchronous: str, journal: str, answer: Answer
) -> None:
    film = plain(tmp_path, synchronous, journal)
    report = await explore(film.steps, survey, store_verdict, seed=5, bounds=Bounds(frames_max=60))
    assert report.answer is answer, "\n".join(map(str, report.losses))
    if answer is Answer.NO:
        assert any("lost" in loss.problem or "open" in loss.problem for loss in report.losses)
        assert all(loss.before for loss in report.losses)


# A log of our own making, told as the steps it takes: the classic mistakes, one at a time.


def log(*, force: bool = True, folder: bool = True) -> list[Step]:
    """An append-only log, a line a write."""
    steps: list[Step] = [Created("log")]
    if folder:
        steps.append(FolderForced("."))
    for n in range(6):
        line = b"%d\n" % n
        steps += [Marked(f"asked {n}"), Wrote("log", 2 * n, line)]
        steps += [Forced("log")] if force else []
        steps.append(Marked(f"acked {n}"))
    return steps


def replaced(*, force: bool = True, folder: bool = True) -> list[Step]:
    """A file replaced as a whole: written beside it, then renamed over it."""
    steps: list[Step] = [Created("log"), Wrote("log", 0, b""), FolderForced(".")]
    content = b""
    for n in range(6):
        content += b"%d\n" % n
        steps += [Marked(f"asked {n}"), Created("log.new"), Wrote("log.new", 0, content)]
        steps += [Forced("log.new")] if force else []
        steps.append(Renamed("log.new", "log"))
        steps += [FolderForced(".")] if folder else []
        steps.append(Marked(f"acked {n}"))
    return steps


async def lines(folder: Path) -> set[int]:
    """A reader that stops at a torn line."""
    content = (folder / "log").read_bytes() if (folder / "log").exists() else b""
    return {int(line) for line in content.split(b"\n")[:-1] if line}


FIELDS = 400


async def careful(folder: Path) -> set[int]:
    """A reader of long lines that stops at the first one that is not whole."""
    content = (folder / "log").read_bytes() if (folder / "log").exists() else b""
    found: set[int] = set()
    for line in content.split(b"\n")[:-1]:
        fields = line.split(b",")
        if len(fields) != FIELDS or len(set(fields)) != 1:
            break
        found.add(int(fields[0]))
    return found


async def trusting(folder: Path) -> set[int]:
    """A reader that counts a torn line as a whole one."""
    content = (folder / "log").read_bytes() if (folder / "log").exists() else b""
    return {int(line.split(b",")[-1].strip(b"\0") or 0) for line in content.split(b"\n") if line}


def log_verdict(found: set[int], marks: Sequence[str]) -> list[str]:
    problems = [f"line {n} was answered and is lost" for n in sorted(numbers(marks, "acked") - found)]
    return problems + [f"{n} was never written" for n in sorted(found - numbers(marks, "asked"))]


def long_lines() -> list[Step]:
    """Lines longer than a sector, so that a tail can be torn; forced and answered after each."""
    steps: list[Step] = [Created("log"), FolderForced(".")]
    at = 0
    for n in range(11, 15):
        line = b",".join([b"%d" % n] * FIELDS) + b"\n"
        steps += [Marked(f"asked {n}"), Wrote("log", at, line), Forced("log"), Marked(f"acked {n}")]
        at += len(line)
    return steps


@pytest.mark.parametrize(
    ("steps", "reader", "answer"),
    [
        (log(), lines, Answer.YES),
        (log(force=False), lines, Answer.NO),
        (log(folder=False), lines, Answer.NO),
        (replaced(), lines, Answer.YES),
        (replaced(force=False), lines, Answer.NO),
        (replaced(folder=False), lines, Answer.NO),
        (long_lines(), careful, Answer.YES),
        (long_lines(), trusting, Answer.NO),
    ],
    ids=[
        *("log", "log never forced", "log whose folder is not forced"),
        *("replaced", "renamed before it was forced", "rename whose folder is not forced"),
        *("torn tail cut off", "torn tail believed"),
    ],
)
async def test_the_classic_mistakes_are_caught(steps: list[Step], reader: Any, answer: Answer) -> None:
    report = await explore(steps, reader, log_verdict, seed=1)
    assert report.answer is answer, "\n".join(map(str, report.losses))


async def test_a_run_that_answered_nothing_proves_nothing() -> None:
    steps: list[Step] = [Created("log"), Marked("asked 1"), Wrote("log", 0, b"1\n")]
    report: CrashReport = await explore(steps, lines, log_verdict)
    assert report.answer is Answer.NOT_KNOWN


def test_the_same_seed_builds_the_same_states() -> None:
    def states(seed: int) -> list[tuple[str, bytes]]:
        disk = Disk({"old": b"x" * 3000})
        for step in [
            Wrote("old", 0, b"a" * 2000),
            Created("new"),
            Wrote("new", 0, b"b" * 900),
            Truncated("old", 100),
        ]:
            disk.take(step)
        return [(state.how, state.digest()) for state in cut(disk, random.Random(seed), 4)]

    assert states(1) == states(1)
    assert states(1) != states(2)


SCRIPT = """
import os, sys
folder, marks = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
forced = sys.argv[3] == "forced"
log = os.open(folder + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.mkdir(folder + "/inner")
if forced:
    there = os.open(folder, os.O_RDONLY); os.fsync(there); os.close(there)
for n in range(5):
    os.write(marks, b"asked %d\\n" % n)
    os.write(log, b"%d\\n" % n)
    os.fsync(log) if forced else None
    os.write(marks, b"acked %d\\n" % n)
other = os.open(folder + "/inner/x", os.O_WRONLY | os.O_CREAT)
os.pwrite(other, b"abc", 5); os.ftruncate(other, 6)
os.rename(folder + "/inner/x", folder + "/inner/y"); os.link(folder + "/inner/y", folder + "/z")
os.unlink(folder + "/inner/y")
"""


@pytest.mark.skipif(not strace_recorder.available(), reason="no strace here: apt-get install strace")
@pytest.mark.parametrize("forced", ["forced", "hoped"])
async def test_any_program_can_be_filmed_from_outside(tmp_path: Path, forced: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "marks"), forced]
    steps = strace_recorder.record(command, folder, tmp_path / "marks")
    assert Created("log") in steps
    assert Wrote("log", 2, b"1\n") in steps
    assert Marked("acked 4") in steps
    tail: list[Step] = [Wrote("inner/x", 5, b"abc"), Truncated("inner/x", 6), Renamed("inner/x", "inner/y")]
    assert steps[-5:] == [*tail, Linked("inner/y", "z"), Unlinked("inner/y")]
    assert FolderMade("inner") in steps
    report = await explore(steps, lines, log_verdict)
    assert report.answer is (Answer.YES if forced == "forced" else Answer.NO), report.losses


@pytest.mark.skipif(not strace_recorder.available(), reason="no strace here: apt-get install strace")
async def test_the_film_from_outside_agrees_with_the_film_from_inside(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    script = (
        "import asyncio, os, sys\n"
        "from atoll.verify import crash_subjects\n"
        "class Film:\n"
        "    def mark(self, text): os.write(marks, text.encode() + b'\\n')\n"
        "marks = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "asyncio.run(crash_subjects.work(f'sqlite:///{sys.argv[1]}/crash.db', Film(), rounds=1, writes=8))\n"
    )
    steps = strace_recorder.record(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "marks")], folder, tmp_path / "marks"
    )
    assert any(isinstance(step, Forced) and step.path.endswith("-wal") for step in steps)
    report = await explore(steps, store_survey, store_verdict, bounds=Bounds(frames_max=30, opened_max=200))
    assert report.answer is Answer.YES, "\n".join(map(str, report.losses))
    assert report.acknowledged == 6
    assert os.listdir(folder)
