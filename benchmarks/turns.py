"""Round trips and forced writes, counted from outside: a porter on the wire, an eye on the server's calls.

A round trip is counted when a client speaks after the server has spoken. What one side says in several pieces
is one turn, so a pipeline is one, however many commands it holds.
"""

from __future__ import annotations

import re
import selectors
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Porter:
    """A TCP proxy in a thread of its own. `turns`: round trips seen on all its connections."""

    def __init__(self, host: str, port: int) -> None:
        self.turns = 0
        self._target = (host, port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._ears = selectors.DefaultSelector()
        self._ears.register(self._door, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._asks: dict[socket.socket, bool] = {}
        self._spoke: dict[socket.socket, bool] = {}
        self._open = True
        threading.Thread(target=self._serve, name="porter", daemon=True).start()

    def close(self) -> None:
        self._open = False

    def _serve(self) -> None:
        while self._open:
            for key, _ in self._ears.select(0.05):
                if key.fileobj is self._door:
                    self._welcome()
                else:
                    self._carry(key.fileobj)  # type: ignore[arg-type]
        for one in [self._door, *self._other]:
            one.close()

    def _welcome(self) -> None:
        client, _ = self._door.accept()
        server = socket.create_connection(self._target)
        for one, other, asks in ((client, server, True), (server, client, False)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._other[one], self._asks[one] = other, asks
            self._spoke[one] = False
            self._ears.register(one, selectors.EVENT_READ)

    def _carry(self, one: socket.socket) -> None:
        other = self._other.get(one)
        if other is None:
            return
        try:
            said = one.recv(1 << 16)
        except OSError:
            said = b""
        if not said:
            for end in (one, other):
                self._ears.unregister(end)
                self._other.pop(end, None)
                end.close()
            return
        if self._asks[one] and not self._spoke[one]:
            self.turns += 1
        self._spoke[one], self._spoke[other] = True, False
        other.sendall(said)


@contextmanager
def porter(host: str, port: int) -> Iterator[Porter]:
    """A way to the server on which round trips are counted."""
    one = Porter(host, port)
    try:
        yield one
    finally:
        one.close()


class Written:
    """`count`: forced writes of the watched processes, once the watching has ended."""

    count = 0


@contextmanager
def forced_by(pids: Sequence[int]) -> Iterator[Written]:
    """Count fsync, fdatasync and msync of running processes with strace."""
    seen = Written()
    with tempfile.TemporaryDirectory(prefix="atoll-strace-") as folder:
        path = Path(folder) / "calls"
        words = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,msync", "-o", str(path)]
        watcher = subprocess.Popen(
            [*words, *(word for pid in pids for word in ("-p", str(pid)))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 10
            while not all(_watched(pid) for pid in pids) and time.monotonic() < until:
                time.sleep(0.01)
            yield seen
            time.sleep(0.1)  # what was forced just now is written down by then
        finally:
            watcher.terminate()
            watcher.wait(timeout=20)
        text = path.read_text(errors="replace") if path.exists() else ""
        seen.count = len(re.findall(r"(?:fsync|fdatasync|msync)\(", text))


def _watched(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    return "TracerPid:\t0" not in status
