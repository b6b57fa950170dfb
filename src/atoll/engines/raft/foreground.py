"""Foreground: runs one member as the work of a whole process, until it is told to stop.

A lighthouse keeper's contract. He leaves only when relieved: first he rings his neighbour, then he puts out
the lamp. If the rope to the boat that brought him goes slack, he is relieved too.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from typing import Any

from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.folder import DataFolder
from atoll.engines.raft.member import Member, Serves, running
from atoll.engines.raft.member_options import MemberOptions

SWITCH_S = 0.0005
"""How long a hand may keep the interpreter while the loop waits for it."""
_COLLECT = (50_000, 20, 100)


async def run(
    options: MemberOptions,
    ready: Callable[[dict[str, Any]], None],
    *,
    leash: bool = False,
    desk: Callable[[Consensus], Serves] | None = None,
    prepared: DataFolder | None = None,
) -> str:
    """Run until SIGTERM, SIGINT or, on a leash, the end of standard input: "". Else why it had to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if leash:
        loop.add_reader(sys.stdin.fileno(), _tug, loop, stop)
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*_COLLECT)
    async with running(options, desk=desk, prepared=prepared) as member:
        gc.freeze()
        ready(member.about())
        return await _until(member, stop)


async def _until(member: Member, stop: asyncio.Event) -> str:
    ended = asyncio.ensure_future(member.ended())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        await member.hand_over()
        return ""
    finally:
        ended.cancel()
        stopped.cancel()


def _tug(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Nobody writes to a leash: what can be read is its end."""
    loop.remove_reader(sys.stdin.fileno())
    stop.set()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed; it is not needed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
