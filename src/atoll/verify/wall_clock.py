"""Wall clock: a server's own, moved from outside while it runs; nobody else's clock is touched.

A stage hand behind the clock on the wall. Whoever looks at it sees what the hand shows; the metronome on the
table (the monotonic clock, which deadlines go by) is left alone.

Source: ld.so(8), LD_PRELOAD; the idea of libfaketime.
Departure: a shim of our own, because libfaketime does not start under jemalloc (Redis) nor after
a change of user (PostgreSQL), and has faked the monotonic clock wrongly. It needs a C compiler.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
from pathlib import Path

from atoll.errors import AtollError
from atoll.verify.servers.process import ServerProcess, family

COMPILERS = ("cc", "gcc", "clang", "tcc")
PAGE = 4096
_HAND = "ATOLL_WALL_CLOCK"

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long zero, *hand;

static long long ahead(void) {
    if (!hand) {
        const char *path = getenv("ATOLL_WALL_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        hand = page == MAP_FAILED ? &zero : page;
    }
    return *hand;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int answer = syscall(SYS_clock_gettime, id, now);
    if (!answer && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) { now->tv_sec = exact.tv_sec; now->tv_usec = exact.tv_nsec / 1000; }
    return 0;
}

time_t time(time_t *into) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}
"""


class NoShim(AtollError):
    """The shim could not be built; the message says why."""


def compiler() -> str | None:
    """A C compiler of this machine."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


class WallClock:
    """A hand in `folder`; who is dressed with it and started anew sees the time it shows."""

    def __init__(self, folder: Path) -> None:
        self.hand = folder / "wall-clock"
        self.library = folder / "wall-clock.so"

    async def build(self) -> None:
        """Compile the shim and set the hand to the true time."""
        program = compiler()
        if program is None:
            raise NoShim("no C compiler. Type: apt-get install gcc libc6-dev")
        child = await asyncio.create_subprocess_exec(
            program,
            *("-shared", "-fPIC", "-O1", "-o", str(self.library), "-x", "c", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await child.communicate(SHIM.encode())
        if child.returncode:
            raise NoShim(f"{program} could not build it: {said.decode(errors='replace').strip()[:300]}")
        self.set(0)

    def set(self, seconds: int) -> None:
        """The wall clock goes `seconds` ahead of the true one from now on; behind it below 0."""
        if not self.hand.exists():
            self.hand.write_bytes(b"\0" * PAGE)
            self.hand.chmod(0o644)
        handle = os.open(self.hand, os.O_WRONLY)
        try:
            os.pwrite(handle, struct.pack("<q", seconds), 0)
        finally:
            os.close(handle)

    def environment(self) -> dict[str, str]:
        """What dresses a process."""
        return {"LD_PRELOAD": str(self.library), _HAND: str(self.hand)}

    def seen_by(self, member: ServerProcess) -> bool:
        """Whether a running server really has the shim."""
        maps = [Path(f"/proc/{one}/maps") for one in (family(member.pid) if member.pid else [])]
        return any(self.hand.name in path.read_text() for path in maps if path.exists())
