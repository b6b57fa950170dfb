"""`atoll up` itself: takes the folder, opens the doors, starts the services, and clears up at the end.

A caretaker's day: first see that nobody else has the keys, then unlock, then look after the house,
and at night go round in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from atoll import clock
from atoll.errors import AtollError
from atoll.up.admin import Admin
from atoll.up.control import CARD, Control, Say
from atoll.up.feed import Feed, Happening
from atoll.up.gateway import Gateway
from atoll.up.manifest import Manifest
from atoll.up.output import Console
from atoll.up.panels import Panels
from atoll.up.serving import Serving, listen
from atoll.up.standing import Standing
from atoll.up.supervisor import Supervisor, check_commands

LOCK = "up.lock"
FOLDER_EVERY_S = 1.0


class AlreadyUp(AtollError):
    """Another `atoll up` has this folder."""


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[Callable[[], bool]]:
    """The folder is ours until we end; the kernel gives it back when we die.

    What comes back tells whether it still is: a lock on a file that was removed keeps nobody out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUp(_who_has(file, folder)) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()

        def ours() -> bool:
            try:
                return os.path.samestat(path.stat(), os.fstat(file.fileno()))
            except OSError:
                return False

        yield ours


def _who_has(file: IO[str], folder: Path) -> str:
    file.seek(0)
    pid = file.read().strip() or "not known"
    return (
        f"another `atoll up` already runs in {folder.parent} (pid {pid}). "
        f"See it with `atoll status`, or stop it with: kill {pid}"
    )


