"""One of several who want the lock, in a process that will be stopped: it notes when it did what."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import atoll
from atoll import Lock, LockLost, OutcomeUnknown, Refused, Taken, put
from atoll.sync import Lock as SyncLock
from atoll.sync import store as sync_store

STEPS = 60
Step = Callable[[], None]


class Notes:
    """Lines of [what, when]; `when` is the clock that all processes of a machine share."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, what: str, when: float | None = None) -> None:
        self._file.write(json.dumps([what, when or time.monotonic()]) + "\n")
        self._file.flush()

    def work(self, check: Step = lambda: None) -> None:
        """Steps of 2 ms that nobody can interrupt; `check` may."""
        for _ in range(STEPS):
            self("step")
            time.sleep(0.002)
            check()


async def ours(part: dict[str, Any], note: Notes) -> None:
    """Atoll's lock, with one of the bodies that an event loop can have."""
    async with atoll.store(part["url"]) as store:
        while time.monotonic() < part["until"]:
            try:
                async with Lock(store, "pauses", ttl_s=part["ttl_s"], wait_s=2) as held:
                    note("in")
                    if part["body"] == "awaits":
                        for _ in range(STEPS):
                            note("step")
                            await asyncio.sleep(0.002)
                    elif part["body"] == "thread":
                        await asyncio.to_thread(note.work)
                    else:
                        note.work()
                    asked = time.monotonic()
                    await store.transact(put("bench/pauses", b"x"), guard=held)
                    note("write", asked)
            except (LockLost, Refused):
                note("refused")
            except (Taken, OutcomeUnknown):
                note("nothing")
            note("out")


def ours_sync(part: dict[str, Any], note: Notes) -> None:
    """The face without an event loop, which asks at each step."""
    with sync_store(part["url"]) as store:
        while time.monotonic() < part["until"]:
            try:
                with SyncLock(store, "pauses", ttl_s=part["ttl_s"], wait_s=2) as held:
                    note("in")
                    note.work(held.check)
                    asked = time.monotonic()
                    store.transact(put("bench/pauses", b"x"), guard=held)
                    note("write", asked)
            except (LockLost, Refused):
                note("refused")
            except (Taken, OutcomeUnknown):
                note("nothing")
            note("out")


async def redis_py(part: dict[str, Any], note: Notes) -> None:
    """redis-py's Lock around the same body; what it protects is written without a question."""
    import redis.asyncio
    from redis.exceptions import LockError

    client = redis.asyncio.from_url(part["url"].partition("?")[0])
    while time.monotonic() < part["until"]:
        try:
            async with client.lock("pauses", timeout=part["ttl_s"], sleep=0.01, blocking_timeout=2):
                note("in")
                for _ in range(STEPS):
                    note("step")
                    await asyncio.sleep(0.002)
                asked = time.monotonic()
                await client.set("bench-pauses", b"x")
                note("write", asked)
        except LockError:
            note("nothing")
        note("out")
    await client.aclose()


def main() -> None:
    part = json.loads(sys.argv[1])
    with open(part["path"], "a") as file:
        note = Notes(file)
        if part["side"] == "redis-py":
            asyncio.run(redis_py(part, note))
        elif part["body"] == "sync":
            ours_sync(part, note)
        else:
            asyncio.run(ours(part, note))


if __name__ == "__main__":
    main()
