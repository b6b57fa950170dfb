"""Three Raft members in one loop, each on a disk that a test may hurt."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from raft_crowd import PlainDesk, until

from atoll import clock
from atoll.engines.raft import command, files
from atoll.engines.raft.folder import DataFolder, FolderOptions
from atoll.engines.raft.member import Member, running
from atoll.engines.raft.member_options import MemberOptions, settings_of
from atoll.engines.raft.wal import LogOptions
from atoll.verify.servers.process import free_port


class Disk:
    """Forces as the real one does, or waits for as long as it is told, or fails."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.slow_s = 0.0
        self.broken = False
        self.stuck = threading.Event()
        """Set once somebody waits."""

    def force(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "the disk is broken")
        if self.slow_s:
            threading.Event().wait(self.slow_s)
        if not self.free.is_set():
            self.stuck.set()
            self.free.wait(60)
        files.force(descriptor)

    def stall(self) -> None:
        self.stuck.clear()
        self.free.clear()


class Trio:
    """Three members in this loop, each on a disk of its own."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.disks = {name: Disk() for name in "abc"}

    async def leader(self, but: str = "") -> str:
        async def look() -> str:
            return next(n for n, m in self.members.items() if m.consensus.is_leader and n != but)

        return str(await until(look))

    def put(self, name: str, key: str) -> asyncio.Future[bytes]:
        data = command.pack([command.Transact(((key, b"v", None),))])
        return self.members[name].consensus.submit(command.stamp(data, clock.wall_now()))

    async def keys(self, name: str) -> set[str]:
        consensus = self.members[name].consensus
        await consensus.read_barrier()
        return {entry.key for entry in consensus.state.range("", None, None, -1).entries}


@asynccontextmanager
async def trio(folder: Path, **settings: Any) -> AsyncIterator[Trio]:
    own = Trio()
    places = {name: f"127.0.0.1:{free_port()}" for name in "abc"}
    try:
        async with AsyncExitStack() as stack:
            for name in "abc":
                options = MemberOptions(
                    id=name, data=folder / name, members=places, settings=settings_of(**settings)
                )
                log = LogOptions(segment_bytes=1 << 20, force=own.disks[name].force)
                prepared = DataFolder(folder / name, FolderOptions(log=log))
                own.members[name] = await stack.enter_async_context(
                    running(options, prepared=prepared, desk=PlainDesk)
                )
            yield own
            for disk in own.disks.values():
                disk.free.set()
    finally:
        for disk in own.disks.values():
            disk.free.set()
