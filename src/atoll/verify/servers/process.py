"""Process: one server process that may be killed, stopped, continued and started again on its own data.

A patient in a trial: it has a bed (folder), a bell (port), a chart (log), and every intervention is done by
its own process id, never by name. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from atoll import clock
from atoll.errors import AtollError

START_S = 60.0
STOP_S = 15.0


class ServerFailed(AtollError):
    """A server did not start, or did not end; the message ends with the last lines of its log."""


PORTS = range(10_000, 20_000)
"""Below what Linux takes for outgoing connections, and below what `atoll up` gives to its instances."""
_reserved: list[socket.socket] = []


def free_port(tries: int = 500) -> int:
    """A port of loopback that nobody has, kept for this process and its servers as long as it lives.

    A port that is merely free now may be a neighbour's before a server binds it, or while it is down. On
    Linux a name in the kernel, gone with this process, says that it is taken; elsewhere only luck does.
    """
    for _ in range(tries):
        port = clock.chance().choice(PORTS)
        if _is_free(port) and _reserve(port):
            return port
    raise ServerFailed(f"found no free port from {PORTS.start} to {PORTS.stop - 1} in {tries} tries")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    if sys.platform != "linux":
        return True
    sign = socket.socket(socket.AF_UNIX)
    try:
        sign.bind(f"\0atoll-port-{port}")
    except OSError:
        sign.close()
        return False
    _reserved.append(sign)
    return True


# Sets its death signal, then becomes the server, so no thread forks. It changes its account by itself and
# first: that account may have no right to read our Python, and a change of account clears the death signal.
_LEASHED = """
import ctypes, os, signal, sys
library, (parent, user, group) = ctypes.CDLL(None), map(int, sys.argv[1:4])
if user >= 0: os.setgroups([]); os.setgid(group); os.setuid(user)
library.prctl(1, int(signal.SIGKILL), 0, 0, 0)
if os.getppid() != parent: os._exit(1)
os.execv(sys.argv[4], sys.argv[4:])
"""


@dataclass(slots=True)
class ServerProcess:
    """One process. `ready` raises, or answers False, until it serves; `user`: run as, when we are root."""

    name: str
    command: Sequence[str]
    folder: Path
    ready: Callable[[], Awaitable[object]]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: int = signal.SIGTERM
    child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child is not None and self.child.poll() is None else None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def launch(self) -> None:
        """Start it without waiting until it serves."""
        user, group = -1, -1
        if self.user is not None and os.geteuid() == 0:
            known = pwd.getpwnam(self.user)
            user, group = known.pw_uid, known.pw_gid
        words = [str(os.getpid()), str(user), str(group), *map(str, self.command)]
        extra: dict[str, object] = {}
        command = [sys.executable, "-c", _LEASHED, *words]
        if sys.platform != "linux":
            command = list(map(str, self.command))
            extra = {"user": user, "group": group, "extra_groups": []} if user >= 0 else {}
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(  # type: ignore[call-overload]
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **extra,
            )

    async def start(self, within_s: float = START_S) -> None:
        """Start it and wait until it serves."""
        self.launch()
        await self.serving(within_s)

    async def serving(self, within_s: float = START_S) -> None:
        """Wait until it serves."""
        until = clock.loop_now() + within_s
        last: BaseException | None = None
        while clock.loop_now() < until:
            if self.child is not None and self.child.poll() is not None:
                raise ServerFailed(f"{self.name} ended with {self.child.returncode}:\n{self.last_lines()}")
            try:
                async with asyncio.timeout(5):
                    if await self.ready() is not False:
                        return
            except Exception as error:
                last = error
            await asyncio.sleep(0.05)
        raise ServerFailed(f"{self.name} does not serve after {within_s:g} s: {last!r}\n{self.last_lines()}")

    def strike(self) -> None:
        """kill -9, without waiting: what waits for a disk that hangs dies when the disk is gone."""
        self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """kill -9, and wait until the kernel has it."""
        self.strike()
        if self.child is not None:
            self.child.wait()

    def pause(self) -> None:
        """SIGSTOP, and wait until the kernel has stopped it: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        until = time.monotonic() + 2
        while self.pid is not None and not all(map(stopped, family(self.pid))) and time.monotonic() < until:
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it as an operator would; kill -9 after STOP_S."""
        if self.child is None or self.child.poll() is not None:
            return
        self._signal(signal.SIGCONT)
        self._signal(self.stop_signal)
        until = clock.loop_now() + STOP_S
        while self.child.poll() is None and clock.loop_now() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if self.child.poll() is None:
            self.kill()

    async def restart(self) -> None:
        """Start it again on its data, after a kill or a stop."""
        await self.stop()
        await self.start()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        return ""

    def _signal(self, number: int) -> None:
        """To it and to all it started: some servers are several processes, each in a group of its own."""
        if self.child is None or self.child.poll() is not None:
            return
        for pid in family(self.child.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def stopped(pid: int) -> bool:
    """Whether every thread of `pid` stands still, or there is no such process."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


def family(pid: int) -> list[int]:
    """`pid` and the processes below it, parents first."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found
