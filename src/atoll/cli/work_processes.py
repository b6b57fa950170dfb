"""The processes of `atoll work`: a parent that starts, restarts and drains them, and answers probes.

A child holds the reading end of a pipe whose writing end only the parent has: when the parent dies, by
whatever, the pipe ends and the child drains. No orphan outlives it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from types import TracebackType
from typing import Self

from atoll import clock
from atoll.cli.main import NO, YES
from atoll.errors import NotSent

log = logging.getLogger("atoll.work")

RESTARTS_MAX, WITHIN_S = 5, 60.0
_DRAINED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
"""The last two: it was told to stop before it had begun to work."""
SAID = {200: "ok", 503: "not ready", 404: "ask /live or /ready", 400: "not a request"}


def follow_parent(descriptor: int, stop: asyncio.Event) -> None:
    """Stop when the pipe's other end is gone, which is when the parent is."""

    def ended() -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        stop.set()

    asyncio.get_running_loop().add_reader(descriptor, ended)


async def run_processes(options: argparse.Namespace) -> int:
    """Start N children, restart those that die, drain them all on SIGTERM; answers the worst."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    children = [Child(n, options, reading, stop) for n in range(options.processes)]
    try:
        if options.health_port is None:
            answers = await asyncio.gather(*(child.run() for child in children))
        else:
            async with HealthPort(options.health_host, options.health_port, stop, children):
                answers = await asyncio.gather(*(child.run() for child in children))
    finally:
        os.close(writing)
        os.close(reading)
    return max(answers)


class Child:
    """One process of several, restarted within a budget."""

    def __init__(self, number: int, options: argparse.Namespace, pipe: int, stop: asyncio.Event) -> None:
        self._number = number
        self._pipe = pipe
        self._stop = stop
        self._drain_s = float(options.drain_s)
        self._command = [
            sys.executable,
            "-m",
            "atoll",
            "work",
            options.module,
            "--drain-s",
            str(options.drain_s),
        ]
        self.alive = False
        self._deaths: list[float] = []

    async def run(self) -> int:
        """Keep it running until the stop; answers 1 when it died too often or ended badly."""
        while True:
            process = await asyncio.create_subprocess_exec(
                *self._command, "--follow", str(self._pipe), pass_fds=[self._pipe], start_new_session=True
            )
            self.alive = True
            ended = asyncio.create_task(process.wait())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set() and not ended.done():
                process.terminate()
                await asyncio.wait([ended], timeout=self._drain_s + 15.0)
                if not ended.done():
                    process.kill()
            stopping.cancel()
            code = await ended
            self.alive = False
            if self._stop.is_set():
                return YES if code in _DRAINED else NO
            if self._gives_up(code):
                return NO
            await asyncio.sleep(0.2 * 2 ** min(len(self._deaths), 5))

    def _gives_up(self, code: int) -> bool:
        now = clock.loop_now()
        self._deaths = [*(d for d in self._deaths if now - d < WITHIN_S), now]
        log.error("process %d ended with %d", self._number, code)
        if len(self._deaths) <= RESTARTS_MAX:
            return False
        log.error("process %d died %d times in %g s: giving up", self._number, len(self._deaths), WITHIN_S)
        self._stop.set()
        return True


class HealthPort:
    """Answers GET /live with 200 while the process runs, /ready with 200 while it takes work."""

    def __init__(
        self, host: str, port: int, stop: asyncio.Event, children: list[Child] | None = None
    ) -> None:
        self._host, self._port = host, port
        self._stop = stop
        self._children = children

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(self._answer, self._host, self._port, limit=8192)
        except OSError as error:
            raise NotSent(
                f"the health port {self._port} cannot be opened: {error.strerror}. "
                "Give another --health-port."
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def _status(self, path: bytes) -> int:
        if path == b"/live":
            return 200
        if path != b"/ready":
            return 404
        up = self._children is None or all(child.alive for child in self._children)
        return 200 if up and not self._stop.is_set() else 503

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5.0):
                words = (await reader.readuntil(b"\r\n")).split()
                status = self._status(words[1]) if len(words) == 3 and words[0] in (b"GET", b"HEAD") else 400
                said = SAID[status] + "\n"
                head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n"
                writer.write((head + said).encode())
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
