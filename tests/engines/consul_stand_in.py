"""A stand-in for Consul's HTTP interface, made from its documented rules: no Consul runs on this machine.

Keys with ModifyIndex and CreateIndex, the index of a blocking request (the newest below the prefix, or the
last removal there), transactions, spurious wake-ups, an index that goes back, refused tokens, a lost leader.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from atoll.verify.servers.process import free_port


@dataclass
class StandIn:
    """One agent and its leader. `token`: what requests must carry; `spurious`: wake-ups for nothing."""

    index: int = 10
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    token: str = ""
    leaderless: bool = False
    stammers: bool = False
    spurious: bool = False
    silences: int = 0
    url: str = ""
    bell: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def kv(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        key, words = request.path_params["key"], request.query_params
        if after := int(words.get("index", 0)):
            await self.wait(key, after, float(words.get("wait", "300000ms").removesuffix("ms")) / 1000)
        rows = [row for name, row in sorted(self.rows.items()) if self.matches(name, key, "recurse" in words)]
        headers = {"X-Consul-Index": str(self.newest(key) if "recurse" in words else self.index)}
        if not rows:
            return Response(status_code=404, headers=headers)
        return JSONResponse(rows, headers=headers)

    async def txn(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        operations = [one["KV"] for one in await request.json()]
        for number, one in enumerate(operations):
            now = self.rows.get(one["Key"], {}).get("ModifyIndex", 0)
            if one["Verb"] in ("cas", "delete-cas") and one["Index"] != now:
                said = f'failed to {one["Verb"]} key "{one["Key"]}", index is stale'
                return JSONResponse({"Results": None, "Errors": [{"OpIndex": number, "What": said}]}, 409)
        if self.stammers:
            self.apply(operations)
            return PlainTextResponse("rpc error making call: EOF", 500)
        results = self.apply(operations)
        async with self.bell:
            self.bell.notify_all()
        return JSONResponse({"Results": results, "Errors": None})

    def apply(self, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.index += 1
        results = []
        for one in operations:
            key = one["Key"]
            if one["Verb"] == "delete-cas":
                self.rows.pop(key)
                self.removed[key] = self.index
                continue
            created = self.rows.get(key, {}).get("CreateIndex", self.index)
            row = {"Key": key, "CreateIndex": created, "ModifyIndex": self.index, "LockIndex": 0, "Flags": 0}
            self.rows[key] = {**row, "Value": one["Value"] or None}
            results.append({"KV": {**row, "Value": None}})
        return results

    def refused(self, request: Request) -> Response | None:
        if self.token and request.headers.get("X-Consul-Token") != self.token:
            return PlainTextResponse("rpc error making call: Permission denied: token lacks 'key:read'", 403)
        if self.leaderless:
            self.silences += 1
            return PlainTextResponse("No cluster leader", 500)
        return None

    async def wait(self, prefix: str, after: int, seconds: float) -> None:
        async with self.bell:
            try:
                async with asyncio.timeout(seconds):
                    while self.newest(prefix) <= after:
                        await self.bell.wait()
                        if self.spurious:
                            return
            except TimeoutError:
                return

    def newest(self, prefix: str) -> int:
        seen = [row["ModifyIndex"] for name, row in self.rows.items() if name.startswith(prefix)]
        gone = [index for name, index in self.removed.items() if name.startswith(prefix)]
        return max([*seen, *gone], default=self.index)

    @staticmethod
    def matches(name: str, key: str, below: bool) -> bool:
        return name.startswith(key) if below else name == key

    def value(self, key: str) -> bytes:
        return base64.b64decode(self.rows[key]["Value"] or "")


@asynccontextmanager
async def stand_in(**settings: Any) -> AsyncIterator[StandIn]:
    """The stand-in, serving on a port of its own."""
    consul = StandIn(**settings)
    app = Starlette(
        routes=[
            Route("/v1/kv/{key:path}", consul.kv, methods=["GET"]),
            Route("/v1/txn", consul.txn, methods=["PUT"]),
        ]
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    login = f":{consul.token}@" if consul.token else ""
    consul.url = f"consul://{login}127.0.0.1:{port}/app"
    try:
        yield consul
    finally:
        server.should_exit = server.force_exit = True
        await serving
