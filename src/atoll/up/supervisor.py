"""The supervisor: starts services in order, keeps them, restarts them, takes them down.

A stage manager. Nobody goes on before those they wait for have finished or stand ready; whoever falls
is helped up a few times; and at the end the stage is cleared in the opposite order.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from atoll import clock
from atoll.up.bell import Bell
from atoll.up.endpoints import Pool
from atoll.up.feed import Feed
from atoll.up.instance import Instance, Surroundings
from atoll.up.manifest import Manifest, ManifestFaults, Service
from atoll.up.manifest_reader import Fault
from atoll.up.output import Console, Output

LOGS = "logs"


class Supervisor:
    """Runs the services of one manifest. All in one event loop."""

    def __init__(self, manifest: Manifest, feed: Feed, console: Console, extra: Mapping[str, str]) -> None:
        self.manifest = manifest
        self.bell = Bell()
        self.feed = feed
        self.draining = False
        self.pools = {service.name: Pool(service.name) for service in manifest.services}
        self._tasks: list[asyncio.Task[None]] = []
        self._restarting = asyncio.Lock()
        self.instances: dict[str, list[Instance]] = {}
        around = Surroundings(
            env={**environment(manifest), **extra}, folder=manifest.folder, feed=feed, bell=self.bell
        )
        logs = manifest.state_folder / LOGS
        self._outputs: list[Output] = []
        for service in manifest.services:
            row = self.instances[service.name] = []
            for number in range(service.instances):
                output = Output(logs, service.name, f"{service.name}-{number}", console)
                self._outputs.append(output)
                row.append(Instance(service, number, around, self.pools[service.name], output))
        console.names([instance.name for row in self.instances.values() for instance in row])

    def start(self) -> None:
        """Begin to bring everything up; returns at once."""
        self._tasks = [asyncio.create_task(self._bring_up(s)) for s in self.manifest.services]

    async def _bring_up(self, service: Service) -> None:
        await self.bell.until(lambda: self.draining or all(map(self.fulfilled, service.after)))
        if not self.draining:
            await asyncio.gather(*(instance.run() for instance in self.instances[service.name]))

    def fulfilled(self, name: str) -> bool:
        """Whether those that name it in `after` may start: it ended well, or all were ready once."""
        row = self.instances[name]
        return all(i.state == "done" if i.service.once else i.ready_once for i in row)

    def waits_for(self, service: Service) -> list[str]:
        """What a service that has not begun waits for."""
        return [name for name in service.after if not self.fulfilled(name)]

    def hopeless(self, name: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether it has given up, or waits for one that has."""
        if any(instance.gave_up for instance in self.instances[name]):
            return True
        service = self.instances[name][0].service
        seen = seen | {name}
        return any(other not in seen and self.hopeless(other, seen) for other in self.waits_for(service))

    @property
    def gave_up(self) -> list[str]:
        return [i.name for row in self.instances.values() for i in row if i.gave_up]

    async def until_over(self, name: str) -> bool:
        """Until a service that runs once has ended; answers whether well."""
        row = self.instances[name]
        await self.bell.until(
            lambda: self.draining or self.hopeless(name) or all(i.state == "done" for i in row)
        )
        return all(i.state == "done" for i in row)

    async def drain(self, before: Callable[[str], Awaitable[None]]) -> None:
        """Take everything down, dependants first. `before(service)` is awaited ahead of each stop."""
        self.draining = True
        self.bell.ring()
        for layer in reversed(layers(self.manifest.services)):
            for name in layer:
                await before(name)
            row = [instance for name in layer for instance in self.instances[name]]
            await asyncio.gather(*map(self._stop, row))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for output in self._outputs:
            output.close()

    async def _stop(self, instance: Instance) -> None:
        if instance.state == "waiting":
            return
        instance.stop()
        await self.bell.until(lambda: instance.state in ("stopped", "done"))

    def kill(self) -> None:
        """No more grace for anybody."""
        for row in self.instances.values():
            for instance in row:
                instance.stop()
                instance.kill()

    async def restart(self, name: str, say: Callable[[str], Awaitable[None]]) -> bool:
        """Restart a service, one instance at a time, each ready before the next; stops at one that is not."""
        async with self._restarting:
            for instance in self.instances[name]:
                began = clock.loop_now()
                self.feed.say(instance.name, "restarts", "asked by `atoll restart`")
                if not await instance.renew():
                    cause = f": {instance.cause}" if instance.cause else ""
                    await say(f"{instance.name} is {instance.state}{cause}; the others were left as they are")
                    return False
                await say(f"{instance.name} ready after {clock.loop_now() - began:.1f} s")
        return True

    def rows(self) -> list[dict[str, Any]]:
        """Each service as plain values, in the manifest's order."""
        return [self._row(service) for service in self.manifest.services]

    def _row(self, service: Service) -> dict[str, Any]:
        row = self.instances[service.name]
        newest = max(row, key=lambda instance: instance.last_at or 0.0)
        up = sum(i.state in ("ready", "running", "done") for i in row)
        waits = self.waits_for(service) if row[0].state == "waiting" else []
        return {
            "service": service.name,
            "state": _summary([i.state for i in row]),
            "ready": up,
            "wanted": len(row),
            "restarts": sum(i.restarts for i in row),
            "last": newest.last,
            "last_at": newest.last_at,
            "gave_up": [i.name for i in row if i.gave_up],
            "waits_for": waits,
            "instances": [_one(instance) for instance in row],
        }


def _one(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "state": instance.state,
        "cause": instance.cause,
        "pid": instance.pid,
        "port": instance.port,
        "since": instance.since,
        "restarts": instance.restarts,
        "restarts_left": instance.restarts_left,
        "last": instance.last,
    }


def _summary(states: list[str]) -> str:
    """One word for a service: the worst of its instances."""
    order = "gave up,restarting,unready,stopping,starting,waiting,stopped,running,ready".split(",")
    return next((state for state in order if state in states), "done")


def environment(manifest: Manifest) -> dict[str, str]:
    """What every instance gets: ours, then the manifest's URLs, the app's name, this Python's commands."""
    beside = str(Path(sys.executable).parent)
    return {
        "PYTHONUNBUFFERED": "1",
        **os.environ,
        **manifest.environment(),
        "ATOLL_APP": manifest.name,
        "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def check_commands(manifest: Manifest) -> None:
    """Every command must be there before anything is started; ManifestFaults names the lines."""
    faults = []
    for service in manifest.services:
        program = service.command[0]
        path = {**environment(manifest), **service.env}["PATH"]
        where = str(manifest.folder / program) if os.sep in program else program
        if shutil.which(where, path=path) is None:
            wish = f"a program that can be run, in PATH or beside {sys.executable}"
            faults.append(Fault(service.line, f"the command {program!r}, which is not there", wish))
    if faults:
        raise ManifestFaults(manifest.path, faults)


def layers(services: tuple[Service, ...]) -> list[list[str]]:
    """Names in groups: each group stands only on groups before it."""
    left = {service.name: set(service.after) for service in services}
    found: list[list[str]] = []
    while left:
        free = [name for name, after in left.items() if not after & left.keys()]
        assert free, "the manifest was checked for circles"
        found.append(free)
        for name in free:
            del left[name]
    return found
