"""`atoll demo lock`: four processes count under one lock; its holder is frozen past its lease.

Two columns on the same store, the same work and the same freezes. The first is the lock everybody writes
once: a key with a time to live. The second is ours, whose token is compared in the write itself. A frozen
process does not know that it was frozen; only the place it writes to can know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atoll.verify import leash

PROCESSES = 4
LEASE_S = 0.4
FROZEN_S = 0.75
WORK_S = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What one way of locking came to."""

    name: str
    said_done: int
    counted: int
    refused: int
    freezes: int

    @property
    def lost(self) -> int:
        """Increments that a worker said were done and the counter does not have."""
        return self.said_done - self.counted


def run(freezes: int = 10, *, progress: Callable[[str], None] = lambda _: None) -> list[Column]:
    """Both columns, one after the other, in a folder that is removed."""
    columns = []
    for way, name in (("ttl", "a lock with a TTL"), ("token", "Atoll, token checked")):
        with tempfile.TemporaryDirectory(prefix="atoll-demo-") as folder:
            columns.append(_column(way, name, Path(folder), freezes, progress))
    return columns


def _column(way: str, name: str, folder: Path, freezes: int, progress: Callable[[str], None]) -> Column:
    from atoll.sync import store

    with _workers(way, folder) as workers:
        done = 0
        while done < freezes:
            if (pid := _holder(folder)) in {w.pid for w in workers}:
                _freeze(folder, pid)
                done += 1
                progress(f"{name}: holder {pid} frozen for {FROZEN_S} s, {done} of {freezes}")
                time.sleep(0.15)
        (folder / "stop").touch()
        figures = [_figures(worker) for worker in workers]
    state = store(f"sqlite:///{folder}/state.db")
    entry, _ = state.get("counter")
    state.close()
    counted = int(entry.value) if entry else 0
    said, refused = sum(f[0] for f in figures), sum(f[1] for f in figures)
    return Column(name=name, said_done=said, counted=counted, refused=refused, freezes=done)


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=leash.environment())


@contextlib.contextmanager
def _workers(way: str, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "atoll.verify.demo_lock", way, str(folder)]
    workers = [_start(command) for _ in range(PROCESSES)]
    try:
        yield workers
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGCONT)
            if worker.poll() is None:
                worker.kill()
            worker.wait()


def _holder(folder: Path, seconds: float = 30.0) -> int:
    """The process that is between its read and its write, as it says itself."""
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((folder / "holder").read_text())
        time.sleep(0.0005)
    raise TimeoutError("no process took the lock within 30 s")


def _freeze(folder: Path, pid: int) -> None:
    """SIGSTOP the holder until its lease is over and somebody else has been at work."""
    os.kill(pid, signal.SIGSTOP)
    with contextlib.suppress(FileNotFoundError):
        (folder / "holder").unlink()
    time.sleep(FROZEN_S)
    os.kill(pid, signal.SIGCONT)


def _figures(worker: subprocess.Popen[str]) -> tuple[int, int]:
    said, _, refused = worker.communicate(timeout=60)[0].partition(" ")
    return int(said), int(refused)


def work(way: str, folder: Path) -> tuple[int, int]:
    """One worker: count under the lock until told to stop; answers (said done, refused)."""
    from atoll.errors import LockLost, NotApplied, OutcomeUnknown

    count = {"ttl": _count_under_ttl, "token": _count_under_token}[way](folder)
    said_done = refused = 0
    while not (folder / "stop").exists():
        try:
            said_done += count()
        except (NotApplied, LockLost) as error:
            refused += type(error).__name__ in ("Refused", "LockLost")
        except OutcomeUnknown:
            refused += 0  # neither said done nor refused: the worker does not know, and does not claim
        time.sleep(0.002)
    return said_done, refused


def _mark(folder: Path) -> None:
    """Say who is between its read and its write, and do the work that takes a moment."""
    note = folder / "holder"
    note.write_text(str(os.getpid()))
    time.sleep(WORK_S)
    note.unlink(missing_ok=True)


def _count_under_ttl(folder: Path) -> Callable[[], int]:
    """A key with a time to live, as most teams write it the first time."""
    from atoll.errors import NotApplied
    from atoll.ports.register import Unmet
    from atoll.ports.store import absent, put
    from atoll.urls import store

    state = store(f"sqlite:///{folder}/state.db")
    loop = asyncio.new_event_loop()

    async def count() -> int:
        leasing = state.leasing
        assert leasing is not None
        lease, _ = await leasing.grant(LEASE_S)
        taken = await state.transact(put("lock", b"mine", lease=lease), compare=[absent("lock")])
        if isinstance(taken, Unmet):
            await leasing.revoke(lease)
            return 0
        entry, _ = await state.get("counter")
        _mark(folder)
        await state.transact(put("counter", str(int(entry.value if entry else 0) + 1).encode()))
        with contextlib.suppress(NotApplied):
            await leasing.revoke(lease)
        return 1

    return lambda: loop.run_until_complete(count())


def _count_under_token(folder: Path) -> Callable[[], int]:
    """The same with `Lock`, and its guard on the write."""
    from atoll.ports.store import put
    from atoll.sync import Lock, store

    state = store(f"sqlite:///{folder}/state.db")

    def count() -> int:
        with Lock(state, "counter", ttl_s=LEASE_S, wait_s=5) as held:
            entry, _ = state.get("counter")
            _mark(folder)
            state.transact(put("counter", str(int(entry.value if entry else 0) + 1).encode()), guard=held)
        return 1

    return count


if __name__ == "__main__":
    leash.hold()
    logging.disable(logging.CRITICAL)  # what happened is in the table
    print(*work(sys.argv[1], Path(sys.argv[2])))
