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
from functools import partial
from pathlib import Path

from atoll import clock
from atoll.errors import AtollError
from atoll.verify.accidents import Accident, Fate
from atoll.verify.curtain import Curtain
from atoll.verify.history import History, load
from atoll.verify.scenario import Hardship, Scenario
from atoll.verify.worker import REFUSED, Part

GRACE_S = 30.0
LAST_LOOK_S = 20.0
PATIENCE_S = 120.0
"""How much longer than asked for a piece may take at most, on a busy machine."""
START_S = 0.8
Progress = Callable[[str], None]


class WorkerFailed(AtollError):
    """A worker process ended by itself with an error; what it said is in the message."""


class PlaceRefused(AtollError):
    """The recipe that was to be played refused the place as too weak; the message is its own."""


@dataclass(slots=True)
class Troupe:
    """The processes of one scenario. `folder` takes their histories; `weather` is what befalls servers."""

    scenario: Scenario
    part: Part
    folder: Path
    weather: list[Fate] = field(default_factory=list)
    accidents: list[Accident] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    scripts: dict[str, Path] = field(default_factory=dict)
    lives: int = 0
    ends: float = 0.0
    """When the piece ends, by the lease clock; it lasts from when all have begun."""

    async def play(self, progress: Progress) -> History:
        """The whole piece: start, accidents, end, and a last look. Answers the history of all."""
        dice = random.Random(self.scenario.seed)
        steady, fragile = self._cast()
        try:
            names = (*steady, *fragile)
            curtain = Curtain(self.folder / "curtain")
            self.part = replace(
                self.part,
                curtain=str(curtain.path),
                until=clock.lease_now() + self.scenario.seconds + PATIENCE_S,
            )
            await asyncio.gather(*(self._start(name) for name in names))
            await asyncio.gather(*(self._first_line(name) for name in names))
            self.ends = clock.lease_now() + self.scenario.seconds
            await self._accidents(fragile, dice, progress)
            curtain.fall()
            await self._ended()
            if self.scenario.workload.finish is not None:
                self.part = replace(
                    self.part,
                    finishing=True,
                    loss=0.0,
                    clients=1,
                    until=clock.lease_now() + LAST_LOOK_S,
                    curtain="",
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
            env=part.environment(),
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
        """One after the other, each once in a round, each round in another order."""
        fates: list[Fate] = [partial(self._befalls, name) for name in fragile]
        round_: list[Fate] = []
        rounds = 0
        while fates or self.weather:
            if not round_:
                if self._late() and rounds >= self.scenario.rounds:
                    break
                rounds += 1
                round_ = [*fates, *self.weather]
                if self.weather:
                    dice.shuffle(round_)
            elif self._late() and rounds > self.scenario.rounds:
                break
            await asyncio.sleep(dice.uniform(0.1, 0.3))
            self.accidents += await round_.pop(0)(dice, self.part.ttl_s)
            progress(f"{len(self.accidents)} accidents")
        while clock.lease_now() < self.ends:
            progress(f"{len(self.accidents)} accidents")
            await asyncio.sleep(min(0.5, max(0.0, self.ends - clock.lease_now())))

    def _late(self) -> bool:
        return self.ends - clock.lease_now() <= START_S

    async def _befalls(self, name: str, dice: random.Random, ttl_s: float) -> list[Accident]:
        """What happens to a fragile process: a kill or a pause, once it has begun."""
        if not _begun(self.scripts[name]):
            return []
        before = len(self.accidents)
        await (self._kill(name) if name == "k" else self._pause(name))
        mine, self.accidents[before:] = self.accidents[before:], []
        return mine

    async def _kill(self, name: str) -> None:
        process = self.running[name]
        if process.returncode is None:
            self.accidents.append(Accident(Hardship.KILL, f"{name}{self._life(name)}", clock.lease_now()))
            process.kill()
            await process.wait()
        if self.ends - clock.lease_now() > START_S:
            await self._start(name)

    async def _pause(self, name: str) -> None:
        process, seconds = self.running[name], self.part.ttl_s * 1.4
        for _ in range(500):
            if process.returncode is not None or clock.lease_now() > self.ends:
                return
            if self.scenario.workload.name not in ("lock", "election") or _holding(self.scripts[name]):
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
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            if process.returncode == REFUSED:
                raise PlaceRefused("".join(last))
            if process.returncode not in (0, -signal.SIGKILL):
                text = said.decode(errors="replace")
                raise WorkerFailed(
                    f"worker {name} ended with {process.returncode}: {''.join(last)} {_place(text)}"
                )
            del self.running[name]


def _place(traceback: str) -> str:
    """Where in our own code it was: the last of its lines in a traceback."""
    lines = [line.strip() for line in traceback.splitlines() if 'File "' in line and "atoll" in line]
    return f"({lines[-1]})" if lines else ""


def _begun(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 100


def _holding(path: Path) -> bool:
    """Whether the last thing it wrote down was said as a holder: a pause then is the one that matters."""
    with open(path, "rb") as script:
        script.seek(max(0, path.stat().st_size - 400))
        return b'"f": "guarded"' in script.read().rstrip(b"\n").rpartition(b"\n")[2]
