"""Acts: everything that is tried on servers that verify started itself.

A test programme for a new bridge. First the ordinary weather for every workload, then the special days that
need a set-up of their own: the power cut, the full disk, the clock that jumps, the promoted copy.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll import urls
from atoll.errors import AtollError, ConfigurationError, MissingExtra
from atoll.ports.store import Durable
from atoll.verify import failover, lock_history, namespaces, revisions, special_stages, troupe
from atoll.verify.accidents import Fate
from atoll.verify.history import History, Type
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.performance import Piece, perform
from atoll.verify.scenario import Claim, Hardship, Line, Workload
from atoll.verify.server_faults import Weather
from atoll.verify.staging import Stage, Start, staged
from atoll.verify.workloads import WORKLOADS

if TYPE_CHECKING:
    from atoll.verify.run import Report, Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A special day. `missing`: why it cannot be had here, empty where it can."""

    name: str
    workload: Workload
    hardship: Hardship
    claim: Claim
    stage: Callable[[Start, Path], AbstractAsyncContextManager[Stage]]
    fate: Callable[[Stage], Fate]
    missing: Callable[[Start], str]
    promised: Callable[[Any], bool] = lambda claims: True
    once: bool = False
    """It can happen once in a run only."""


def _never_early(history: History, claims: Any) -> Judgement:
    """Judged as if it claimed it; whether it does decides between broken and not promised."""
    return revisions.judge(history, claims=dataclasses.replace(claims, never_early=True))


def _going_back(history: History, claims: Any) -> Judgement:
    """A failover forgets the last revisions and gives them again."""
    judgement = lock_history.judge(history, goes_back=True)
    epochs = {c.answer.epoch for c in history.calls if c.f == "acquired" and c.type is Type.OK}
    if judgement.answer is Answer.YES and len(epochs) < 2:
        judgement.answer, judgement.note = Answer.NOT_KNOWN, "nobody held it on both sides of the failover"
    return judgement


def _acts() -> list[Act]:
    return [
        Act(
            name="partition",
            workload=WORKLOADS["register"],
            hardship=Hardship.NAMESPACE,
            claim=Claim("one order through partitions", "Dropped packets never make two truths."),
            stage=namespaces.namespaced,
            fate=namespaces.drop_packets,
            missing=namespaces.no_namespaces,
        ),
        Act(
            name="clock",
            workload=dataclasses.replace(WORKLOADS["leases"], judge=_never_early),
            hardship=Hardship.CLOCK,
            claim=Claim(
                "leases outlive a clock step", "A server's wall clock that jumps ends no lease early."
            ),
            stage=special_stages.clocked,
            fate=special_stages.step_clock,
            missing=special_stages.no_wall_clock,
            promised=lambda claims: bool(claims.never_early),
        ),
        Act(
            name="failover",
            workload=WORKLOADS["set"],
            hardship=Hardship.FAILOVER,
            claim=Claim("kept by failover to a lagging replica", "What was acknowledged is on the replica."),
            stage=failover.replicated,
            fate=failover.fail_over,
            missing=failover.no_replica,
            promised=lambda claims: claims.durable is Durable.QUORUM and not claims.forgets_at_failover,
            once=True,
        ),
        Act(
            name="failover",
            workload=dataclasses.replace(WORKLOADS["lock"], judge=_going_back),
            hardship=Hardship.FAILOVER,
            claim=Claim(
                "no stale write after a failover",
                "What a failover forgets costs no token: the epoch rises before anybody may hold again.",
            ),
            stage=failover.replicated,
            fate=failover.fail_over_and_bump,
            missing=failover.no_replica,
            once=True,
        ),
        *_disk_acts(),
    ]


def _disk_acts() -> list[Act]:
    from atoll.verify.run import POWER

    return [
        Act(
            name="full",
            workload=WORKLOADS["set"],
            hardship=Hardship.FULL_DISK,
            claim=Claim("kept by a full disk", "What was acknowledged is there; what was refused is not."),
            stage=special_stages.narrow,
            fate=special_stages.fill_up,
            missing=special_stages.no_tmpfs,
        ),
        Act(
            name="power",
            workload=WORKLOADS["set"],
            hardship=Hardship.POWER_CUT,
            claim=POWER,
            stage=special_stages.forgetting,
            fate=special_stages.cut_power,
            missing=special_stages.no_forgetting_disk,
            promised=lambda claims: claims.durable is not Durable.NONE,
        ),
    ]


