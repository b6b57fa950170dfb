"""What the other processes of the broker's tests run: `python broker_process.py VERB PATH ...`."""

from __future__ import annotations

import asyncio
import sys

from atoll.engines.sqlite.broker import SqliteBroker


async def hold(path: str, lease_s: str) -> None:
    """Take one message, say so, and never come back."""
    (taken,) = await SqliteBroker(path).take("work", 1, lease_s=float(lease_s), wait_s=20)
    print(f"took {taken.message.id} {taken.attempt}", flush=True)
    await asyncio.Event().wait()


async def drain(path: str, seconds: str) -> None:
    """Work until nothing came for a while; print what was acknowledged in time."""
    broker = SqliteBroker(path)
    while taken := await broker.take("work", 5, lease_s=10, wait_s=float(seconds)):
        settled = await broker.acknowledge("work", [t.receipt for t in taken])
        for delivery, end in zip(taken, settled, strict=True):
            print(f"{delivery.message.id} {end.value}", flush=True)


if __name__ == "__main__":
    asyncio.run({"hold": hold, "drain": drain}[sys.argv[1]](*sys.argv[2:]))
