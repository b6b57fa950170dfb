"""Run: a URL or servers to start, the workloads asked for, and what came of them.

The kitchen for the recipe cards. On somebody's own place it is a careful guest; on servers that it started
itself it breaks whatever can be broken.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import clock, urls
from atoll.errors import ConfigurationError
from atoll.ports.examining import Finding
from atoll.ports.store import Durable
from atoll.verify import crash_subjects, troupe
from atoll.verify.crash_states import Bounds, CrashReport
from atoll.verify.history import History
from atoll.verify.judgement import Answer
from atoll.verify.performance import Performed, Piece, perform
from atoll.verify.scenario import Bite, Claim, Hardship, Line
from atoll.verify.workloads import WORKLOADS

POWER = Claim(
    "durable after power loss", "What was answered is there after a power cut at any moment, and whole."
)
CRASH = "power"
NAMES = (*WORKLOADS, CRASH)
ACTS = ("partition", "clock", "failover", "full", CRASH)
"""Further words of `--workload`: set-ups that only servers started by verify can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a run is asked for: a place by `url`, or servers to `start`. Empty `workloads`: all there are.

    `seconds` for each workload; `faults` False leaves out kills and pauses; `yes`: go beyond loopback.
    """

    url: str = ""
    start: str = ""
    workloads: tuple[str, ...] = NAMES
    seconds: float = 10.0
    seed: int = 0
    faults: bool = True
    yes: bool = False
    rate: float = 0.0
    bytes_max: int = 0

    @property
    def place(self) -> str:
        """What is verified, as a person wrote it."""
        return f"--start {shlex.quote(self.start)}" if self.start else self.url

    @property
    def engine(self) -> str:
        """The column of the table it belongs to."""
        return self.start or self.url.removeprefix(urls.FAULTY).partition("://")[0]


@dataclass(slots=True)
class Report:
    """What came of a run. `preflight`: what was found before it began; `facts`: versions and claims."""

    wish: Wish
    lines: list[Line] = field(default_factory=list)
    histories: dict[str, History] = field(default_factory=dict)
    crashes: list[CrashReport] = field(default_factory=list)
    began: float = 0.0
    seconds: float = 0.0
    preflight: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def exit_code(self) -> int:
        """0 all held, 1 one broken, 4 something not known or nothing tested."""
        answers = [line.answer for line in self.lines if line.promised or line.answer is not Answer.NO]
        if Answer.NO in answers:
            return 1
        return 0 if Answer.YES in answers and Answer.NOT_KNOWN not in answers else 4

    def again(self) -> str:
        """The command that repeats the run."""
        wish = self.wish
        words = "" if wish.workloads == NAMES else "".join(f" --workload {name}" for name in wish.workloads)
        words += "" if wish.faults else " --no-faults"
        words += " --yes" if wish.yes else ""
        words += f" --rate {wish.rate:g}" if wish.rate else ""
        words += f" --mb {wish.bytes_max / 1_000_000:g}" if wish.bytes_max else ""
        place = str(urls.parse(wish.url)) if "@" in wish.url else wish.place
        return f"atoll verify {place}{words} --seconds {wish.seconds:g} --seed {wish.seed}"

    def take(self, performed: Performed) -> None:
        """Add what came of one piece."""
        self.lines += performed.lines
        if performed.history is not None and performed.lines:
            self.histories.setdefault(performed.lines[0].workload, performed.history)


def checked(wish: Wish) -> None:
    """Refuse words that nobody knows, before anything is opened."""
    known = (*WORKLOADS, *ACTS)
    unknown = [name for name in wish.workloads if name not in known]
    if unknown:
        raise ConfigurationError(f"found the workload {unknown[0]!r}; expected one of {', '.join(known)}.")


async def run(
    wish: Wish,
    progress: troupe.Progress = lambda text: None,
    first: Callable[[Sequence[Finding]], None] = lambda findings: None,
) -> Report:
    """Play every workload that was asked for. Raises what opening the place raises.

    `first` is told what a server of yours says of its own settings, before anything is done there.
    """
    checked(wish)
    report = Report(wish, began=clock.wall_now())
    started = clock.loop_now()
    with tempfile.TemporaryDirectory(prefix="atoll-verify-", ignore_cleanup_errors=True) as folder:
        if wish.start:
            from atoll.verify import acts

            await acts.play(wish, report, Path(folder), progress)
        else:
            await _on_a_place(wish, report, Path(folder), progress, first)
    report.seconds = clock.loop_now() - started
    return report


async def _on_a_place(
    wish: Wish,
    report: Report,
    folder: Path,
    progress: troupe.Progress,
    first: Callable[[Sequence[Finding]], None],
) -> None:
    from atoll.verify import guest

    scheme = urls.parse(wish.url.removeprefix(urls.FAULTY)).scheme
    async with guest.visit(wish, report, first) as visit:
        for name in wish.workloads:
            say = lambda text, name=name: progress(f"{name}: {text}")
            if name == CRASH:
                report.lines.append(await _power(wish, scheme, report, say))
            elif name in ACTS:
                claim = Claim(name, "Only on servers that verify started itself.")
                report.lines.append(Line(claim, name, None, "(only with --start: it hurts the servers)"))
            elif WORKLOADS[name].port not in urls.ENGINES.get(scheme, {}) and visit.network:
                claim = WORKLOADS[name].claim
                report.lines.append(Line(claim, name, None, f"({scheme}:// is no {WORKLOADS[name].port})"))
            else:
                piece = Piece(
                    workload=WORKLOADS[name],
                    url=visit.url,
                    straight=wish.url,
                    seed=wish.seed,
                    seconds=wish.seconds,
                    folder=folder,
                    faults=wish.faults,
                    local=scheme == "memory",
                    weather=visit.weather() if wish.faults else {},
                    guest=visit.bounds(name),
                    prefix=visit.prefix(name),
                )
                report.take(await perform(piece, say))


async def _power(wish: Wish, scheme: str, report: Report, progress: troupe.Progress) -> Line:
    """Crash states, on scratch files beside the user's own."""
    if scheme != "sqlite":
        why = (
            f"({scheme}:// claims {Durable.NONE.value}: nothing to test)"
            if scheme == "memory"
            else "(only with --start: the power of a server of yours is not ours to cut)"
        )
        return Line(POWER, CRASH, None, why)
    path = Path(urls.parse(wish.url.removeprefix(urls.FAULTY)).path)
    beside = path.parent if path.parent.is_dir() else None
    if beside is None or not os.access(beside, os.W_OK):
        return Line(POWER, CRASH, None, f"({path.parent} may not be written)")
    started = clock.loop_now()
    bounds = Bounds(frames_max=max(10, min(400, int(wish.seconds * 12))))
    for subject in (crash_subjects.store_crashes, crash_subjects.broker_crashes):
        progress(f"{subject.__name__.partition('_')[0]}, {bounds.frames_max} moments")
        scratch = Path(tempfile.mkdtemp(prefix=".atoll-verify-", dir=beside))
        try:
            report.crashes.append(await subject(scratch, seed=wish.seed, bounds=bounds))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    seen = [crash.answer for crash in report.crashes]
    answer = (
        Answer.NO if Answer.NO in seen else (Answer.NOT_KNOWN if Answer.NOT_KNOWN in seen else Answer.YES)
    )
    opened = sum(crash.opened for crash in report.crashes)
    bad = sum(crash.broken_states for crash in report.crashes)
    total = sum(crash.states for crash in report.crashes)
    line = Line(POWER, CRASH, answer, f"{bad} bad of {total:,} states after a cut, {opened:,} opened")
    line.bites = [Bite(Hardship.POWER_CUT, sum(c.forced for c in report.crashes), "forced writes cut around")]
    line.seconds = clock.loop_now() - started
    return line