async def play(wish: Wish, report: Report, folder: Path, progress: troupe.Progress) -> None:
    """Everything that was asked for, on servers of our own."""
    start = Start.read(wish.start)
    acts = _acts()
    from atoll.verify.run import ACTS, NAMES

    asked = tuple(dict.fromkeys((*NAMES, *ACTS))) if wish.workloads == NAMES else wish.workloads
    plain = [name for name in asked if name in WORKLOADS]
    if plain:
        await _ordinary(wish, start, plain, report, folder, progress=progress)
    for act in (act for name in asked for act in acts if act.name == name):
        report.lines += await _special(wish, start, act, report, folder, progress=progress)


async def _ordinary(
    wish: Wish, start: Start, names: list[str], report: Report, folder: Path, *, progress: troupe.Progress
) -> None:
    home = _home(folder, "ordinary")
    async with staged(start, home) as stage:
        await _introduce(stage, report)
        weather = Weather(stage).fates() if wish.faults else {}
        scheme = stage.url.partition("://")[0]
        for name in names:
            workload = WORKLOADS[name]
            if workload.port not in urls.ENGINES.get(scheme, {}):
                if wish.workloads == (name,):
                    why = f"({scheme}:// is no {workload.port})"
                    report.lines.append(Line(workload.claim, name, None, why))
                continue
            progress(f"{name}: on {start}")
            piece = _piece(wish, workload, stage, folder, weather)
            report.take(await perform(piece, partial(_named, progress, name)))


def _named(progress: troupe.Progress, name: str, text: str) -> None:
    progress(f"{name}: {text}")


def _piece(
    wish: Wish, workload: Workload, stage: Stage, folder: Path, weather: dict[Hardship, Fate]
) -> Piece:
    return Piece(
        workload=workload,
        url=stage.url,
        straight=stage.straight,
        seed=wish.seed,
        seconds=wish.seconds,
        folder=folder,
        faults=wish.faults,
        weather=weather,
        within=tuple(stage.within),
    )


def _home(folder: Path, name: str) -> Path:
    home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    for path in (folder, home):
        path.chmod(0o755)  # some servers run under an account of their own
    return home


async def _introduce(stage: Stage, report: Report) -> None:
    """What the server says of itself."""
    async with urls.store(stage.straight) as store:
        claims = await store.open()
        report.facts["claims"] = {f.name: _word(getattr(claims, f.name)) for f in dataclasses.fields(claims)}
        if store.examining is not None:
            report.preflight = list(await store.examining.examine())


def _word(value: Any) -> Any:
    return getattr(value, "value", value)


async def _special(
    wish: Wish, start: Start, act: Act, report: Report, folder: Path, *, progress: troupe.Progress
) -> list[Line]:
    if not wish.faults:
        return [Line(act.claim, act.name, None, "(not asked)")]
    if why := act.missing(start):
        return [Line(act.claim, act.name, None, f"({why})")]
    progress(f"{act.name}: on {start}")
    home = _home(folder, act.name)
    try:
        async with act.stage(start, home) as stage:
            fate = act.fate(stage)
            piece = dataclasses.replace(
                _piece(wish, act.workload, stage, folder, {act.hardship: _once(fate) if act.once else fate}),
                claim=act.claim,
                alone=True,
                promised=act.promised,
            )
            performed = await perform(piece, partial(_named, progress, act.name))
    except (MissingExtra, ConfigurationError):
        raise
    except (AtollError, OSError) as error:
        return [
            Line(
                act.claim,
                act.name,
                None,
                f"(could not be played: {(str(error) or repr(error)).splitlines()[0]:.200})",
            )
        ]
    for line in performed.lines:
        line.workload = act.name
    if performed.history is not None:
        report.histories.setdefault(act.name, performed.history)
    return performed.lines


def _once(fate: Fate) -> Fate:
    happened = False

    async def first(dice: Any, ttl_s: float) -> Any:
        nonlocal happened
        if happened:
            return []
        happened = True
        return await fate(dice, ttl_s)

    return first
