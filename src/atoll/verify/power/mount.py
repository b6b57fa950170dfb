"""Mount: a forgetting disk under a folder, in a process of its own; and the plug to pull.

The fuse box in the cellar. Upstairs everything runs as on any other disk; whoever is in the cellar can take
the power away, and what was not engraved by then is gone.

Needs Linux, /dev/fuse and root (of the machine, or of a user namespace).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import select
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from atoll import clock
from atoll.errors import AtollError
from atoll.verify.power import protocol
from atoll.verify.power.disk import Counts, Disk
from atoll.verify.power.kernel import Kernel
from atoll.verify.privilege import SYS_ADMIN, lacking

NOSUID_NODEV, DETACH = 2 | 4, 2
ANSWER_S = 30.0


class NoDisk(AtollError):
    """A forgetting disk cannot be mounted here; the message says why."""


def missing() -> str:
    """Why no forgetting disk can be had here; empty where it can."""
    if why := lacking(SYS_ADMIN):
        return why
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return ""


@dataclass(slots=True)
class PowerDisk:
    """A folder `path` on a disk that forgets what was not forced. `below`: where the content really lies."""

    below: Path
    path: Path = field(init=False)
    cuts: list[Counts] = field(default_factory=list)
    _child: asyncio.subprocess.Process | None = None

    def __post_init__(self) -> None:
        self.path = self.below / "disk"

    async def __aenter__(self) -> Self:
        if why := missing():
            raise NoDisk(f"{why}.")
        self.path.mkdir(parents=True, exist_ok=True)
        self.below.chmod(0o755)
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "atoll.verify.power.mount",
            str(self.below),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        await self._answer()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._child is not None and self._child.stdin is not None
        self._child.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()
            _unmount(self.path)

    async def cut(self, seed: int | None = None) -> Counts:
        """Take the power away and give it back: the folder holds what was forced. Kill who uses it first.

        With a seed some of what was not forced is there all the same, as a disk may have it.
        """
        counts = Counts(**(await self._ask({"cut": seed}))["counts"])
        self.cuts.append(counts)
        return counts

    async def hang(self, within_s: float = 3.0) -> bool:
        """From now on no fsync of unforced bytes is answered. Waits for the first; False: none came in time.

        A plug pulled at any moment may find all forced, and then nothing was tried. Whoever waits on a disk
        that hangs cannot die before the `cut`.
        """
        return bool((await self._ask({"hang": within_s}))["hanging"])

    async def settle(self) -> None:
        """All there is counts as forced: what a disk left alone for a while has written by itself."""
        await self._ask({"settle": True})

    async def counts(self) -> Counts:
        """What happened on it so far."""
        return Counts(**(await self._ask({}))["counts"])

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._child is not None and self._child.stdin is not None
        self._child.stdin.write(json.dumps(question).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._child is not None and self._child.stdout is not None and self._child.stderr is not None
        async with asyncio.timeout(ANSWER_S):
            line = await self._child.stdout.readline()
            if not line:
                said = (await self._child.stderr.read()).decode(errors="replace").strip().splitlines()
                raise NoDisk(f"the forgetting disk ended: {''.join(said[-1:])}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _mount(target: Path) -> int:
    """Mount; answers the descriptor on which the kernel asks."""
    handle = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    words = f"fd={handle},rootmode=40755,user_id=0,group_id=0,allow_other"
    if libc.mount(b"atoll", os.fsencode(target), b"fuse.atoll", NOSUID_NODEV, words.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
    return handle


def _unmount(target: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(target), DETACH)


class Session:
    """One life of the disk, from power on to power off."""

    def __init__(self, below: Path) -> None:
        self.target = below / "disk"
        self.disk = Disk(below)
        self.kernel = Kernel(self.disk)
        self.handle = _mount(self.target)
        self.hanging = False
        self.held = 0

    def serve(self) -> None:
        """Answer one question of the kernel."""
        try:
            request = os.read(self.handle, protocol.BUFFER)
        except (BlockingIOError, InterruptedError, FileNotFoundError):
            return
        if self.hanging and self.kernel.would_force(request):
            self.held += 1
            return
        answer = self.kernel.answer(request)
        if answer is not None:
            with suppress(FileNotFoundError):  # whoever asked was killed meanwhile
                os.write(self.handle, answer)

    def off(self) -> None:
        """No question is answered any more; whoever waits is told that the disk is gone."""
        os.close(self.handle)
        _unmount(self.target)
        self.kernel.close()


def main(below: Path) -> int:
    """The disk's own process: questions of the kernel, and words on standard input until that ends."""
    session, cuts, words = Session(below), 0, b""
    _say(session)
    try:
        while True:
            _serve_until(session, 0)
            if not (heard := os.read(0, 4096)):
                return 0
            words += heard
            while b"\n" in words:
                line, _, words = words.partition(b"\n")
                question = json.loads(line)
                if "cut" in question:
                    cuts += 1
                    session = _cut(session, below, question["cut"], cuts)
                    continue
                if "settle" in question:
                    session.disk.force_all()
                if "hang" in question:
                    session.hanging = True
                    _serve_until(session, float(question["hang"]))
                _say(session)
    finally:
        session.off()


def _serve_until(session: Session, hang_s: float) -> None:
    """Answer the kernel until there is a word on standard input; or a held fsync, or `hang_s` is over."""
    poll = select.poll()
    poll.register(session.handle, select.POLLIN)
    if not hang_s:
        poll.register(0, select.POLLIN)
    until = clock.loop_now() + hang_s
    while not hang_s or (not session.held and clock.loop_now() < until):
        ready = {number for number, _ in poll.poll(50 if hang_s else None)}
        if 0 in ready:
            return
        if session.handle in ready:
            session.serve()


def _cut(session: Session, below: Path, seed: int | None, number: int) -> Session:
    """Power off, and on again: the next life of the disk."""
    session.off()
    session.disk.cut(None if seed is None else random.Random(seed))
    counts = session.disk.counts
    counts.cuts = number
    following = Session(below)
    following.disk.counts = counts
    _say(following)
    following.disk.counts = Counts(cuts=number)
    return following


def _say(session: Session) -> None:
    """What happened so far, in a line for whoever asked."""
    print(json.dumps({"counts": asdict(session.disk.counts), "hanging": session.held > 0}), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
