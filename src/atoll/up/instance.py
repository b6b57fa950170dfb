"""One instance of a service: its lives, one after the other.

A shift worker with a foreman. He is called in, watched until he is at his place, asked now and then
how he is, and called again when he falls; after too many falls the foreman says so aloud and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll import clock
from atoll.algorithms.restart_budget import RestartBudget
from atoll.up import health
from atoll.up.bell import Bell
from atoll.up.endpoints import Endpoint, Pool
from atoll.up.feed import Feed
from atoll.up.manifest import Service
from atoll.up.output import Output
from atoll.up.process import Ended, Process

ALIVE_S = 0.3  # a command without `ready` counts as started after this long
PROBE_EVERY_S = 1.0
DEATH_S = 0.2
READY_MISSES, LIVE_MISSES = 2, 3
PORTS = range(20_000, 32_768)  # below the kernel's own choice, so that no outgoing connection takes one

OVER = frozenset({"done", "gave up", "stopped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an instance needs to know of the app."""

    env: Mapping[str, str]
    folder: Path
    feed: Feed
    bell: Bell


class Instance:
    """Runs its lives in `run()`. `state`: waiting, starting, ready, unready, stopping, restarting, over."""

    def __init__(
        self, service: Service, number: int, around: Surroundings, pool: Pool, output: Output
    ) -> None:
        self.service = service
        self.name = f"{service.name}-{number}"
        self.state = "waiting"
        self.cause = ""
        self.restarts = 0
        self.last = ""
        self.last_at: float | None = None
        self.since = clock.wall_now()
        self.lives = 0
        self.port: int | None = None
        self.ready_once = False
        self.gave_up = False
        self._around = around
        self._pool = pool
        self._output = output
        self._budget = RestartBudget(service.restarts)
        self._process: Process | None = None
        self._stop = asyncio.Event()
        self._again = asyncio.Event()
        self._ended_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def restarts_left(self) -> int:
        return self._budget.left(clock.loop_now())

    async def run(self) -> None:
        """Live until stopped, done, or given up; given up, wait for a restart on purpose."""
        while not self._stop.is_set():
            began = clock.loop_now()
            ended, reason = await self._life()
            self._ended_at = clock.loop_now()
            if self._stop.is_set():
                break
            if self._again.is_set():
                self._again.clear()
                self._budget.forgive()
                continue
            self._note_end(reason or str(ended))
            if self.service.once and ended.well:
                self._enter("done")
                return
            wait_s = self._budget.ended(clock.loop_now(), clock.loop_now() - began)
            if wait_s is None:
                self._give_up(reason or str(ended))
            else:
                self.restarts += 1
                self._enter("restarting", reason or str(ended), bad=True)
            await self._pause(wait_s)
        self._enter("stopped")

    def stop(self) -> None:
        """No more lives; the one there is ends within its grace."""
        self._stop.set()
        self._again.set()

    def kill(self) -> None:
        """End the life there is, now."""
        if self._process is not None:
            self._process.kill()

    async def renew(self) -> bool:
        """End this life and begin another; answers whether that one became ready."""
        if self.state in ("done", "stopped", "waiting"):
            return False
        before, settled = self.lives, ("ready", "running", "restarting", "gave up", "done")
        self._again.set()
        await self._around.bell.until(
            lambda: self._stop.is_set() or (self.lives > before and self.state in settled)
        )
        return self.state in ("ready", "running", "done")

    async def _pause(self, wait_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._again.wait()
            self._again.clear()
            self._budget.forgive()

    async def _life(self) -> tuple[Ended, str]:
        """One life: how it ended, and why we ended it if it was us."""
        self.lives += 1
        self.gave_up = False
        self.port = (self.service.port or free_port()) if self.service.listens else None
        endpoint = Endpoint(f"{self.name}#{self.lives}", self.name, self.port or 0)
        self._enter("starting")
        port = str(self.port or "")
        env = {**self._around.env, **self.service.env, "ATOLL_INSTANCE": self.name}
        if port:
            env["PORT"] = port
        command = [word.replace("$PORT", port) for word in self.service.command]
        process = self._process = Process(command, env, self._around.folder)
        await process.start(self._output.feed)
        over = asyncio.create_task(process.wait())
        watch = asyncio.create_task(self._watch(endpoint))
        asked = asyncio.create_task(self._again.wait())
        try:
            await asyncio.wait({over, watch, asked}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                return over.result(), ""
            reason = watch.result() if watch.done() else ""
            watch.cancel()
            return await self._put_down(process, endpoint, reason), reason
        finally:
            for task in (over, watch, asked):
                task.cancel()
            self._pool.forget(endpoint)
            self._output.end_line()
            self._process = None

    async def _put_down(self, process: Process, endpoint: Endpoint, reason: str) -> Ended:
        """No new requests, then SIGTERM, then SIGKILL; one grace for both waits."""
        self._pool.remove(endpoint)
        self._enter("stopping", reason, bad=bool(reason))
        until = clock.loop_now() + self.service.stop_grace_s
        await self._pool.idle(endpoint, self.service.stop_grace_s)
        ended = await process.end(max(0.1, until - clock.loop_now()))
        if ended.code == -9 and not reason:
            cause = f"did not stop within {self.service.stop_grace_s:g} s"
            self._around.feed.say(self.name, "killed", cause, bad=True)
            self._output.note(f"{self.name} killed: {cause}")
        return ended

    async def _watch(self, endpoint: Endpoint) -> str:
        """Say when it is ready and when not; answers why the life must end."""
        problem = await self._until_ready(endpoint)
        if problem:
            return f"not ready within {self.service.start_grace_s:g} s: {problem}"
        self._become_ready(endpoint)
        misses = {"ready": 0, "live": 0}
        while True:
            suspected = await _set_within(endpoint.suspected, PROBE_EVERY_S)
            problem = await self._probe(endpoint) if self.service.ready or suspected else None
            misses["ready"] = misses["ready"] + 1 if problem else 0
            if problem and (suspected or misses["ready"] >= READY_MISSES) and self.state == "ready":
                self._pool.remove(endpoint)
                await asyncio.sleep(DEATH_S)  # a death explains itself, and ends this watch
                self._enter("unready", problem, bad=True)
            elif not problem and not self._pool.has(endpoint) and endpoint.port:
                self._pool.put(endpoint)
                self._enter("ready")
            if self.service.live and endpoint.port:
                dead = await health.answers(endpoint.port, self.service.live)
                misses["live"] = misses["live"] + 1 if dead else 0
                if dead and misses["live"] >= LIVE_MISSES:
                    return f"not live, {LIVE_MISSES} times: {dead}"

    async def _until_ready(self, endpoint: Endpoint) -> str | None:
        until, pause = clock.loop_now() + self.service.start_grace_s, 0.02
        if not self.service.ready:
            await asyncio.sleep(ALIVE_S)
        while problem := await self._probe(endpoint):
            if clock.loop_now() > until:
                return problem
            await asyncio.sleep(pause)
            pause = min(0.25, pause * 1.5)
        return None

    async def _probe(self, endpoint: Endpoint) -> str | None:
        if self.service.ready:
            return await health.answers(endpoint.port, self.service.ready)
        return await health.accepts(endpoint.port) if endpoint.port else None

    def _become_ready(self, endpoint: Endpoint) -> None:
        if self._ended_at is not None and self.restarts:
            self.last += f", back after {clock.loop_now() - self._ended_at:.1f} s"
        self.ready_once = not self.service.once
        if endpoint.port:
            self._pool.put(endpoint)
        self._enter("running" if self.service.once else "ready")

    def _give_up(self, cause: str) -> None:
        self.gave_up = True
        limits = self.service.restarts
        often = f"after {limits.most} restarts within {limits.within_s:g} s" if limits.most else "no restarts"
        self._enter("gave up", f"{cause}, {often}; see: atoll logs {self.service.name}", bad=True)

    def _note_end(self, how: str) -> None:
        self.last_at = clock.wall_now()
        self.last = f"{time.strftime('%H:%M:%S', time.localtime(self.last_at))} {how}"

    def _enter(self, state: str, cause: str = "", *, bad: bool = False) -> None:
        if state == self.state:
            return
        self.state, self.cause, self.since = state, cause, clock.wall_now()
        self._around.feed.say(self.name, state, cause, bad=bad)
        self._output.note(f"{self.name} {state}{f': {cause}' if cause else ''}")
        self._around.bell.ring()


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


def free_port(tries: int = 200, probe: Callable[[int], bool] | None = None) -> int:
    """A loopback port nobody has now."""
    free = probe or _is_free
    for _ in range(tries):
        port = clock.chance().choice(PORTS)
        if free(port):
            return port
    raise OSError(f"found no free port between {PORTS.start} and {PORTS.stop} in {tries} tries")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
