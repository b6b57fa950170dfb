"""3.4: a port that a server was given is nobody else's, also while that server is down."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.verify.servers.process import PORTS, ServerFailed, free_port

ANOTHER = """
import sys
from atoll.verify.servers import process
process.PORTS = range(int(sys.argv[1]), int(sys.argv[1]) + 1)
try:
    print(process.free_port())
except process.ServerFailed as error:
    print(error)
"""


def another(port: int) -> str:
    """What another process is told that wants just this port."""
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER, str(port)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def outgoing() -> range:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return range(low, high + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps such names")
def test_two_processes_are_never_given_the_same_port_though_nobody_listens() -> None:
    port = free_port()
    assert another(port) == f"found no free port from {port} to {port} in 500 tries"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps such names")
def test_a_port_is_free_again_when_its_process_has_ended() -> None:
    port = free_port()
    neighbour = next(n for n in PORTS if abs(n - port) > 3 and another(n) == str(n))
    assert another(neighbour) == str(neighbour), "the first asker has ended"


def test_a_port_on_which_somebody_listens_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        port = busy.getsockname()[1]
        monkeypatch.setattr("atoll.verify.servers.process.PORTS", range(port, port + 1))
        with pytest.raises(ServerFailed, match="no free port"):
            free_port(3)


def test_no_outgoing_connection_can_take_one() -> None:
    taken = outgoing()
    if taken != range(32768, 61000):
        pytest.skip(f"this machine's outgoing ports are its own choice: {taken}")
    assert not set(taken) & set(PORTS)
