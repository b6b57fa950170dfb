"""Bridge: kazoo's client made fit for an event loop, with one thread and no more.

A letterbox in the wall between two rooms. On the far side kazoo's own thread talks to the server; on this
side nobody ever waits for it: what comes back is pushed through the slot into the loop that asked.

What is changed in kazoo: answers and watches go straight to their loop instead of through two more threads;
the session's wished time is not also the patience for a handshake; a lease's session is not pinged, for a
lease lives by being renewed and not by its process being there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionDropped
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import CloseInstance, Connect
from kazoo.retry import KazooRetry

from atoll.engines.zookeeper.limits import ZookeeperOptions
from atoll.engines.zookeeper.wire import Acl

# kazoo logs credentials at DEBUG and a line for every attempt; what matters is logged by the link.
_quiet = logging.getLogger("atoll.zookeeper.kazoo")
_quiet.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """How to reach it. `hosts`: as kazoo takes them; `url`: as it may be shown."""

    hosts: str
    url: str
    options: ZookeeperOptions
    auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def acl(self) -> Acl:
        """Whoever comes with our credentials may do everything; without any, whoever comes."""
        return Acl("auth", "") if self.auth else Acl("world", "anyone")


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """No threads beside the connection's own; watches are called in it and must not block."""

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__()
        self._ended = ended

    def start(self) -> None:
        return None

    def stop(self) -> None:
        return None

    def dispatch_callback(self, callback: Any) -> None:
        callback.func(*callback.args)

    def spawn(self, func: Callable[..., None], *args: Any, **kwargs: Any) -> threading.Thread:
        def run() -> None:
            try:
                func(*args, **kwargs)
            finally:
                self._ended()

        thread = threading.Thread(target=run, name="atoll-zookeeper", daemon=True)
        thread.start()
        return thread


class _Connection(ConnectionHandler):  # type: ignore[misc]
    """Asks for the session's time by itself, and keeps what the server made of it."""

    wish_s = 0.0
    granted_s = 0.0
    pings = True

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        if not isinstance(request, Connect):
            return super()._invoke(timeout, request, xid)
        answer = super()._invoke(timeout, request._replace(time_out=max(1, round(self.wish_s * 1000))), xid)
        if answer[0].time_out > 0:
            self.granted_s = answer[0].time_out / 1000
        return answer

    def _send_ping(self, connect_timeout: float) -> None:
        if self.pings:
            super()._send_ping(connect_timeout)
        elif self.client._pending:
            raise ConnectionDropped("no answer to what was asked a third of the session ago")


def connect(
    ensemble: Ensemble,
    wish_s: float,
    *,
    pings: bool,
    changed: Callable[[Any], None],
    ended: Callable[[], None],
) -> KazooClient:
    """A client that is connecting. `changed` and `ended` are called from its thread."""
    options, handler = ensemble.options, _Handler(ended)
    retry = KazooRetry(
        max_tries=-1, delay=0.05, backoff=2, max_delay=0.5, max_jitter=0.5, sleep_func=handler.sleep_func
    )
    client = KazooClient(
        hosts=ensemble.hosts,
        timeout=options.connect_s,
        handler=handler,
        auth_data=set(ensemble.auth),
        connection_retry=retry,
        command_retry=KazooRetry(sleep_func=handler.sleep_func),
        logger=_quiet,
        **ensemble.tls,
    )
    connection = _Connection(client, client._conn_retry.copy(), logger=_quiet)
    connection.wish_s, connection.pings = wish_s, pings
    client._connection = connection
    client.add_listener(changed)
    client.start_async()
    return client


def granted_s(client: KazooClient, default: float) -> float:
    """The session's time as the server gave it."""
    return getattr(client._connection, "granted_s", 0.0) or default


def begin_close(client: KazooClient) -> None:
    """Have the session closed, where there is a connection, and the thread end. Does not wait."""
    client._stopped.set()
    client._queue.append((CloseInstance, None))
    wake(client)


def release(client: KazooClient) -> None:
    """Give its sockets back, after its thread has ended."""
    with suppress(Exception):
        client._connection.close()


def wake(client: KazooClient) -> None:
    """Have the thread look at its queue."""
    with suppress(Exception):
        client._connection._write_sock.send(b"\0")


def post(client: KazooClient, request: Any) -> asyncio.Future[Any]:
    """Hand `request` to the client's thread; the future belongs to the running loop."""
    answer = _Answer(asyncio.get_running_loop())
    client._call(request, answer)
    return answer.future


def in_flight(client: KazooClient) -> int:
    """Requests without an answer yet."""
    return len(client._queue) + len(client._pending)


class _Answer:
    """What kazoo settles: passes it into the loop that asked."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def set(self, value: Any = None) -> None:
        self._post(value, None)

    def set_exception(self, error: BaseException) -> None:
        self._post(None, error)

    def _post(self, value: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, self.future, value, error)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
        future.exception()  # looked at: a caller that has gone leaves no warning behind
    else:
        future.set_result(value)
