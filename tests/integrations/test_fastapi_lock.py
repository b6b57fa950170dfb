"""A7: the bodies of a FastAPI app: async and `def` endpoints, and both scopes of a dependency."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

import atoll
from atoll import Lock, LockLost
from atoll.blocks.lock import Held

TTL_S = 0.25


class App:
    """An app whose endpoint holds a lock by a dependency of the given scope; its lease cannot be renewed."""

    def __init__(self, scope: str, renewable: bool) -> None:
        self.state = atoll.store("memory://")
        if not renewable:
            assert self.state.leasing is not None
            self.state.leasing.keep_alive = self._never  # type: ignore[method-assign]
        self.seen: list[str] = []
        self.ended = threading.Event()
        self.app = FastAPI()
        held = Depends(self.holding, scope=scope)  # type: ignore[arg-type]

        @self.app.get("/async")
        async def awaits(lock: Annotated[Held, held], for_s: float = 0) -> str:
            try:
                await asyncio.sleep(for_s)
                return str(lock.token)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise

        @self.app.get("/def")
        def blocks(lock: Annotated[Held, held], for_s: float = 0) -> str:
            end = time.monotonic() + for_s
            try:
                while time.monotonic() < end:
                    lock.check()
                    time.sleep(0.005)
                return str(lock.token)
            except LockLost:
                self.seen.append("checked")
                raise
            finally:
                self.ended.set()

    async def holding(self) -> AsyncIterator[Held]:
        try:
            async with Lock(self.state, "order/1", ttl_s=TTL_S, wait_s=5) as lock:
                yield lock
        except LockLost:
            self.seen.append("LockLost")
            raise

    async def _never(self, lease: str) -> float:
        await asyncio.sleep(3600)
        raise AssertionError

    async def get(self, path: str) -> httpx.Response | Exception:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            try:
                return await client.get(path)
            except Exception as error:
                return error


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("path", ["/async", "/def"])
async def test_a_lock_held_by_a_dependency_is_given_back(scope: str, path: str) -> None:
    app = App(scope, renewable=True)
    answer: Any = await app.get(path)
    assert answer.status_code == 200 and answer.json().startswith("1:")
    async with Lock(app.state, "order/1", wait_s=0):
        pass
    assert app.seen == []


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_an_endpoint_that_awaits_is_cancelled_and_the_request_fails(scope: str) -> None:
    app = App(scope, renewable=False)
    answer = await app.get("/async?for_s=60")
    assert isinstance(answer, LockLost)
    assert app.seen == ["cancelled", "LockLost"]


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_def_endpoint_meets_the_loss_in_check(scope: str) -> None:
    app = App(scope, renewable=False)
    answer = await app.get("/def?for_s=60")
    assert isinstance(answer, LockLost)
    assert app.ended.wait(20)
    assert "LockLost" in app.seen and "checked" in app.seen
