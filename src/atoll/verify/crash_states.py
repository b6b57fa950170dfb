"""Crash states: cuts the power at every moment of a recorded run, and looks at what is found.

Kill -9 proves little about disks: the kernel still writes what it was given. Here the film of a run is
stopped at many frames; every folder that the disk might hold there is built, opened with the engine, and
held against what had been answered by then.

Source: as disk_trace. Departure: states are sampled by a seed where there are too many; equal ones are
opened once.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.verify.disk_trace import Disk, FolderForced, Forced, Marked, State, Step, cut
from atoll.verify.judgement import Answer

Survey = Callable[[Path], Awaitable[Any]]
"""Open the folder with the engine and say what is there; an exception is a finding too."""
Verdict = Callable[[Any, Sequence[str]], list[str]]
"""What is wrong with that, by the marks made before the cut."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A state that breaks a promise: where, which, what is wrong, and the last steps before the cut."""

    frame: int
    how: str
    problem: str
    before: tuple[str, ...]

    def __str__(self) -> str:
        return f"cut after step {self.frame}, {self.how}: {self.problem}"


@dataclass(slots=True)
class CrashReport:
    """What a run of crash states saw."""

    frames: int = 0
    states: int = 0
    opened: int = 0
    acknowledged: int = 0
    forced: int = 0
    seed: int = 0
    losses: list[Loss] = field(default_factory=list)
    broken_states: int = 0

    @property
    def answer(self) -> Answer:
        """Held or broken; not known where nothing was answered or all states were one."""
        if self.broken_states:
            return Answer.NO
        return Answer.YES if self.acknowledged and self.opened > 1 else Answer.NOT_KNOWN

    def figures(self) -> str:
        """One line for people."""
        lost = f"{self.broken_states} bad of " if self.broken_states else ""
        return (
            f"{lost}{self.states:,} states at {self.frames:,} moments, {self.opened:,} different opened, "
            f"{self.acknowledged:,} answers, {self.forced:,} forced writes"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much to look at. `frames_max` moments, `samples` random states at each, `opened_max` folders."""

    frames_max: int = 120
    samples: int = 3
    opened_max: int = 1500
    losses_max: int = 10


async def explore(
    steps: Sequence[Step],
    survey: Survey,
    verdict: Verdict,
    *,
    seed: int = 0,
    bounds: Bounds | None = None,
    before: dict[str, bytes] | None = None,
) -> CrashReport:
    """Cut the power along `steps`; `before` is what the folder held at first, all of it forced.

    Each state is built in a scratch folder of its own, and removed again.
    """
    bounds = bounds or Bounds()
    dice = random.Random(seed)
    report = CrashReport(seed=seed, forced=sum(isinstance(s, Forced) for s in steps))
    report.acknowledged = sum(isinstance(s, Marked) and s.text.startswith("acked ") for s in steps)
    known: dict[bytes, Any] = {}
    with tempfile.TemporaryDirectory(prefix="atoll-crash-", dir=_scratch()) as scratch:
        for frame, disk, marks in _frames(steps, before, dice, bounds.frames_max):
            report.frames += 1
            for state in cut(disk, dice, bounds.samples):
                report.states += 1
                digest = state.digest()
                if digest not in known:
                    if len(known) >= bounds.opened_max:
                        continue
                    known[digest] = await _look(state, Path(scratch) / str(len(known)), survey)
                problems = _problems(known[digest], marks, verdict)
                if problems:
                    report.broken_states += 1
                    if len(report.losses) < bounds.losses_max:
                        last = tuple(_short(step) for step in steps[max(0, frame - 12) : frame])
                        report.losses.append(Loss(frame, state.how, "; ".join(problems[:3]), last))
    report.opened = len(known)
    return report


def _scratch() -> str | None:
    """Memory where there is some: these folders need not survive anything."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _frames(
    steps: Sequence[Step], before: dict[str, bytes] | None, dice: random.Random, most: int
) -> Iterator[tuple[int, Disk, list[str]]]:
    """The moments worth a cut: before each force, after each answer, and some in between."""
    places = [n + 1 for n, step in enumerate(steps) if isinstance(step, Marked)]
    places += [n for n, step in enumerate(steps) if isinstance(step, Forced | FolderForced)]
    chosen = set(places if len(places) <= most else dice.sample(places, most))
    chosen |= set(dice.sample(range(1, len(steps) + 1), min(len(steps), most // 4)))
    disk, marks = Disk(before), []
    for number, step in enumerate(steps, 1):
        disk.take(step)
        if isinstance(step, Marked):
            marks.append(step.text)
        if number in chosen:
            yield number, disk, marks


async def _look(state: State, folder: Path, survey: Survey) -> Any:
    _make(state, folder)
    try:
        return await survey(folder)
    except Exception as error:
        return error
    finally:
        shutil.rmtree(folder)


def _make(state: State, folder: Path) -> None:
    folder.mkdir()
    state.build(folder)


def _problems(found: Any, marks: Sequence[str], verdict: Verdict) -> list[str]:
    if isinstance(found, Exception):
        return [f"it does not open: {type(found).__name__}: {found}"]
    return verdict(found, marks)


def _short(step: Step) -> str:
    text = str(step)
    return text if len(text) <= 100 else text[:100] + "..."
