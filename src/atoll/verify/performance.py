"""Performance: one workload played on one place, judged, and the place left as it was found.

An evening at the theatre: the house is opened, the troupe plays, the critics write, the stage is swept.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atoll import clock, urls
from atoll.errors import AtollError, ConfigurationError
from atoll.ports.store import delete
from atoll.verify import troupe
from atoll.verify.accidents import Accident, Fate, bites
from atoll.verify.history import History
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.lines import lines
from atoll.verify.scenario import Claim, Hardship, Line, Scenario, Workload
from atoll.verify.worker import Part, play

TTL_S = 0.6
LOSS = 0.02
SWEEP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is played and where. `url`: the workers'; `straight`: the conductor's own way there.

    `weather`: what befalls servers, by hardship. `claim`: in place of the workload's own. `guest`: what
    workers on somebody else's server are bound by, see `guest`.
    """

    workload: Workload
    url: str
    straight: str
    seed: int
    seconds: float
    folder: Path
    faults: bool = True
    local: bool = False
    weather: dict[Hardship, Fate] = field(default_factory=dict)
    claim: Claim | None = None
    guest: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    within: tuple[str, ...] = ()
    """What stands before the command of each worker."""
    alone: bool = False
    """Only the weather, nobody else is hurt."""
    promised: Callable[[Any], bool] = lambda claims: True

    def hardships(self) -> tuple[Hardship, ...]:
        """What goes wrong in it."""
        if self.alone:
            return (Hardship.PROCESSES, *self.weather)
        own = [h for h in self.workload.hardships if self._possible(h)]
        return (*own, *self.weather)

    def _possible(self, hardship: Hardship) -> bool:
        if hardship in (Hardship.KILL, Hardship.PAUSE):
            return self.faults and not self.local
        return self.faults or hardship is Hardship.PROCESSES


@dataclass(slots=True)
class Performed:
    """What came of a piece."""

    lines: list[Line]
    history: History | None = None
    claims: Any = None


async def perform(piece: Piece, progress: troupe.Progress) -> Performed:
    """Play it. Raises what opening the place raises."""
    workload, hardships = piece.workload, piece.hardships()
    started = clock.loop_now()
    prefix = piece.prefix or new_prefix(piece.seed, workload.name)
    handle: Any = urls.store(piece.straight) if workload.port == "store" else urls.broker(piece.straight)
    accidents: list[Accident] = []
    async with tidy(handle, workload.port, prefix):
        claims = await handle.open()
        part = _part(piece, prefix, claims)
        rounds = 1 if piece.alone else 0
        scenario = Scenario(workload, hardships, piece.seconds, piece.seed, rounds=rounds)
        try:
            if piece.local:
                history = await _here(part, scenario, handle, progress)
            else:
                folder = Path(tempfile.mkdtemp(prefix=f"{workload.name}-", dir=piece.folder))
                stage = troupe.Troupe(scenario, part, folder, list(piece.weather.values()))
                accidents = stage.accidents
                history = await stage.play(progress)
        except (troupe.PlaceRefused, ConfigurationError) as refusal:
            claim = piece.claim or workload.claim
            return Performed([Line(claim, workload.name, None, f"(refused: {_short(refusal)})")])
        except troupe.WorkerFailed as error:
            broken = Judgement(Answer.NOT_KNOWN, note=str(error))
            claim = piece.claim or workload.claim
            return Performed([Line(claim, workload.name, Answer.NOT_KNOWN, str(error), broken)])
        progress("judging")
        judgement = await asyncio.to_thread(workload.judge, history, claims)
        found = await asyncio.to_thread(bites, history, accidents, _provable(piece, hardships))
    made = lines(workload, judgement, found, local=piece.local, faults=piece.faults, claim=piece.claim)
    for line in made:
        line.seconds = clock.loop_now() - started
        line.promised = piece.promised(claims)
    return Performed(made, history, claims)


def new_prefix(seed: int, name: str) -> str:
    """Where a workload's keys are: nobody else's, and nobody's of an earlier run."""
    return f"atoll-verify/{seed}-{clock.unique_id()[:8]}/{name}/"


def _short(refusal: Exception) -> str:
    """The reason, without the chain of wrappers before it."""
    return str(refusal).rpartition(">>")[2].strip().partition(". ")[0][:200]


def _provable(piece: Piece, hardships: tuple[Hardship, ...]) -> tuple[Hardship, ...]:
    return tuple(h for h in hardships if not (piece.local and h is Hardship.PROCESSES))


def _part(piece: Piece, prefix: str, claims: Any) -> Part:
    return Part(
        url=piece.url,
        workload=piece.workload.name,
        process="a",
        prefix=prefix,
        seed=piece.seed,
        until=clock.lease_now() + piece.seconds,
        ttl_s=max(TTL_S, getattr(claims, "ttl_min_s", 0.0)),
        clients=3,
        path="",
        loss=LOSS if Hardship.REPLY_LOST in piece.hardships() else 0.0,
        guest=piece.guest,
        within=piece.within,
    )


async def _here(part: Part, scenario: Scenario, handle: Any, progress: troupe.Progress) -> History:
    """In this process: what lives in memory has no other."""
    book = History()
    progress("in this process")
    await play(part, book, handle)
    if scenario.workload.finish is not None:
        await play(
            replace(part, finishing=True, loss=0.0, clients=1, until=clock.lease_now() + 10), book, handle
        )
    return book


@asynccontextmanager
async def tidy(handle: Any, port: str, prefix: str) -> AsyncIterator[None]:
    """Leave the place as it was: every key of ours is removed, whatever happened."""
    try:
        yield
    finally:
        with suppress(AtollError, TimeoutError):
            if port == "store":
                async with asyncio.timeout(SWEEP_S):
                    await sweep(handle, prefix)
        await handle.close()


async def sweep(store: Any, prefix: str) -> None:
    """Remove every key that a run with this prefix made; recipes keep theirs under a quoted name."""
    quoted = quote(prefix, safe="")
    for ours in (prefix, *(f"{kind}/{quoted}" for kind in ("lock", "election"))):
        while (found := await store.range(ours, limit=50)).entries:
            await store.transact(*(delete(entry.key) for entry in found.entries))
