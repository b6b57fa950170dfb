"""Worker: one process of a workload, which may be killed or stopped at any moment.

An actor on a stage where the trapdoors are real. It writes down each line before it speaks it, so that
whoever finds the script knows how far it got.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atoll import clock, urls
from atoll.errors import ConfigurationError, NotApplied, OutcomeUnknown
from atoll.verify import leash
from atoll.verify.curtain import Curtain
from atoll.verify.faults import FaultDoor, Point, through
from atoll.verify.history import History
from atoll.verify.recorder import RecordingBroker, RecordingStore
from atoll.verify.scenario import Worker
from atoll.verify.tray import Budget, tray
from atoll.verify.workloads import WORKLOADS

_PART = "ATOLL_VERIFY_PART"
REFUSED = 3
"""How a worker's process ends when the place is refused as too weak."""
_LOSABLE = {"store": ("transact", "put_if", "delete_if"), "broker": ("put", "acknowledge")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process is to play. `until` is a time of the lease clock; `loss` a probability."""

    url: str
    workload: str
    process: str
    prefix: str
    seed: int
    until: float
    ttl_s: float
    clients: int
    path: str
    loss: float = 0.0
    finishing: bool = False
    guest: dict[str, Any] = field(default_factory=dict)
    """What it is bound by on somebody else's server: a lease, a rate, a size."""

    within: tuple[str, ...] = ()
    """What stands before its command."""
    curtain: str = ""
    """The file whose being there ends the piece; without, `until` does."""

    def command(self) -> list[str]:
        """How to start it."""
        return [*self.within, sys.executable, "-m", "atoll.verify.worker"]

    def environment(self) -> dict[str, str]:
        """What to start it with: a URL may hold a password, so it is not among the words."""
        return {**leash.environment(), _PART: json.dumps(asdict(self))}


async def play(part: Part, book: History, handle: Any) -> None:
    """Play the part with an engine's handle, open or not."""
    workload = WORKLOADS[part.workload]
    if part.loss:
        points = [
            Point(action=action, verb=verb, probability=part.loss)
            for verb in _LOSABLE[workload.port]
            for action in ("reply_lost", "request_lost")
        ]
        handle = through(handle, FaultDoor(points, dice=random.Random(part.seed)))
    budget = Budget(part.guest.get("rate", 0.0), part.guest.get("bytes_max", 0))
    await _opened(handle, part.until)
    async with handle:
        work = workload.finish if part.finishing and workload.finish else workload.work
        clients = [_client(part, book, handle, n, budget) for n in range(part.clients)]
        await asyncio.gather(*(work(client) for client in clients))


async def _opened(handle: Any, until: float) -> None:
    """Open it; try again while its server is down, for as long as there is time."""
    while True:
        try:
            await handle.open()
            return
        except (NotApplied, OutcomeUnknown):
            if clock.lease_now() > until:
                return
            await asyncio.sleep(0.1)


def _client(part: Part, book: History, handle: Any, number: int, budget: Budget) -> Worker:
    process = f"{part.process}.{number}"
    recording = RecordingStore if WORKLOADS[part.workload].port == "store" else RecordingBroker
    return Worker(
        handle=tray(recording(handle, book, process), part.guest, budget),
        budget=budget,
        curtain=Curtain(Path(part.curtain)) if part.curtain else None,
        book=book,
        process=process,
        prefix=part.prefix,
        dice=random.Random(f"{part.seed}/{process}"),
        until=part.until,
        ttl_s=part.ttl_s,
        fragile=part.process.startswith("s"),
    )


def main() -> int:
    """A worker's own process: its part comes in the environment, as JSON."""
    part = Part(**json.loads(os.environ.pop(_PART)))
    book = History(path=Path(part.path))
    handle = urls.store(part.url) if WORKLOADS[part.workload].port == "store" else urls.broker(part.url)
    try:
        asyncio.run(play(part, book, handle))
    except ConfigurationError as refusal:  # a recipe will not work on so weak a place, and says why
        print(refusal, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    leash.hold()
    sys.exit(main())
