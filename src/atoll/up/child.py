"""The guardian of one instance: starts it, and sees to it that nothing of it stays behind.

A parent who walks a child to school and back. It holds one end of a string (standard input) whose
other end is with `atoll up`; when the string goes slack, because `up` was killed, it takes everything
home: the process, its children, and those that tried to slip away into a session of their own.

Run by its path with the standard library alone. Standard input: commands, a line each (`term`,
`kill`); its end means that `up` is gone. Standard output: the instance's. Standard error: reports
(`pid N`, `failed TEXT`, `status N`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLEANING_S = 5.0
HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the string on standard input still does most of it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def report(line: str) -> None:
    """Tell `up`; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def start(command: list[str]) -> int:
    """Fork and become `command`; answers its pid."""
    guardian = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)):
            signal.signal(number, signal.SIG_DFL)
        reports = os.dup(2)
        os.set_inheritable(reports, False)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(1, 2)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(reports, f"failed {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def children() -> list[int]:
    """Who has this process as parent now: also orphans that came to it as subreaper."""
    mine, found = str(os.getpid()), []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[1].decode() == mine:
                    found.append(int(name))
    return found


def sweep(pid: int) -> None:
    """Kill what is left of the instance, until nothing is."""
    until = time.monotonic() + CLEANING_S
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    while time.monotonic() < until:
        for child in children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def reap(pid: int) -> int | None:
    """Collect the ended; the instance's wait status once it is among them."""
    status = None
    while True:
        try:
            ended, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if ended == 0:
            return status
        if ended == pid:
            status = how


def obey(pid: int, command: bytes) -> None:
    """`term` asks the instance itself to stop; `kill` ends the whole group."""
    with contextlib.suppress(OSError):
        if command == b"term":
            os.kill(pid, signal.SIGTERM)
        elif command == b"kill":
            os.killpg(pid, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Guard `command` until it has ended, or `up` has."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in HANDLED:
        signal.signal(number, lambda *_: None)
    pid = start(command)
    report(f"pid {pid}")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # the instance alone holds its output, so its end is seen
    pending = b""
    while True:
        ready = select.select([0, awake], [], [])[0]
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                if set(os.read(awake, 512)) - {signal.SIGCHLD}:
                    obey(pid, b"term")  # somebody asked the guardian; the instance is meant
            if (status := reap(pid)) is not None:
                sweep(pid)
                report(f"status {status}")
                return 0
        if 0 in ready:
            heard = os.read(0, 512)
            if not heard:
                sweep(pid)
                return 1
            *lines, pending = (pending + heard).split(b"\n")
            for line in lines:
                obey(pid, line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
