"""Bad input on the ports of a running app: half and huge requests, odd paths. Others are served meanwhile."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "up"))
from up_process import SHOP, Up, stop_all

DOORS = ["gateway", "admin"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running app of one instance behind a gateway."""
    one = (
        Up(tmp_path_factory.mktemp("ports")).manifest(SHOP.replace("instances = 3", "instances = 1")).start()
    )
    one.ready("api")
    yield one
    code = one.stop()
    stop_all(one)
    assert code == 0, one.output
    assert "Traceback" not in one.output


def talk(port: int, *parts: bytes, wait_s: float = 10.0) -> bytes:
    """Send the parts and read until the other side closes or is silent."""
    heard = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection,
        contextlib.suppress(OSError),
    ):
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        while got := connection.recv(65536):
            heard += got
    return heard


def well(shop: Up, door: str) -> bool:
    return shop.ask(door, "GET", "/metrics" if door == "admin" else "/x")[0] == 200


@pytest.mark.parametrize("door", DOORS)
def test_random_bytes_do_no_harm(door: str, shop: Up) -> None:
    dice = random.Random(11)
    for _ in range(50):
        heard = talk(shop.port(door), dice.randbytes(dice.randrange(1, 3000)))
        assert heard == b"" or heard.split()[1] in (b"400", b"431"), heard[:100]
    assert well(shop, door)


def test_half_requests_are_let_go_and_keep_nobody_out(shop: Up) -> None:
    halves = [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"GET / HT"]
    kept = [(door, half, connected(shop, door)) for door in DOORS for half in halves * 50]
    served = connected(shop, "gateway")  # the second request of a connection is waited for no longer
    served.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert served.recv(65536).startswith(b"HTTP/1.1 200")
    kept.append(("gateway", halves[2], served))
    try:
        for _, half, connection in kept:
            connection.sendall(half)
        assert all(well(shop, door) for door in DOORS)
        due = time.monotonic() + 30
        while time.monotonic() < due and not gone(served):
            with contextlib.suppress(OSError):
                served.sendall(b"a")  # a letter now and then is no progress
            time.sleep(0.2)
        for door, half, connection in kept:
            connection.settimeout(max(0.1, due - time.monotonic()))
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1024) == b"", f"{half!r} was answered by the {door}"
    finally:
        for *_, connection in kept:
            connection.close()
    assert all(well(shop, door) for door in DOORS)


def connected(shop: Up, door: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", shop.port(door)), timeout=30)


def gone(connection: socket.socket) -> bool:
    """Whether the other side has closed it."""
    connection.setblocking(False)
    try:
        return connection.recv(10) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


@pytest.mark.parametrize("door", DOORS)
def test_a_slow_whole_request_is_served(door: str, shop: Up) -> None:
    with socket.create_connection(("127.0.0.1", shop.port(door)), timeout=30) as connection:
        for part in (b"GET /", b"metrics HTTP/1.1\r\n", b"Host: localhost\r\n", b"Connection: close\r\n\r\n"):
            connection.sendall(part)
            time.sleep(0.3)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "head",
    [
        b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 200_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"a" * 200_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    ],
    ids=["path", "header", "headers"],
)
def test_an_enormous_head_is_refused(head: bytes, door: str, shop: Up) -> None:
    heard = talk(shop.port(door), head)
    assert heard == b"" or heard.split()[1] in (b"400", b"414", b"431"), heard[:100]
    assert well(shop, door)


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/\\..\\..", "/."]
)
def test_a_path_out_of_the_page_finds_nothing(path: str, shop: Up) -> None:
    status, _, body = shop.ask("admin", "GET", path)
    assert status == 404 and b"root:" not in body


def test_an_enormous_body_is_refused_or_cut_and_reaches_nobody(shop: Up) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    heard = talk(shop.port("gateway"), head, b"x" * 100_000)
    assert b" 413 " in heard.split(b"\r\n")[0]
    heard = talk(shop.port("admin"), head, b"x" * 100_000)
    assert heard == b"" or b" 405 " in heard.split(b"\r\n")[0]
    assert well(shop, "gateway") and well(shop, "admin")


@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "get"])
def test_a_strange_method_is_answered(method: str, shop: Up) -> None:
    assert shop.ask("admin", method, "/status.json")[0] == 405
    assert 400 <= shop.ask("gateway", method, "/x")[0] < 600


def test_ctrl_c_is_heard_while_half_requests_are_open(tmp_path: Path) -> None:
    manifest = SHOP.replace("instances = 3", "instances = 1\nstop_grace_s = 2")
    up = Up(tmp_path).manifest(manifest).start().ready("api")
    kept = []
    try:
        for door in DOORS:
            for half in (
                b"",
                b"GET / HTTP/1.1\r\nHost: lo",
                b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab",
            ):
                connection = socket.create_connection(("127.0.0.1", up.port(door)), timeout=10)
                connection.sendall(half)
                kept.append(connection)
        began = time.monotonic()
        code = up.stop(signal.SIGINT)
        assert code == 0, up.output
        assert time.monotonic() - began < 30
    finally:
        for connection in kept:
            connection.close()
        stop_all(up)
    assert "Traceback" not in up.output
