"""One process of an instance, with its guardian.

A rope team of three: `up` holds the guardian, the guardian holds the service. Whoever falls, the one
below is brought down with them, so nothing is left hanging on the mountain.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.up import child

GUARDIAN_S = 10.0
OUTPUT_S = 1.0
CHUNK_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: an exit code, or minus the signal's number. `note`: why it never began."""

    code: int
    note: str = ""

    @property
    def well(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.note:
            return self.note
        if self.code >= 0:
            return f"exit {self.code}"
        with contextlib.suppress(ValueError):
            return f"killed ({-self.code}, {signal.Signals(-self.code).name})"
        return f"killed ({-self.code})"


class Process:
    """A started command. `output` is given its bytes as they come."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._folder = folder
        self._guardian: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._note = ""
        self._status: int | None = None
        self._started = asyncio.Event()
        self.pid: int | None = None

    async def start(self, output: Callable[[bytes], None]) -> None:
        """Start the guardian and, by it, the command; returns when the pid is known."""
        self._guardian = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", child.__file__, *self._command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=self._env, cwd=self._folder, start_new_session=True,
        )  # fmt: skip
        assert self._guardian.stdout is not None and self._guardian.stderr is not None
        self._tasks = [
            asyncio.create_task(self._read(self._guardian.stdout, output)),
            asyncio.create_task(self._reports(self._guardian.stderr)),
        ]
        await self._started.wait()

    async def wait(self) -> Ended:
        """Until it has ended and nothing of it is left."""
        assert self._guardian is not None
        reading, reports = self._tasks
        await asyncio.wait({reports})
        await asyncio.wait({reading}, timeout=OUTPUT_S)  # whoever fled with the output is not waited for
        reading.cancel()
        await self._guardian.wait()
        if self._status is None:
            return Ended(-signal.SIGKILL, self._note or "its guardian was killed, and it with it")
        return Ended(os.waitstatus_to_exitcode(self._status), self._note)

    def terminate(self) -> None:
        """Ask it to stop: SIGTERM to the process itself, not to its children."""
        self._tell(b"term\n")

    def kill(self) -> None:
        """End it and everything it has started."""
        self._tell(b"kill\n")

    async def end(self, grace_s: float) -> Ended:
        """Ask, wait `grace_s`, then kill."""
        self.terminate()
        ending = asyncio.ensure_future(self.wait())
        try:
            done, _ = await asyncio.wait({ending}, timeout=grace_s)
            if not done:
                self.kill()
                done, _ = await asyncio.wait({ending}, timeout=GUARDIAN_S)
            if not done:
                self._kill_guardian()
            return await ending
        finally:
            ending.cancel()

    def _tell(self, command: bytes) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._guardian.stdin.write(command)

    def _kill_guardian(self) -> None:
        if self._guardian is not None and self._guardian.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._guardian.kill()
        self._sweep()

    def _sweep(self) -> None:
        """The group of a service whose guardian was killed from outside."""
        if self.pid is not None and self._status is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _read(self, stream: asyncio.StreamReader, output: Callable[[bytes], None]) -> None:
        while chunk := await stream.read(CHUNK_BYTES):
            output(chunk)

    async def _reports(self, stream: asyncio.StreamReader) -> None:
        try:
            while line := await stream.readline():
                word, _, rest = line.decode(errors="replace").strip().partition(" ")
                if word == "pid":
                    self.pid = int(rest)
                    self._started.set()
                elif word == "status":
                    self._status = int(rest)
                elif word == "failed":
                    self._note = f"could not start {rest}"
        finally:
            self._started.set()
            if self._status is None:
                self._sweep()  # the guardian is gone and its children may hold the output open
