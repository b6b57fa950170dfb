"""Special stages: a disk that forgets, one that is too small, a clock that jumps; under unaware servers.

Three stunt rooms of a film studio: one whose lights can be cut, one whose walls close in, one whose clock on
the wall is moved between two takes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from atoll import clock, urls
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.ports.store import put
from atoll.verify.accidents import Accident, Fate
from atoll.verify.power import mount
from atoll.verify.power.mount import PowerDisk
from atoll.verify.privilege import SYS_ADMIN, lacking
from atoll.verify.scenario import Hardship
from atoll.verify.staging import Stage, Start, accept, leading, staged
from atoll.verify.wall_clock import WallClock, compiler

SMALL_BYTES = 320 << 20
"""For one member: a bare PostgreSQL and two logs of etcd fit, and little more."""
FULL_S = 1.5
RESERVES = ("raft",)
"""These reserve room for their log long before they need it, and miss nothing while it lasts."""
PRESS_BYTES = 900_000
STEPS_S = (3600, -3600, 90, -90)
IN_GO = ("etcd", "nats", "consul")


# -- power -------------------------------------------------------------------------------------------


def no_forgetting_disk(start: Start) -> str:
    """Why the power cannot be cut here."""
    return mount.missing()


@asynccontextmanager
async def forgetting(start: Start, folder: Path) -> AsyncIterator[Stage]:
    """All members on one disk that forgets what was not forced: a rack with one plug."""
    async with PowerDisk(folder) as disk, staged(start, disk.path) as stage:
        await disk.settle()
        stage.facts["disk"] = disk
        yield stage


def cut_power(stage: Stage) -> Fate:
    """kill -9 to every member at once, and what was not forced is gone."""

    async def fate(dice: random.Random, ttl_s: float) -> list[Accident]:
        disk: PowerDisk = stage.facts["disk"]
        await asyncio.sleep(dice.uniform(0.2, 0.8))
        accident = Accident(Hardship.POWER_CUT, "all", clock.lease_now())
        await disk.hang()
        for member in stage.cluster.members:
            member.strike()
        counts = await disk.cut(dice.randrange(1 << 30) if dice.random() < 0.5 else None)
        for member in stage.cluster.members:
            member.kill()
        accident.proof = counts.undone_bytes
        await _up_again(stage)
        accident.seconds = clock.lease_now() - accident.at
        await accept(stage)
        return [accident]

    return fate


async def _up_again(stage: Stage) -> None:
    """All that are down, together: one member of several serves nobody."""
    down = [member for member in stage.cluster.members if member.pid is None]
    for member in down:
        member.launch()
    await asyncio.gather(*(member.serving() for member in down))
    await leading(stage)


# -- a full disk -------------------------------------------------------------------------------------


def no_tmpfs(start: Start) -> str:
    """Why no small disk can be had here."""
    return lacking(SYS_ADMIN)


@asynccontextmanager
async def narrow(start: Start, folder: Path) -> AsyncIterator[Stage]:
    """Members on a memory disk of SMALL_BYTES for each."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.fsencode(folder)
    words = f"size={SMALL_BYTES * start.nodes},mode=755"
    if libc.mount(b"atoll", place, b"tmpfs", mount.NOSUID_NODEV, words.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    try:
        async with staged(start, folder) as stage:
            yield stage
    finally:
        libc.umount2(place, mount.DETACH)


def fill_up(stage: Stage) -> Fate:
    """No byte is left for a while; a server that ended of it is started again when there is room."""

    async def fate(dice: random.Random, ttl_s: float) -> list[Accident]:
        accident = Accident(Hardship.FULL_DISK, "the disk", clock.lease_now(), proof=0)
        filler = stage.folder / "filler"
        try:
            accident.proof = await asyncio.to_thread(_fill, filler)
            if stage.start.product in RESERVES:
                await _use_up(stage)
            await asyncio.sleep(FULL_S)
        finally:
            await asyncio.to_thread(filler.unlink)
        await _up_again(stage)
        accident.seconds = clock.lease_now() - accident.at
        await asyncio.sleep(dice.uniform(0.3, 0.6))
        return [accident]

    return fate


async def _use_up(stage: Stage, times: int = 40) -> None:
    """Write one large value again and again until a member has no room for it."""
    with suppress(NotApplied, OutcomeUnknown):
        async with urls.store(stage.straight) as store:
            for _ in range(times):
                await store.transact(put("atoll-verify/large", bytes(PRESS_BYTES)))


def _fill(path: Path) -> int:
    """Write until there is no room; answers whether that was reached."""
    block = b"\0" * (1 << 20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(os.statvfs(path.parent).f_blocks * 4096 // len(block) + 2):
            try:
                if file.write(block) < len(block):
                    file.write(block[:4096])
            except OSError:
                return 1
    return 0


# -- the clock ---------------------------------------------------------------------------------------


def no_wall_clock(start: Start) -> str:
    """Why its clock cannot be stepped here."""
    if start.product in IN_GO:
        return f"{start.product} is a Go program, which reads the clock past every library that could move it"
    return "" if compiler() else "no C compiler for the shim: apt-get install gcc libc6-dev"


@asynccontextmanager
async def clocked(start: Start, folder: Path) -> AsyncIterator[Stage]:
    """Members whose wall clock is ours to move."""
    wall = WallClock(folder)
    await wall.build()
    async with staged(start, folder) as stage:
        for member in stage.cluster.members:
            member.environment = {**member.environment, **wall.environment()}
            await member.restart()
        stage.facts["wall"] = wall
        await leading(stage)
        yield stage


def step_clock(stage: Stage) -> Fate:
    """The wall clock of every member jumps and stays there for a while."""

    async def fate(dice: random.Random, ttl_s: float) -> list[Accident]:
        wall: WallClock = stage.facts["wall"]
        seconds = dice.choice(STEPS_S)
        accident = Accident(Hardship.CLOCK, "the clock", clock.lease_now())
        before = await _server_ahead(stage)
        wall.set(seconds)
        try:
            await asyncio.sleep(ttl_s * 1.5)
            after = await _server_ahead(stage)
        finally:
            wall.set(0)
        if before is None or after is None:
            accident.proof = int(wall.seen_by(stage.cluster.members[0]))
        else:
            accident.proof = int(abs(after - before - seconds) < 30)
        accident.seconds = clock.lease_now() - accident.at
        await asyncio.sleep(dice.uniform(0.2, 0.5))
        return [accident]

    return fate


async def _server_ahead(stage: Stage) -> float | None:
    """How far the server's wall clock is before ours; None where it cannot be asked."""
    said = await asyncio.wait_for(_asked(stage), 5)
    return None if said is None else said - clock.wall_now()


async def _asked(stage: Stage) -> float | None:
    address = stage.cluster.addresses[0]
    port: Any = int(address.rpartition(":")[2])
    match stage.start.product:
        case "redis" | "valkey":
            from atoll.verify.servers.redis import client_of

            client = client_of(port)
            try:
                seconds, parts = await client.time()
            finally:
                await client.aclose()
            return float(seconds) + float(parts) / 1e6
        case "postgresql":
            from atoll.verify.servers.postgresql import ask

            ((now,),) = await ask(port, "SELECT extract(epoch FROM clock_timestamp())")
            return float(now)
    return None
