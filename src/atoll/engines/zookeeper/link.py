"""Link: one session with the ensemble, and how a question to it ends.

A phone line to an office with several desks. When the desk hangs up, the line dials the next one by itself; a
question that was never spoken is simply asked again, one that was spoken and not answered is not known.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.protocol.states import KazooState, KeeperState

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.zookeeper import bridge
from atoll.engines.zookeeper.bridge import Ensemble
from atoll.engines.zookeeper.wire import Reply, Request
from atoll.errors import AtollError, ConfigurationError, NotSent, OutcomeUnknown, Overloaded

log = logging.getLogger("atoll.zookeeper")
_CLOSE_S = 2.0
_LOOK_S = 0.5
_LOST = (ConnectionLoss, ConnectionClosedError, SessionExpiredError)

Make = Callable[[], Request]


class SessionOver(Exception):
    """The session has ended, and this link does not begin another."""


class _Lost(Exception):
    def __init__(self, sent: bool) -> None:
        self.sent = sent


class Link:
    """A session. `lasting`: begin another when it ends; otherwise it is a lease, and its end is the end."""

    def __init__(self, ensemble: Ensemble, *, lasting: bool, client: KazooClient | None = None) -> None:
        self.ensemble, self.lasting = ensemble, lasting
        self.over: str | None = None
        self.zxid = 0
        """The highest this link has been answered with."""
        self._given = client
        self._client = client
        self._closing = False
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._gone, self._pid = threading.Event(), os.getpid()
        self._wish_s = 0.0
        self._down_since = clock.lease_now()

    def begin(self, wish_s: float) -> None:
        """Start connecting; `wish_s`: the session's time as wished."""
        self._wish_s, self._down_since = wish_s, clock.lease_now()
        if self._given is not None:
            self._given.add_listener(self._changed)
            if not self._given.connected:
                self._given.start_async()
            return
        self._gone = gone = threading.Event()

        def ended() -> None:
            bridge.release(client)
            gone.set()
            if gone is self._gone:
                self._ended()

        client = bridge.connect(self.ensemble, wish_s, pings=self.lasting, changed=self._changed, ended=ended)
        self._client = client

    @property
    def client(self) -> KazooClient:
        assert self._client is not None, "the link was not begun"
        return self._client

    @property
    def session(self) -> int:
        """The session's number, 0 while there is none."""
        return self.client._session_id or 0

    @property
    def granted_s(self) -> float:
        """The session's time as the server gave it."""
        return bridge.granted_s(self.client, self.ensemble.options.session_s)

    async def up(self, what: str, due: float) -> None:
        """Until there is a connection. NotSent when there is none by `due`; SessionOver."""
        while not self.client.connected:
            self._check()
            if clock.loop_now() >= due:
                raise NotSent(
                    f"{what} was not sent: no server of {self.ensemble.url} took us on in time. Nothing "
                    "happened. See whether the servers run, have a majority, and let this host in."
                )
            await self._change(min(due, clock.loop_now() + _LOOK_S), lambda: self.client.connected)
        self._check()

    async def _change(self, until: float, already: Callable[[], bool]) -> None:
        """Until something changed about the connection, unless it has `already`; at most `until`."""
        loop = asyncio.get_running_loop()
        mine = (loop, loop.create_future())
        with self._lock:
            self._waiting.append(mine)
        try:
            if not already():
                async with asyncio.timeout_at(until):
                    await mine[1]
        except TimeoutError:
            return
        finally:
            with self._lock, suppress(ValueError):
                self._waiting.remove(mine)

    async def ask(
        self,
        what: str,
        make: Make,
        due: float,
        *,
        before: Make | None = None,
        repeat: bool = False,
        id: str | None = None,
    ) -> Reply:
        """The answer to `make()`, with `before()` sent ahead of it in the same breath.

        NotSent, OutcomeUnknown with `id`; `repeat`: asking twice is harmless, so a lost answer is asked for
        again. SessionOver on a link that does not last.
        """
        while True:
            await self.up(what, due)
            requests = [make()] if before is None else [before(), make()]
            try:
                reply = await self._once(what, requests, due, id)
            except _Lost as lost:
                if self.over is not None and (repeat or not lost.sent):
                    raise SessionOver(self.over) from None
                if lost.sent and not repeat:
                    raise OutcomeUnknown(
                        f"{what} was sent to {self.ensemble.url}, and the connection broke before an answer "
                        "came. It may have happened: read before you ask again.",
                        id=id,
                    ) from None
                if clock.loop_now() >= due:
                    raise NotSent(f"{what} was not sent before its deadline. Nothing happened.") from None
                await asyncio.sleep(0.005)
                continue
            self.zxid = max(self.zxid, reply.zxid)
            return reply

    async def _once(self, what: str, requests: Sequence[Request], due: float, id: str | None) -> Reply:
        if bridge.in_flight(self.client) >= self.ensemble.options.in_flight_max:
            raise Overloaded(
                f"{self.ensemble.options.in_flight_max} calls to {self.ensemble.url} are on their way "
                f"already (in_flight_max); {what} was not sent. Come back a little later."
            )
        began = clock.loop_now()
        futures = [bridge.post(self.client, request) for request in requests]
        try:
            async with asyncio.timeout_at(due) as limit:
                answers = await asyncio.gather(*futures)
        except TimeoutError:
            if not limit.expired():
                raise
            if requests[-1].withdraw():
                raise NotSent(f"{what} was not sent before its deadline. Nothing happened.") from None
            raise call.unknown(what, self.ensemble.url, clock.loop_now() - began, id) from None
        except asyncio.CancelledError:
            for request in requests:
                request.withdraw()
            raise
        except SessionMovedError:
            raise _Lost(False) from None
        except _LOST:
            raise _Lost(not requests[-1].withdraw()) from None
        except KazooException as error:
            raise self._translated(what, error) from error
        return Reply._make(answers[-1])  # kazoo has made a list of a multi's

    def _translated(self, what: str, error: KazooException) -> AtollError:
        if isinstance(error, NoAuthError | AuthFailedError):
            return forbidden(self.ensemble.url, what)
        return ConfigurationError(
            f"{self.ensemble.url} answered {type(error).__name__} to {what}; expected a server of ZooKeeper "
            "3.6 or later that takes requests of this size. Nothing was written."
        )

    def _check(self) -> None:
        if self.over is not None:
            raise SessionOver(self.over)
        if self.client._state == KeeperState.AUTH_FAILED:
            raise forbidden(self.ensemble.url, "our credentials")
        if self._closing:
            raise NotSent(f"{self.ensemble.url} was closed. Nothing was sent.")
        if not self.lasting or self._given is not None:
            return
        # A session this long without a server has ended. Servers that went back in time take none on that
        # has seen more than they know, so it begins anew; what was seen is compared elsewhere.
        down_s = clock.lease_now() - self._down_since
        dead = not self.client.connected and down_s > 2 * self.granted_s + self.ensemble.options.connect_s
        if dead or self._gone.is_set():
            bridge.begin_close(self.client)
            self.begin(self._wish_s)

    def _changed(self, state: Any) -> None:
        """Called by kazoo, in its thread."""
        if state == KazooState.LOST and not self.lasting and self.over is None:
            self.over = "the servers have ended its session"
            self.client._stopped.set()
        self._down_since = clock.lease_now()
        log.info("%s is %s", self.ensemble.url, str(state).lower())
        self._tell()

    def _ended(self) -> None:
        """The client's thread is about to end."""
        if not self.lasting and self.over is None:
            self.over = "its connection was closed"
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(_resolve, future)

    def hang_up(self) -> None:
        """Have the session ended, where a server can be told, and the thread. Does not wait."""
        if os.getpid() != self._pid:  # a forked child: it is its parent's
            return
        self._closing = True
        if self._given is not None:
            self._given.remove_listener(self._changed)
        elif self._client is not None and not self._gone.is_set():
            bridge.begin_close(self._client)

    async def close(self) -> None:
        """End the session and wait for it, a little."""
        self.hang_up()
        if self._given is not None or self._client is None:
            return
        until = clock.loop_now() + _CLOSE_S
        while not self._gone.is_set() and clock.loop_now() < until:
            await self._change(until, self._gone.is_set)


def forbidden(url: str, what: str) -> ConfigurationError:
    """The sentence for a refusal by the servers' access control."""
    return ConfigurationError(
        f"{url} refuses {what} (no authority). Give the user and password with which the nodes below our "
        "root were made (zookeeper://user:password@...), or have an administrator set their ACL."
    )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
