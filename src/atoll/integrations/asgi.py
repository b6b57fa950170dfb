"""ASGI: what stands between a server and an application of any ASGI framework.

`FenceHeader` is the porter who carries a ticket from the door to the counter. It cannot read the book behind
the counter, so it compares nothing: only the database that is written to, in the transaction that writes,
knows which tokens have been there, and a comparison made any earlier could be out of date by the write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from atoll.errors import ConfigurationError
from atoll.integrations.fence_header import NAME, current, handed, parsed

__all__ = ["FenceHeader", "handed"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOWER = NAME.lower().encode("ascii")


class FenceHeader:
    """Hands the token of an `Atoll-Fence` header on: `handed()`, or `request.state.fence`; else None.

    `app.add_middleware(FenceHeader)`. It checks nothing: call `await handed().fence(db)` as the first
    statement of the transaction that writes. A header that cannot be read is answered with 400, because to
    go on without it would be to write unfenced. Take it from services you trust and drop it at the edge:
    whoever may send it can, with a great number, keep every real holder out.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        found = [value for name, value in scope["headers"] if name.lower() == _LOWER]
        try:
            fence = parsed(b", ".join(found).decode("latin-1")) if found else None
        except ConfigurationError as error:
            await _refuse(scope, send, str(error))
            return
        scope.setdefault("state", {})["fence"] = fence
        before = current.set(fence)
        try:
            await self._app(scope, receive, send)
        finally:
            current.reset(before)


async def _refuse(scope: Scope, send: Send, said: str) -> None:
    """400 with the sentence; a websocket is closed before it opens (1008: a policy was not kept)."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "an Atoll-Fence that cannot be read"})
        return
    body = said.encode()
    kind = (b"content-type", b"text/plain; charset=utf-8")
    length = (b"content-length", str(len(body)).encode("ascii"))
    await send({"type": "http.response.start", "status": 400, "headers": [kind, length]})
    await send({"type": "http.response.body", "body": body})
