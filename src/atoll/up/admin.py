"""The admin port: one page and the figures it is made of. It shows and never does.

A shop window. Passers-by may look as long as they like; there is no door in it. Whoever comes under a
name that is not this machine's own is sent away, since that is how a foreign page would look in.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from atoll.up import metrics
from atoll.up.feed import Feed
from atoll.up.serving import Receive, Scope, Send, answer
from atoll.up.standing import Standing

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        b"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
PATHS = "/, /status.json, /events.json, /metrics"


class Admin:
    """An ASGI application, read-only."""

    def __init__(self, standing: Standing, feed: Feed) -> None:
        self._standing = standing
        self._feed = feed
        self._page = resources.files("atoll.up").joinpath("dashboard/index.html").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.lower() not in LOOPBACK:
            await _text(send, 421, "this port answers to localhost and 127.0.0.1 only")
        elif scope["method"] not in ("GET", "HEAD"):
            await _text(
                send, 405, "this page only shows; to act, use the command atoll", (b"allow", b"GET, HEAD")
            )
        else:
            await self._show(scope["path"], send)

    async def _show(self, path: str, send: Send) -> None:
        if path == "/":
            await answer(send, 200, self._page, [*HEADERS, (b"content-type", b"text/html; charset=utf-8")])
        elif path == "/status.json":
            await _json(send, await self._standing.now())
        elif path == "/events.json":
            await _json(send, {"format": 1, "events": self._feed.newest()})
        elif path == "/metrics":
            text = metrics.exposition(await self._standing.now(), self._standing.traffic)
            await answer(send, 200, text.encode(), [*HEADERS, (b"content-type", metrics.CONTENT_TYPE)])
        else:
            await _text(send, 404, f"there is {PATHS}")


async def _json(send: Send, value: Any) -> None:
    body = json.dumps(value, indent=1).encode()
    await answer(send, 200, body, [*HEADERS, (b"content-type", b"application/json")])


async def _text(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await answer(send, status, f"{text}\n".encode(), [*HEADERS, kind, *headers])