class App:
    """One run of one manifest. `until`: a service that runs once, whose end ends the run."""

    def __init__(self, manifest: Manifest, *, quiet: bool = False, until: str | None = None) -> None:
        self._manifest = manifest
        self._until = until
        self._quiet = quiet
        self._lost = False
        self._console = Console(quiet=quiet)
        self._feed = Feed()
        self._feed.listen(self._tell)
        self._panels = Panels(manifest)
        self._asked_to_stop = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self._gateway_door: Serving | None = None
        self._closing: Serving | None = None

    async def run(self) -> int:
        """From the first check to the last process; answers the exit code."""
        manifest = self._manifest
        try:
            async with self._stack as stack:
                stack.callback(self._console.close)
                check_commands(manifest)
                ours = stack.enter_context(folder_lock(manifest.state_folder))
                supervisor = await self._open(stack)
                self._hear_signals(supervisor)
                self._console.say(self._greeting())
                supervisor.start()
                lost = asyncio.create_task(self._folder_lost(ours))
                well = await self._wait(supervisor)
                lost.cancel()
                self._feed.say("up", "stops", "asked to" if well is None else f"{self._until} is over")
                await supervisor.drain(self._before_stop)
                gave_up = supervisor.gave_up
                if gave_up:
                    self._console.say(f"atoll: gave up: {', '.join(gave_up)}; their output: .atoll/logs/")
                return 1 if gave_up or well is False or self._lost else 0
        finally:
            self._console.close()

    async def _open(self, stack: contextlib.AsyncExitStack) -> Supervisor:
        """Every door before any service, so that a busy port starts nothing."""
        manifest, options = self._manifest, self._manifest.gateway
        extra: dict[str, str] = {}
        gateway_sock = None
        if options:
            gateway_sock = listen(options.host, options.port, "[gateway]")
            stack.callback(gateway_sock.close)
            host = f"[{options.host}]" if ":" in options.host else options.host
            extra["ATOLL_GATEWAY"] = f"http://{host}:{gateway_sock.getsockname()[1]}"
        admin_sock = listen("127.0.0.1", manifest.admin_port, "[admin]")
        stack.callback(admin_sock.close)
        supervisor = Supervisor(manifest, self._feed, self._console, extra)
        traffic = {}
        if options and gateway_sock:
            gateway = Gateway(options, supervisor.pools)
            stack.push_async_callback(gateway.close)
            traffic = gateway.traffic
            grace = max(s.stop_grace_s for s in manifest.services if s.routed)
            self._gateway_door = Serving(gateway, gateway_sock, grace_s=grace)
            await self._gateway_door.start()
        stack.push_async_callback(self._panels.close)
        self._standing = Standing(supervisor, self._panels, traffic)
        admin = Serving(Admin(self._standing, self._feed), admin_sock, grace_s=1.0)
        await admin.start()
        stack.push_async_callback(admin.close)
        self._standing.addresses = {
            "gateway": extra.get("ATOLL_GATEWAY"),
            "admin": f"http://127.0.0.1:{admin.port}",
        }
        self._supervisor = supervisor
        control = Control(manifest.state_folder, self._answer)
        await control.open()
        stack.push_async_callback(control.close)
        self._write_card(stack)
        return supervisor

    def _write_card(self, stack: contextlib.AsyncExitStack) -> None:
        """Where to find us: for the command, and for people."""
        card = {"format": 1, "app": self._manifest.name, "pid": os.getpid(), "started_at": clock.wall_now()}
        path = self._manifest.state_folder / CARD
        new = path.with_suffix(".new")
        new.write_text(json.dumps({**card, **self._standing.addresses}, indent=1) + "\n")
        new.replace(path)
        stack.callback(path.unlink, missing_ok=True)

    def _hear_signals(self, supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()

        def asked(name: str) -> None:
            if not self._asked_to_stop.is_set():
                self._console.say(f"atoll: {name}, stopping; once more kills")
                self._asked_to_stop.set()
                return
            self._console.say(f"atoll: {name} again, killing")
            if self._closing:
                self._closing.abort()
            supervisor.kill()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, asked, number.name)

    async def _wait(self, supervisor: Supervisor) -> bool | None:
        """None: asked to stop. Else whether the service of `until` ended well."""
        stop = asyncio.create_task(self._asked_to_stop.wait())
        over = asyncio.create_task(supervisor.until_over(self._until)) if self._until else None
        await asyncio.wait({task for task in (stop, over) if task}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if over is None or not over.done():
            if over:
                over.cancel()
            return None
        return over.result()

    async def _folder_lost(self, ours: Callable[[], bool]) -> None:
        """Without its folder nothing keeps a second `up` out, so this one ends."""
        while ours():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLDER_EVERY_S):
                    await self._asked_to_stop.wait()
                    return
        self._lost = True
        self._console.say(f"atoll: {self._manifest.state_folder} was removed under this `up`, stopping")
        self._asked_to_stop.set()

    async def _before_stop(self, service: str) -> None:
        """The gateway closes before the first service it leads to."""
        routed = self._manifest.gateway.routes.values() if self._manifest.gateway else ()
        if self._gateway_door and service in routed:
            door, self._gateway_door = self._gateway_door, None
            self._closing = door
            await door.close()

    async def _answer(self, question: dict[str, Any], say: Say) -> None:
        match question:
            case {"ask": "status"}:
                await say({"status": await self._standing.now(), "end": True})
            case {"ask": "restart", "service": str(name)} if name in self._supervisor.instances:
                await self._restart(name, say)
            case {"ask": "restart", "service": str(name)}:
                known = ", ".join(self._supervisor.instances)
                await say({"error": f"found no service {name!r}; this app has {known}"})
            case _:
                await say(
                    {"error": f"found the question {question.get('ask')!r}; expected status or restart"}
                )

    async def _restart(self, name: str, say: Say) -> None:
        async def line(text: str) -> None:
            with contextlib.suppress(OSError):  # whoever asked may leave; the restart goes on
                await say({"line": text})

        well = await self._supervisor.restart(name, line)
        await say({"well": well, "end": True})

    def _tell(self, happening: Happening) -> None:
        if happening.bad and self._quiet:  # else the instance's own output says it
            cause = f": {happening.cause}" if happening.cause else ""
            self._console.say(f"atoll: {happening.who} {happening.what}{cause}")

    def _greeting(self) -> str:
        places = self._standing.addresses
        doors = [f"{name} {place}" for name, place in places.items() if place]
        return f"atoll: {self._manifest.name} is starting; {', '.join(doors)}; Ctrl-C stops it"


def run(manifest: Manifest, *, quiet: bool = False, until: str | None = None) -> int:
    """Run the app in this process until it is over; answers the exit code."""

    app = App(manifest, quiet=quiet, until=until)
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(app.run())
    return uvloop.run(app.run())
