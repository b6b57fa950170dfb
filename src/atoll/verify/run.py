"""Run: a URL, the workloads asked for, and what came of them.

The kitchen for the recipe cards. It opens the place once to hear what it claims, plays each workload
with its hardships, has the history judged, and leaves the place as it was found.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import clock, urls
from atoll.errors import AtollError, ConfigurationError
from atoll.ports.store import Durable, delete
from atoll.verify import crash_subjects, troupe
from atoll.verify.crash_states import Bounds, CrashReport
from atoll.verify.history import History
from atoll.verify.judgement import Answer, Judgement, Violation
from atoll.verify.scenario import Bite, Claim, Hardship, Line, Scenario, Workload
from atoll.verify.worker import Part, play
from atoll.verify.workloads import WORKLOADS

POWER = Claim(
    "durable after power loss", "What was answered is there after a power cut at any moment, and whole."
)
CRASH = "power"
NAMES = (*WORKLOADS, CRASH)
TTL_S = 0.6
START_S = 1.0
"""What processes need before their first call, on top of the seconds asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a run is asked for. `seconds` for each workload; `faults` False leaves out kills and pauses."""

    url: str
    workloads: tuple[str, ...] = NAMES
    seconds: float = 10.0
    seed: int = 0
    faults: bool = True


@dataclass(slots=True)
class Report:
    """What came of a run."""

    wish: Wish
    lines: list[Line] = field(default_factory=list)
    histories: dict[str, History] = field(default_factory=dict)
    crashes: list[CrashReport] = field(default_factory=list)
    began: float = 0.0
    seconds: float = 0.0

    def exit_code(self) -> int:
        """0 all held, 1 one broken, 4 something not known or nothing tested."""
        answers = [line.answer for line in self.lines]
        if Answer.NO in answers:
            return 1
        return 0 if Answer.YES in answers and Answer.NOT_KNOWN not in answers else 4

    def again(self) -> str:
        """The command that repeats the run."""
        wish = self.wish
        words = "" if wish.workloads == NAMES else "".join(f" --workload {name}" for name in wish.workloads)
        faults = "" if wish.faults else " --no-faults"
        return f"atoll verify {wish.url}{words} --seconds {wish.seconds:g}{faults} --seed {wish.seed}"


async def run(wish: Wish, progress: troupe.Progress = lambda text: None) -> Report:
    """Play every workload that was asked for. Raises what opening the place raises."""
    unknown = [name for name in wish.workloads if name not in NAMES]
    if unknown:
        raise ConfigurationError(f"found the workload {unknown[0]!r}; expected one of {', '.join(NAMES)}.")
    scheme = urls.parse(wish.url.removeprefix(urls.FAULTY)).scheme
    report = Report(wish, began=clock.wall_now())
    started = clock.loop_now()
    with tempfile.TemporaryDirectory(prefix="atoll-verify-") as folder:
        for name in wish.workloads:
            say = lambda text, name=name: progress(f"{name}: {text}")
            if name == CRASH:
                report.lines.append(await _power(wish, scheme, report, say))
            else:
                report.lines += await _workload(
                    wish, scheme, WORKLOADS[name], Path(folder), report, progress=say
                )
    report.seconds = clock.loop_now() - started
    return report


async def _workload(
    wish: Wish, scheme: str, workload: Workload, folder: Path, report: Report, *, progress: troupe.Progress
) -> list[Line]:
    local = scheme == "memory"
    hardships = tuple(h for h in workload.hardships if _possible(h, local=local, faults=wish.faults))
    scenario = Scenario(workload, hardships, wish.seconds, wish.seed)
    prefix = f"atoll-verify/{wish.seed}-{clock.unique_id()[:8]}/{workload.name}/"
    part = Part(
        url=wish.url,
        workload=workload.name,
        process="a",
        prefix=prefix,
        seed=wish.seed,
        until=clock.lease_now() + wish.seconds + (0.0 if local else START_S),
        ttl_s=TTL_S,
        clients=3,
        path="",
        loss=0.02 if Hardship.REPLY_LOST in hardships else 0.0,
    )
    started = clock.loop_now()
    handle: Any = urls.store(wish.url) if workload.port == "store" else urls.broker(wish.url)
    accidents: list[troupe.Accident] = []
    async with _tidy(handle, workload, prefix):
        claims = await handle.open()
        try:
            if local:
                history = await _here(part, scenario, handle, progress)
            else:
                stage = troupe.Troupe(scenario, part, folder)
                accidents = stage.accidents
                history = await stage.play(progress)
        except troupe.WorkerFailed as error:
            broken = Judgement(Answer.NOT_KNOWN, note=str(error))
            return [Line(workload.claim, workload.name, Answer.NOT_KNOWN, str(error), broken)]
        progress("judging")
        judgement = await asyncio.to_thread(workload.judge, history, claims)
    report.histories[workload.name] = history
    found = troupe.bites(
        history, accidents, tuple(h for h in hardships if not (local and h is Hardship.PROCESSES))
    )
    lines = _lines(workload, judgement, found, local=local, faults=wish.faults)
    for line in lines:
        line.seconds = clock.loop_now() - started
    return lines


def _possible(hardship: Hardship, *, local: bool, faults: bool) -> bool:
    if hardship in (Hardship.KILL, Hardship.PAUSE):
        return faults and not local
    return faults or hardship is Hardship.PROCESSES


async def _here(part: Part, scenario: Scenario, handle: Any, progress: troupe.Progress) -> History:
    """In this process: what lives in memory has no other."""
    book = History()
    progress("in this process")
    await play(part, book, handle)
    if scenario.workload.finish is not None:
        from dataclasses import replace

        await play(
            replace(part, finishing=True, loss=0.0, clients=1, until=clock.lease_now() + 10), book, handle
        )
    return book


@asynccontextmanager
async def _tidy(handle: Any, workload: Workload, prefix: str) -> AsyncIterator[None]:
    """Leave the place as it was: every key of ours is removed, whatever happened."""
    try:
        yield
    finally:
        with suppress(AtollError):
            if workload.port == "store":
                for ours in (prefix, f"lock/{_quoted(prefix)}"):
                    while (found := await handle.range(ours, limit=50)).entries:
                        await handle.transact(*(delete(entry.key) for entry in found.entries))
        await handle.close()


def _quoted(prefix: str) -> str:
    from urllib.parse import quote

    return quote(prefix, safe="")


def _lines(
    workload: Workload, judgement: Judgement, found: list[Bite], *, local: bool, faults: bool
) -> list[Line]:
    missing = [f"{b.hardship.value} (0 {b.seen_by})" for b in found if not b.times]
    if local:
        outside = ", ".join(h.value for h in workload.hardships if h in _OUTSIDE)
        missing += [f"{outside} (memory lives in one process)"] if outside else []
    elif not faults:
        unasked = ", ".join(h.value for h in workload.hardships if h is not Hardship.PROCESSES)
        missing += [f"{unasked} (not asked)"] if unasked else []
    answer = judgement.answer
    if answer is Answer.YES and not faults_bit(found) and not local and faults:
        answer, judgement.note = Answer.NOT_KNOWN, "no fault bit"
    line = Line(
        workload.claim, workload.name, answer, _figures(workload, judgement), judgement, found, missing
    )
    if workload.name != "lock":
        return [line]
    counts = judgement.counts
    rising = [v for v in judgement.violations if v.rule != "stale write accepted"]
    stale = [v for v in judgement.violations if v.rule == "stale write accepted"]
    tokens = Line(
        Claim("tokens only rise", "A later holder's token is greater, and nobody else has it."),
        workload.name,
        Answer.NO if rising else (Answer.YES if answer is Answer.NO else answer),
        f"{counts['acquisitions']:,} acquisitions",
        _part(judgement, rising),
    )
    if answer is Answer.NO and not stale:
        line.answer = Answer.YES
    line.judgement = _part(judgement, stale)
    return [line, tokens]


_OUTSIDE = (Hardship.PROCESSES, Hardship.KILL, Hardship.PAUSE)


def faults_bit(found: list[Bite]) -> bool:
    """Whether any hardship beyond plain company bit."""
    return any(bite.times for bite in found if bite.hardship is not Hardship.PROCESSES)


def _part(judgement: Judgement, violations: list[Violation]) -> Judgement:
    return Judgement(Answer.NO if violations else Answer.YES, violations, judgement.counts, judgement.note)


def _figures(workload: Workload, judgement: Judgement) -> str:
    counts = judgement.counts
    match workload.name:
        case "lock":
            return (
                f"{counts['stale accepted']} of {counts['guarded writes']:,}, {counts['refused']:,} refused"
            )
        case "queue":
            return (
                f"{counts.get('lost', 0)} lost of {counts.get('put', 0):,}, "
                f"{counts.get('more than once', 0)} delivered again, {counts.get('late', 0)} late refused"
            )
        case "leases":
            return f"{counts['leases ended']:,} ends seen, {counts['reads']:,} reads"
    bad = f"{counts['violations']} wrong of " if counts["violations"] else ""
    return (
        f"{bad}{counts['writes']:,} writes, {counts['reads']:,} reads, {counts['without answer']} unanswered"
    )


async def _power(wish: Wish, scheme: str, report: Report, progress: troupe.Progress) -> Line:
    """Crash states, on scratch files beside the user's own."""
    if scheme != "sqlite":
        return Line(POWER, CRASH, None, f"({scheme}:// claims {Durable.NONE.value}: nothing to test)")
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
