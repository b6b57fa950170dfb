"""Troupe: starts the processes of a scenario, kills some, stops some, and counts what that did.

A stage manager with a list of accidents. An accident counts only if somebody was in the middle of a
sentence: a kill while nothing was in flight, a pause that no lease noticed, prove nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from atoll import clock
from atoll.errors import AtollError
from atoll.ports.broker import Settled
from atoll.verify import leash
from atoll.verify.history import History, Type, load
from atoll.verify.scenario import Bite, Hardship, Scenario
from atoll.verify.worker import Part

GRACE_S = 20.0
START_S = 0.8
Progress = Callable[[str], None]


class WorkerFailed(AtollError):
    """A worker process ended by itself with an error; what it said is in the message."""


@dataclass(slots=True)
class Accident:
    """A kill or a pause: of which process, when by the lease clock, for how long."""

    hardship: Hardship
    process: str
    at: float
    seconds: float = 0.0


@dataclass(slots=True)
class Troupe:
    """The processes of one scenario. `folder` takes their histories."""

    scenario: Scenario
    part: Part
    folder: Path
    accidents: list[Accident] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    scripts: dict[str, Path] = field(default_factory=dict)
    lives: int = 0

    async def play(self, progress: Progress) -> History:
        """The whole piece: start, accidents, end, and a last look. Answers the history of all."""
        dice = random.Random(self.scenario.seed)
        steady, fragile = self._cast()
        try:
            names = (*steady, *fragile)
            await asyncio.gather(*(self._start(name) for name in names))
            await asyncio.gather(*(self._first_line(name) for name in names))
            await self._accidents(fragile, dice, progress)
            await self._ended()
            if self.scenario.workload.finish is not None:
                self.part = replace(
                    self.part, finishing=True, loss=0.0, clients=1, until=clock.lease_now() + 15
                )
                await self._start("last")
                await self._ended()
        finally:
            for process in self.running.values():
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return load(self.paths)

    def _cast(self) -> tuple[list[str], list[str]]:
        hard = self.scenario.hardships
        fragile = [name for name, h in (("k", Hardship.KILL), ("s", Hardship.PAUSE)) if h in hard]
        return ["a"] if fragile else ["a", "b"], fragile

    async def _start(self, name: str) -> None:
        self.lives += 1
        path = self.folder / f"{self.scenario.workload.name}-{name}-{self.lives}.jsonl"
        part = replace(
            self.part,
            process=f"{name}{self.lives}",
            path=str(path),
            seed=self.scenario.seed * 1000 + self.lives,
        )
        self.running[name] = await asyncio.create_subprocess_exec(
            *part.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=leash.environment(),
        )
        self.paths.append(path)
        self.scripts[name] = path

    async def _first_line(self, name: str) -> None:
        """Wait until it has begun to write: an accident before that hits nothing."""
        for _ in range(round(GRACE_S / 0.01)):
            if _begun(self.scripts[name]) or self.running[name].returncode is not None:
                return
            await asyncio.sleep(0.01)

    async def _accidents(self, fragile: list[str], dice: random.Random, progress: Progress) -> None:
        turn = 0
        while fragile and self.part.until - clock.lease_now() > START_S:
            await asyncio.sleep(dice.uniform(0.1, 0.3))
            name = fragile[turn % len(fragile)]
            turn += 1
            if not _begun(self.scripts[name]):
                continue
            if name == "k":
                await self._kill(name)
            else:
                await self._pause(name)
            progress(f"{len(self.accidents)} accidents")
        while clock.lease_now() < self.part.until:
            progress(f"{len(self.accidents)} accidents")
            await asyncio.sleep(min(0.5, max(0.0, self.part.until - clock.lease_now())))

    async def _kill(self, name: str) -> None:
        process = self.running[name]
        if process.returncode is None:
            self.accidents.append(Accident(Hardship.KILL, f"{name}{self._life(name)}", clock.lease_now()))
            process.kill()
            await process.wait()
        if self.part.until - clock.lease_now() > START_S:
            await self._start(name)

    async def _pause(self, name: str) -> None:
        process, seconds = self.running[name], self.part.ttl_s * 1.4
        for _ in range(500):
            if process.returncode is not None or clock.lease_now() > self.part.until:
                return
            if self.scenario.workload.name != "lock" or _holding(self.scripts[name]):
                break
            await asyncio.sleep(0.002)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            self.accidents.append(
                Accident(Hardship.PAUSE, f"{name}{self._life(name)}", clock.lease_now(), seconds)
            )
            await asyncio.sleep(seconds)
        finally:
            os.kill(process.pid, signal.SIGCONT)

    def _life(self, name: str) -> int:
        return int(self.scripts[name].stem.rpartition("-")[2])

    async def _ended(self) -> None:
        for name, process in list(self.running.items()):
            try:
                async with asyncio.timeout(GRACE_S):
                    _, said = await process.communicate()
            except TimeoutError:
                process.kill()
                raise WorkerFailed(
                    f"worker {name} did not end within {GRACE_S} s of its time and was killed."
                ) from None
            if process.returncode not in (0, -signal.SIGKILL):
                last = said.decode(errors="replace").strip().splitlines()[-1:]
                raise WorkerFailed(f"worker {name} ended with {process.returncode}: {''.join(last)}")
            del self.running[name]


def _begun(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 100


def _holding(path: Path) -> bool:
    """Whether the last thing it wrote down was said as a holder: a pause then is the one that matters."""
    with open(path, "rb") as script:
        script.seek(max(0, path.stat().st_size - 400))
        return b'"f": "guarded"' in script.read().rstrip(b"\n").rpartition(b"\n")[2]


def bites(history: History, accidents: list[Accident], asked: tuple[Hardship, ...]) -> list[Bite]:
    """What each hardship is proved by, in the history itself."""
    lost = [c for c in history.calls if c.type is Type.INFO and c.error == "OutcomeUnknown"]
    killed = {a.process for a in accidents if a.hardship is Hardship.KILL}
    in_flight = {c.process.partition(".")[0] for c in history.calls if c.ended is None} & killed
    pauses = [a for a in accidents if a.hardship is Hardship.PAUSE]
    noticed = [a for a in pauses if _noticed(history, a)]
    found = {
        Hardship.PROCESSES: (_together(history), "processes at once"),
        Hardship.KILL: (len(in_flight), f"kills of {len(killed)} with calls in flight"),
        Hardship.PAUSE: (len(noticed), f"pauses of {len(pauses)} past a lease with work in hand"),
        Hardship.REPLY_LOST: (len(lost), "requests or answers lost"),
    }
    return [Bite(hardship, *found[hardship]) for hardship in asked if hardship in found]


def _noticed(history: History, accident: Accident) -> bool:
    """Something of the stopped process was begun before the pause and ended after it, or was refused then."""
    end = accident.at + accident.seconds
    mine = (c for c in history.calls if c.process.partition(".")[0] == accident.process)
    return any(
        (c.began_at < accident.at and c.ended_at > end and c.f not in ("acquired", "take"))
        or (end - 0.05 <= c.ended_at < end + 0.5 and c.error in ("Refused", "LeaseOver"))
        or (
            c.f == "acknowledge" and end - 0.05 <= c.ended_at < end + 0.5 and Settled.LATE in (c.answer or ())
        )
        for c in mine
    )


def _together(history: History) -> int:
    """How many processes had a call open while another process had one."""
    latest: tuple[float, str] = (0.0, "")
    found: set[str] = set()
    for call in history.calls:
        process = call.process.partition(".")[0]
        if process != latest[1] and call.began_at < latest[0]:
            found |= {process, latest[1]}
        if call.ended is not None and call.ended_at > latest[0]:
            latest = (call.ended_at, process)
    return len(found)
