"""replay: sends the flights through the gateway in order of scheduled departure, N at a time.

A plane's next flight is sent when its last one is answered, so the record's order holds for every plane.
A flight that gets no answer is sent again under the same id.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections import defaultdict, deque
from pathlib import Path

import httpx
from airline.flights import Flight, read_flights

GATEWAY = os.environ["ATOLL_GATEWAY"]
AT_ONCE = int(os.environ.get("AIRLINE_AT_ONCE", "16"))
RESULT, PROGRESS = ".atoll/replay.json", ".atoll/progress"


class Replay:
    """Flights still to send, by plane, and what came back."""

    def __init__(self, flights: list[Flight]) -> None:
        self.total = len(flights)
        self.answered = 0
        self.sent_again = 0
        self.seconds: list[float] = []
        self._lines: dict[str, deque[Flight]] = defaultdict(deque)
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        for flight in flights:
            line = self._lines[flight.tail or flight.id]
            line.append(flight)
            if len(line) == 1:
                self._ready.put_nowait(flight.tail or flight.id)

    async def worker(self, client: httpx.AsyncClient) -> None:
        """Send the next flight of whichever plane is free."""
        while self.answered < self.total:
            plane = await self._ready.get()
            line = self._lines[plane]
            await self.send(client, line[0])
            line.popleft()
            if line:
                self._ready.put_nowait(plane)

    async def send(self, client: httpx.AsyncClient, flight: Flight) -> None:
        """Until it is answered."""
        body = json.dumps(dataclasses.asdict(flight))
        began = time.perf_counter()
        while True:
            try:
                answer = await client.post("/flights", content=body, headers={"Idempotency-Key": flight.id})
                if answer.status_code == 200:
                    break
                if answer.status_code in (400, 413):
                    raise SystemExit(f"flight {flight.id}: {answer.text}")
            except httpx.HTTPError:
                pass
            self.sent_again += 1
            await asyncio.sleep(0.05)
        self.seconds.append(time.perf_counter() - began)
        self.answered += 1

    def report(self, took_s: float) -> dict[str, float]:
        """Figures for the demo."""
        ordered = sorted(self.seconds)
        return {
            "flights": self.answered,
            "sent_again": self.sent_again,
            "seconds": took_s,
            "per_second": self.answered / took_s,
            "p50_ms": 1000 * ordered[len(ordered) // 2],
            "p99_ms": 1000 * ordered[int(len(ordered) * 0.99)],
        }


async def show(replay: Replay) -> None:
    """A progress bar on a terminal, a line now and then elsewhere."""
    last = -1
    while replay.answered < replay.total:
        note_progress(replay.answered)
        done = replay.answered * 20 // replay.total
        if sys.stdout.isatty() or done != last:
            bar = "#" * done + "." * (20 - done)
            end = "\r" if sys.stdout.isatty() else "\n"
            print(f"[{bar}] {replay.answered:,} of {replay.total:,} flights", end=end, flush=True)
            last = done
        await asyncio.sleep(0.2)


def note_progress(answered: int) -> None:
    """For whoever watches from outside; a whole file or the one before."""
    new = Path(PROGRESS + ".new")
    new.write_text(str(answered))
    new.replace(PROGRESS)


async def main() -> None:
    replay = Replay(read_flights())
    began = time.perf_counter()
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=GATEWAY, timeout=30, limits=limits) as client:
        bar = asyncio.create_task(show(replay))
        workers = [asyncio.create_task(replay.worker(client)) for _ in range(AT_ONCE)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        await bar
        for worker in workers:
            worker.cancel()
    report = replay.report(time.perf_counter() - began)
    Path(RESULT).write_text(json.dumps(report))
    print(
        f"{replay.total:,} flights answered in {report['seconds']:.1f} s, {report['per_second']:.0f}/s",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
