"""Members in processes of their own, for tests that kill, stop and continue them.

As a program it is one process with some members: it says in lines of JSON where they listen and what they
see.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUICK = {"probe_interval_s": 0.3, "probe_timeout_s": 0.15, "gossip_interval_s": 0.05, "sync_interval_s": 5.0}


def until(condition: Callable[[], object], seconds: float = 40.0, what: str = "") -> None:
    """Wait for `condition`; AssertionError after `seconds`, which a busy machine does not reach."""
    due = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < due, f"still not so after {seconds} s: {what or condition}"
        time.sleep(0.02)


async def until_here(condition: Callable[[], object], seconds: float = 40.0, what: str = "") -> None:
    """The same, while the loop goes on."""
    due = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < due, f"still not so after {seconds} s: {what or condition}"
        await asyncio.sleep(0.02)


class Crowd:
    """A child process with members; `alive[name]` is what each sees, `events[name]` what each was told."""

    def __init__(self, *names: str, seeds: list[str] | None = None, **more: Any) -> None:
        given = {"names": names, "seeds": seeds or [], "settings": QUICK, **more}
        self.names = names
        self.alive: dict[str, dict[str, str]] = {name: {} for name in names}
        self.events: dict[str, list[str]] = {name: [] for name in names}
        self.addresses: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), json.dumps(given)], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            match told["what"]:
                case "open":
                    self.addresses[told["who"]] = told["address"]
                case "alive":
                    self.alive[told["who"]] = told["peers"]
                case "event":
                    self.events[told["who"]].append(told["event"])
                case "ended":
                    self.ended[told["who"]] = told["error"]

    def open(self) -> list[str]:
        """Wait until all listen; where."""
        until(lambda: len(self.addresses) == len(self.names) or self.process.poll() is not None, what="open")
        return list(self.addresses.values())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)


def say(what: str, who: str, **more: Any) -> None:
    print(json.dumps({"what": what, "who": who, **more}), flush=True)


async def belong(name: str, given: dict[str, Any], over: asyncio.Event) -> None:
    """One member, until SIGTERM or until it is put out."""
    from atoll.algorithms.swim.settings import Settings
    from atoll.blocks import Members
    from atoll.errors import AtollError

    settings = Settings(**given["settings"])
    secret = os.environ.get("CROWD_SECRET")
    try:
        async with Members(
            given.get("call", name),
            listen=given.get("listen", "127.0.0.1:0"),
            seeds=given["seeds"],
            secret=secret,
            metadata=given.get("metadata", {"pid": str(os.getpid())}),
            settings=settings,
        ) as members:
            say("open", name, address=members.address)
            seeing = asyncio.gather(report(name, members), listen(name, members))
            stop = asyncio.create_task(over.wait())
            await asyncio.wait({seeing, stop}, return_when=asyncio.FIRST_COMPLETED)
            if seeing.done():
                await seeing
        await seeing
        say("ended", name, error="")
    except AtollError as error:
        say("ended", name, error=type(error).__name__)


async def report(name: str, members: Any) -> None:
    async for peers in members.watch():
        say("alive", name, peers={peer.name: peer.state for peer in peers})


async def listen(name: str, members: Any) -> None:
    async for event in members.events():
        say("event", name, event=f"{event.name} {type(event).__name__.removeprefix('Member').lower()}")


async def main(given: dict[str, Any]) -> None:
    logging.getLogger("atoll").addHandler(logging.NullHandler())
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with asyncio.TaskGroup() as group:
        for name in given["names"]:
            group.create_task(belong(name, given, over))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
