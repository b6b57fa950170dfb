"""The gateway: one door for requests from outside, to whichever instance can answer.

A receptionist who knows who is in. She sends each visitor to the shortest line, asks elsewhere when
somebody does not answer, but only if asking twice does no harm, and never so often that the asking
itself becomes the crowd.

Retried on another instance: a request that was never sent, whatever its method; and one that was sent
and got no answer, if it is idempotent (GET, HEAD, PUT, DELETE, OPTIONS, or any with an
`Idempotency-Key`). All retries together are a fifth of the requests at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll import clock
from atoll.algorithms.retry_budget import RetryBudget
from atoll.up.endpoints import Endpoint, Pool
from atoll.up.manifest import Gateway as GatewayOptions
from atoll.up.serving import CONNECTIONS_MAX, HEAD_BYTES_MAX, Receive, Scope, Send, answer, missing
from atoll.up.traffic import Traffic

try:
    import httpcore
except ModuleNotFoundError as error:
    raise missing(error) from error

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade expect host content-length atoll-deadline x-forwarded-for "
    b"x-forwarded-proto x-forwarded-host atoll-fence".split()
)
"""What ends here. A fence of a visitor's own, with a great number, would refuse every lawful holder."""
REPLY_HOP_BY_HOP = frozenset(b"connection keep-alive proxy-connection te trailer transfer-encoding".split())
DEADLINE = b"atoll-deadline"
WHOLE_BYTES_MAX = 1024 * 1024  # an answer this short is read whole, so a death half-way can be retried
NEVER_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout)
DIED = (httpcore.NetworkError, httpcore.ProtocolError)
STOPPING = b"the gateway stopped before this was answered: it may have happened\n"
CONNECT_S = 2.0
IDLE_S = 2.0  # shorter than servers keep a connection, so that a dying one is not chosen


@dataclass(slots=True)
class Asked:
    """One request from outside, whole."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    until: float
    repeatable: bool = False
    tried: set[str] = field(default_factory=set)


class Refused(Exception):
    """An answer of the gateway's own."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


