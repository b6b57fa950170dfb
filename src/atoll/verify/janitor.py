"""Janitor: clears a run's keys away when the run itself was killed before it could.

The night porter who sits by the door until he hears the last guest leave. If the lights go out instead, he
looks through the rooms himself. What he misses, the lease of the keys takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from atoll import urls
from atoll.errors import AtollError

TRIES = 20


@asynccontextmanager
async def waiting(url: str, prefix: str) -> AsyncIterator[None]:
    """A janitor in a process of his own for as long as this is entered. The URL goes in by a pipe."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "atoll.verify.janitor",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps({"url": url, "prefix": prefix}).encode() + b"\n")
    try:
        yield
    finally:
        with suppress(OSError):
            child.stdin.write(b"all done\n")
            child.stdin.close()
        await child.wait()


async def clear(url: str, prefix: str) -> None:
    """Remove what is left below the prefix; try again while the server is away."""
    from atoll.verify.performance import sweep

    for _ in range(TRIES):
        with suppress(AtollError):
            async with urls.store(url) as store:
                await sweep(store, prefix)
                return
        await asyncio.sleep(0.5)


def main() -> int:
    """Wait for the end of the run; it says "all done", or it was killed."""
    words = json.loads(sys.stdin.readline() or "null")
    if words is None or sys.stdin.readline():
        return 0
    os.nice(5)
    asyncio.run(clear(words["url"], words["prefix"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
