"""Worker: one process of a workload, which may be killed or stopped at any moment.

An actor on a stage where the trapdoors are real. It writes down each line before it speaks it, so that
whoever finds the script knows how far it got.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atoll import urls
from atoll.verify import leash
from atoll.verify.faults import FaultDoor, Point, through
from atoll.verify.history import History
from atoll.verify.recorder import RecordingBroker, RecordingStore
from atoll.verify.scenario import Worker, Workload
from atoll.verify.workloads import WORKLOADS

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

    def command(self) -> list[str]:
        """How to start it."""
        return [sys.executable, "-m", "atoll.verify.worker", json.dumps(asdict(self))]


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
    async with handle:
        work = workload.finish if part.finishing and workload.finish else workload.work
        await asyncio.gather(*(work(_client(part, book, handle, workload, n)) for n in range(part.clients)))


def _client(part: Part, book: History, handle: Any, workload: Workload, number: int) -> Worker:
    process = f"{part.process}.{number}"
    recording = RecordingStore if workload.port == "store" else RecordingBroker
    return Worker(
        handle=recording(handle, book, process),
        book=book,
        process=process,
        prefix=part.prefix,
        dice=random.Random(f"{part.seed}/{process}"),
        until=part.until,
        ttl_s=part.ttl_s,
        fragile=part.process.startswith("s"),
    )


def main(argv: list[str]) -> int:
    """A worker's own process: argv[1] is its part as JSON."""
    part = Part(**json.loads(argv[1]))
    book = History(path=Path(part.path))
    handle = urls.store(part.url) if WORKLOADS[part.workload].port == "store" else urls.broker(part.url)
    asyncio.run(play(part, book, handle))
    return 0


if __name__ == "__main__":
    leash.hold()
    sys.exit(main(sys.argv))
