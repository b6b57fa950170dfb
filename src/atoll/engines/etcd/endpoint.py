"""Endpoint: one member's door, and the questions that may be asked through it.

A telephone line with its numbers written out: what a call says first is made once and then said for every
call. Whether the line stands is seen before something is said that may not be said twice.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from atoll.engines.etcd import hpack, wire
from atoll.engines.etcd.call import Call, Ended
from atoll.engines.etcd.http2 import Connection
from atoll.engines.etcd.options import PORT, EtcdOptions

_POST, _HTTP, _HTTPS = b"\x83", b"\x86", b"\x87"
_ALWAYS = (
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "atoll"),
    # A member that knows no leader says so at once, before it does anything.
    ("hasleader", "true"),
)


class Stream:
    """A call of many messages each way."""

    __slots__ = ("_answer", "_call", "_connection")

    def __init__(self, connection: Connection, call: Call, answer: Any) -> None:
        self._connection, self._call, self._answer = connection, call, answer

    def send(self, data: bytes) -> None:
        """Write without waiting; when the stream has ended, its reader finds out."""
        self._connection.send(self._call, data)

    async def read(self) -> Any:
        """The next message, None at the end; raises Ended."""
        data = await self._connection.read(self._call)
        return None if data is None else self._answer(data)

    def cancel(self) -> None:
        """Hear no more of it."""
        self._connection.cancel(self._call)


class Endpoint:
    """One member, in one event loop. Connects at the first question."""

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None) -> None:
        self.host, self.port = host, port or PORT
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.entered = False
        """It was found to be of our cluster, by the connection that stands."""
        self._tls = tls
        self._connection: Connection | None = None
        self._gate = asyncio.Lock()
        self._heads: dict[str, bytes] = {}
        self._token = ""

    @property
    def standing(self) -> bool:
        """The connection on which it was entered is still there."""
        return self.entered and self._connection is not None and self._connection.standing

    async def ask(self, method: str, data: bytes, timeout: float, token: str = "") -> Any:
        """The answer to one question; raises Ended."""
        connection = self._connection
        if connection is None or not connection.standing:
            connection = await self._connect(timeout)
        return wire.ANSWERS[method](await connection.ask(self._head(method, token), data, timeout))

    async def stream(self, method: str, timeout: float, token: str = "") -> Stream:
        """A call of many messages; raises Ended where there is no connection within `timeout`."""
        connection = await self._connect(timeout)
        call = await connection.stream(self._head(method, token))
        return Stream(connection, call, wire.ANSWERS[method])

    async def _connect(self, timeout: float) -> Connection:
        async with self._gate:
            if self._connection is None or not self._connection.standing:
                self.entered = False
                if self._connection is not None:
                    self._connection.close()
                self._connection = await connect(self.host, self.port, self._tls, timeout)
            return self._connection

    def _head(self, method: str, token: str) -> bytes:
        if token != self._token:
            self._heads.clear()
            self._token = token
        head = self._heads.get(method)
        if head is None:
            said = [(":path", wire.PATHS[method]), (":authority", self.address), *_ALWAYS]
            if token:
                said.append(("token", token))
            first = _POST + (_HTTPS if self._tls else _HTTP)
            head = self._heads[method] = first + b"".join(hpack.literal(*pair) for pair in said)
        return head

    def close(self) -> None:
        """Hang up; what is in flight ends."""
        self.entered = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def context(options: EtcdOptions, *, tls: bool) -> ssl.SSLContext | None:
    """What the connection trusts and shows, None where it is not TLS."""
    if not (tls or options.ca or options.cert):
        return None
    made = ssl.create_default_context(cafile=options.ca)
    if options.cert and options.key:
        made.load_cert_chain(options.cert, options.key)
    made.set_alpn_protocols(["h2"])
    return made


async def connect(host: str, port: int, tls: Any, timeout: float) -> Connection:
    """A connection that has been greeted; raises Ended, for nothing was sent."""
    made: Connection | None = None
    try:
        async with asyncio.timeout(timeout):
            _, made = await asyncio.get_running_loop().create_connection(
                Connection, host, port, ssl=tls, server_hostname=host if tls else None
            )
            await made.greeted
            return made
    except TimeoutError:
        why = f"no greeting within {timeout:.3g} s"
    except OSError as error:
        why = f"{error.strerror or error}"
    except BaseException:
        if made is not None:
            made.close()
        raise
    if made is not None:
        made.close()
    raise Ended("UNAVAILABLE", why, sent=False)