class Gateway:
    """An ASGI application over the pools of the routed services."""

    def __init__(self, options: GatewayOptions, pools: Mapping[str, Pool]) -> None:
        self._options = options
        self._pools = pools
        self._routes = sorted(options.routes.items(), key=lambda pair: -len(pair[0]))
        self.traffic = {name: Traffic() for name in dict.fromkeys(options.routes.values())}
        self.refused = 0
        self._budget = RetryBudget()
        self._connections = httpcore.AsyncConnectionPool(
            max_connections=CONNECTIONS_MAX, max_keepalive_connections=200, keepalive_expiry=IDLE_S
        )

    async def close(self) -> None:
        await self._connections.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = clock.loop_now()
        service = self._route(scope["path"])
        traffic = self.traffic[service] if service else None
        if traffic:
            traffic.in_flight += 1
        status = 500
        try:
            asked = await self._read(scope, receive, began)
            if service is None or traffic is None:
                known = ", ".join(prefix for prefix, _ in self._routes)
                raise Refused(404, f"found no route for {scope['path']}; the gateway knows {known}")
            self._budget.tried()
            status = await self._serve(asked, self._pools[service], traffic, send)
        except Refused as refused:
            status = refused.status
            headers = [(b"content-type", b"text/plain; charset=utf-8"), *refused.headers]
            await answer(send, status, f"{refused}\n".encode(), headers)
            if not traffic:
                self.refused += 1
        except ConnectionResetError:
            status = 499  # the visitor left
        except asyncio.CancelledError:  # the grace of a drain is over; this task ends with this answer
            status = 503
            with contextlib.suppress(Exception):  # where its head was sent already, the connection ends
                await answer(send, status, STOPPING, [(b"content-type", b"text/plain; charset=utf-8")])
        finally:
            if traffic:
                traffic.in_flight -= 1
                traffic.ended(status, clock.loop_now() - began)

    def _route(self, path: str) -> str | None:
        for prefix, service in self._routes:
            if path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/"):
                return service
        return None

    async def _read(self, scope: Scope, receive: Receive, began: float) -> Asked:
        headers = list(scope["headers"])
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Refused(505, f"found HTTP/{scope['http_version']}; the gateway speaks HTTP/1.1")
        if sum(len(name) + len(value) for name, value in headers) > HEAD_BYTES_MAX:
            raise Refused(431, f"the headers are longer than the {HEAD_BYTES_MAX} bytes that pass here")
        until = began + min(self._options.deadline_s, _deadline_s(headers))
        most, chunks, size = self._options.body_bytes_max, [], 0
        if _length(headers) > most:
            raise Refused(413, f"the body is longer than the {most} bytes that pass here")
        more = True
        try:
            async with asyncio.timeout_at(_loop_time(until)):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    more = message.get("more_body", False)
                    if size > most:
                        raise Refused(413, f"the body is longer than the {most} bytes that pass here")
        except TimeoutError:
            raise Refused(408, "the body did not arrive within the deadline") from None
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        keyed = any(name == b"idempotency-key" for name, _ in headers)
        return Asked(
            scope["method"], target, _forwarded(scope, headers, size), b"".join(chunks), until,
            repeatable=keyed or scope["method"] in IDEMPOTENT,
        )  # fmt: skip

    async def _serve(self, asked: Asked, pool: Pool, traffic: Traffic, send: Send) -> int:
        while True:
            left = asked.until - clock.loop_now()
            endpoint = await pool.choose(asked.tried, min(self._options.wait_ready_s, max(0.0, left)))
            if endpoint is None:
                raise Refused(
                    503,
                    f"no instance of {pool.service} is ready; come back in a second",
                    (b"retry-after", b"1"),
                )
            pool.started(endpoint)
            try:
                return await self._pass_on(asked, endpoint, send)
            except NEVER_SENT as error:
                pool.suspect(endpoint)
                self._again_or_refuse(asked, endpoint, f"{endpoint.instance} could not be reached", error)
            except DIED as error:
                if not asked.repeatable:
                    raise _not_known(asked, endpoint) from error
                self._again_or_refuse(asked, endpoint, f"{endpoint.instance} died before it answered", error)
            except (TimeoutError, httpcore.TimeoutException) as error:
                raise _too_late(endpoint) from error
            finally:
                pool.finished(endpoint)
            traffic.retries += 1

    def _again_or_refuse(self, asked: Asked, endpoint: Endpoint, what: str, error: Exception) -> None:
        asked.tried.add(endpoint.key)
        if clock.loop_now() >= asked.until:
            raise _too_late(endpoint) from error
        if not self._budget.take():
            raise Refused(
                503, f"{what}, and the retry budget is used up; come back in a second", (b"retry-after", b"1")
            ) from error

    async def _pass_on(self, asked: Asked, endpoint: Endpoint, send: Send) -> int:
        """Ask one instance and hand its answer back; raises before anything was handed back, or resets."""
        left = max(0.001, asked.until - clock.loop_now())
        request = httpcore.Request(
            asked.method,
            httpcore.URL(scheme=b"http", host=b"127.0.0.1", port=endpoint.port, target=asked.target),
            headers=[*asked.headers, (DEADLINE, f"{left:.3f}".encode())],
            content=asked.body,
            extensions={
                "timeout": {"connect": min(CONNECT_S, left), "read": left, "write": left, "pool": left}
            },
        )
        async with asyncio.timeout(left):
            response = await self._connections.handle_async_request(request)
        try:
            headers = [
                (name.lower(), value)
                for name, value in response.headers
                if name.lower() not in REPLY_HOP_BY_HOP
            ]
            whole = asked.method == "HEAD" or 0 <= _length(headers, -1) <= WHOLE_BYTES_MAX
            body = response.stream
            assert isinstance(body, AsyncIterable)
            if whole:
                async with asyncio.timeout_at(_loop_time(asked.until)):
                    content = b"".join([chunk async for chunk in body])
                await send(_head(response.status, headers))
                await send({"type": "http.response.body", "body": content})
            else:
                await self._stream(response.status, headers, body, send)
        finally:
            with contextlib.suppress(Exception):
                await response.aclose()
        return response.status

    async def _stream(
        self, status: int, headers: list[tuple[bytes, bytes]], body: AsyncIterable[bytes], send: Send
    ) -> None:
        """A long answer is passed on as it comes; its death half-way breaks the visitor's connection too."""
        await send(_head(status, headers))
        try:
            async for chunk in body:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (*DIED, httpcore.TimeoutException) as error:
            raise ConnectionResetError("the instance died in the middle of its answer") from error
        await send({"type": "http.response.body", "body": b""})


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _not_known(asked: Asked, endpoint: Endpoint) -> Refused:
    return Refused(
        502,
        f"{endpoint.instance} was sent this {asked.method} and died before it answered: it may have "
        "happened. With an Idempotency-Key header it would have been asked again",
        (b"atoll-outcome", b"unknown"),
    )


def _too_late(endpoint: Endpoint) -> Refused:
    return Refused(504, f"{endpoint.instance} did not answer within the deadline: it may have happened")


def _loop_time(until: float) -> float:
    """A loop clock's time as `asyncio.timeout_at` takes it."""
    return asyncio.get_running_loop().time() + (until - clock.loop_now())


def _length(headers: Iterable[tuple[bytes, bytes]], without: int = 0) -> int:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return without


def _deadline_s(headers: Iterable[tuple[bytes, bytes]]) -> float:
    for name, value in headers:
        if name == DEADLINE:
            try:
                asked = float(value)
            except ValueError:
                asked = -1.0
            if not 0 < asked < float("inf"):
                raise Refused(400, "the header Atoll-Deadline takes seconds that are left, more than 0")
            return asked
    return float("inf")


def _forwarded(scope: Scope, headers: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    """What goes on to the instance: nothing that belongs to one connection only, and who asked."""
    client = scope["client"][0].encode() if scope.get("client") else b"unknown"
    named = {
        word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")
    }
    before = [value for name, value in headers if name == b"x-forwarded-for"]
    host = next((value for name, value in headers if name == b"host"), b"localhost")
    kept = [(name, value) for name, value in headers if name not in HOP_BY_HOP and name not in named]
    if size or any(name == b"content-length" for name, _ in headers):
        kept.append((b"content-length", str(size).encode()))
    return [
        (b"host", host),
        *kept,
        (b"x-forwarded-for", b", ".join([*before, client])),
        (b"x-forwarded-proto", scope.get("scheme", "http").encode()),
        (b"x-forwarded-host", host),
    ]
