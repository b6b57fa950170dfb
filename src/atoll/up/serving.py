"""Serves an ASGI application on a socket of ours, inside a loop that has other work to do.

A stall in a market hall: the hall has its own opening hours and its own fire bell, so the stall does
not install bells, and closes when it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from atoll.errors import AtollError, MissingExtra

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEAD_BYTES_MAX = 64 * 1024
HEAD_S = 10.0
"""How long a visitor may take to say what it wants; also how long a connection may idle."""
CONNECTIONS_MAX = 2000
BACKLOG = 1024


class PortBusy(AtollError):
    """Somebody else listens on the port that the manifest names."""


def listen(host: str, port: int, purpose: str) -> socket.socket:
    """Bind and listen; port 0 takes a free one. PortBusy says who has it, where that can be seen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise PortBusy(f"{purpose}: cannot listen on {host} port {port}: {error.strerror}.") from None
        raise PortBusy(
            f"{purpose}: port {port} is taken by {_holder(port)}. Stop that, or write another port."
        ) from None
    sock.setblocking(False)
    return sock


def _holder(port: int) -> str:
    with contextlib.suppress(Exception):  # whoever may not look is told less, never stopped
        import psutil

        for connection in psutil.net_connections("tcp"):
            if connection.status == "LISTEN" and connection.laddr and connection.laddr.port == port:
                if connection.pid:
                    return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


class Serving:
    """One application on one socket."""

    def __init__(self, application: Application, sock: socket.socket, *, grace_s: float) -> None:
        self._sock = sock
        self.port: int = sock.getsockname()[1]
        self._accepting = asyncio.Event()
        self._server = _server(application, grace_s, self._accepting)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        await self._accepting.wait()

    async def close(self) -> None:
        """Accept no more, finish what is in flight within the grace."""
        self._server.should_exit = True
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError, SystemExit):
                await asyncio.shield(self._task)

    def abort(self) -> None:
        """Finish nothing."""
        self._server.should_exit = self._server.force_exit = True


def _server(application: Application, grace_s: float, accepting: asyncio.Event) -> Any:
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise missing(error) from error

    class Quiet(uvicorn.Server):
        """Leaves the signals to `up`."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            accepting.set()

    config = uvicorn.Config(
        application, http=_impatient(), ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=max(1, round(grace_s)), h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )  # fmt: skip
    return Quiet(config)


def _impatient() -> Any:
    """HTTP/1.1 that waits HEAD_S at most for a whole head, so that half requests take no places for ever."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        _due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._look()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _look(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._due is None and not self.transport.is_closing():
                self._due = self.loop.call_later(HEAD_S, self.transport.close)

        def _stop(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

    return Impatient


def missing(error: ModuleNotFoundError) -> MissingExtra:
    """The line to type when a library of the extra is not there."""
    return MissingExtra(
        f"`atoll up` needs the package {error.name!r}, which is not installed. "
        'Type: pip install "atoll[up]"   or: uvx --from "atoll[up]" atoll up'
    )


async def answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """One whole response."""
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
