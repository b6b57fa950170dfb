"""3.9, the half over HTTP: a token travels in a header, and the database that is written to compares it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

import atoll
from atoll import Lock, Refused, put
from atoll.errors import ConfigurationError, LockLost
from atoll.integrations.asgi import FenceHeader
from atoll.integrations.fence_header import Handed, handed, headers, parsed, written
from atoll.ports.store import Token


def application(shop: Any, state: Any) -> FastAPI:
    """The service that writes: it never sees the lock, only the token."""
    app = FastAPI()
    app.add_middleware(FenceHeader)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return Response(str(error), status_code=409)

    @app.post("/orders/{number}/bill")
    async def bill(number: int) -> None:
        token = handed()
        assert token is not None
        async with shop.begin() as db:
            await token.fence(db, resource=f"lock/order/{number}")
            await db.execute("UPDATE orders SET bills = bills + 1")

    @app.post("/unfenced")
    async def unfenced() -> None:
        async with shop.begin() as db:
            await db.execute("UPDATE orders SET bills = bills + 1")

    @app.post("/guarded")
    async def guarded() -> None:
        await state.transact(put("billed", b"yes"), guard=handed())

    @app.get("/seen")
    async def seen(request: Request) -> str | None:
        return None if request.state.fence is None else repr(request.state.fence)

    @app.get("/thread")
    def in_a_thread() -> str:
        return repr(handed())

    return app


@pytest.fixture
def places(tmp_path: Path) -> tuple[Any, Any]:
    return atoll.database(f"sqlite:///{tmp_path}/shop.db"), atoll.store("memory://")


async def opened(shop: Any, state: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.begin() as db:
        await db.execute("CREATE TABLE orders (bills INTEGER)")
        await db.execute("INSERT INTO orders VALUES (0)")
    transport = httpx.ASGITransport(app=application(shop, state))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client
    await shop.close()


async def bills(shop: Any) -> int:
    async with shop.read() as db:
        return int((await db.execute("SELECT bills FROM orders"))[0][0])


async def test_a_token_handed_on_is_refused_where_it_is_compared(places: tuple[Any, Any]) -> None:
    shop, state = places
    async for client in opened(shop, state):
        async with Lock(state, "order/81") as first:
            stale = headers(first)
            assert (await client.post("/orders/81/bill", headers=stale)).status_code == 200
        async with Lock(state, "order/81") as second:
            assert (await client.post("/orders/81/bill", headers=headers(second))).status_code == 200
            late = await client.post("/orders/81/bill", headers=stale)
            assert late.status_code == 409 and f"newer token {second.token}" in late.text
        assert await bills(shop) == 2


async def test_without_the_fence_the_late_request_writes(places: tuple[Any, Any]) -> None:
    """The negative control: the middleware alone compares nothing, as it says."""
    shop, state = places
    async for client in opened(shop, state):
        async with Lock(state, "order/81") as first:
            stale = headers(first)
        async with Lock(state, "order/81") as second:
            await client.post("/orders/81/bill", headers=headers(second))
            assert (await client.post("/unfenced", headers=stale)).status_code == 200
        assert await bills(shop) == 2


async def test_a_token_of_another_lock_is_no_pass(places: tuple[Any, Any]) -> None:
    shop, state = places
    async for client in opened(shop, state):
        async with Lock(state, "order/82") as other:
            answer = await client.post("/orders/81/bill", headers=headers(other))
            assert answer.status_code == 409 and "expected one for lock/order/81" in answer.text
        assert await bills(shop) == 0


async def test_a_token_handed_on_guards_a_write_on_the_store_too(places: tuple[Any, Any]) -> None:
    shop, state = places
    async for client in opened(shop, state):
        async with Lock(state, "order/8 1/ü") as first:
            mine = headers(first)
            assert (await client.post("/guarded", headers=mine)).status_code == 200
        assert (await client.post("/guarded", headers=mine)).status_code == 409


async def test_it_is_in_the_request_s_state_and_in_a_thread_and_gone_after(places: tuple[Any, Any]) -> None:
    shop, state = places
    async for client in opened(shop, state):
        mine = {"Atoll-Fence": "lock/order%2F81 3:48211"}
        expected = repr(Handed("lock/order/81", Token(3, 48211)))
        assert (await client.get("/seen", headers=mine)).json() == expected
        assert (await client.get("/thread", headers=mine)).json() == expected
        assert (await client.get("/seen")).json() is None
        assert handed() is None


MALFORMED = [
    "",
    "lock/order",
    "lock/order 3",
    "lock/order 3:",
    "lock/order 3:-1",
    "lock/order 3:4 5:6",
    "lock/order 3:4, lock/order 3:5",
    "lock/ 3:4",
    "/order 3:4",
    "lock/order/81 3:4",
    "lock/order%2f81 3:4",
    "lock/%FF 3:4",
    f"lock/order {1 << 63}:1",
    "lock/" + "x" * 5000 + " 3:4",
    "lock/order  3:4",
    "lock/ordér 3:4",
]


@pytest.mark.parametrize("text", MALFORMED)
async def test_a_header_that_cannot_be_read_is_answered_with_400(places: tuple[Any, Any], text: str) -> None:
    shop, state = places
    async for client in opened(shop, state):
        answer = await client.post("/unfenced", headers=[(b"Atoll-Fence", text.encode("latin-1"))])
        assert answer.status_code == 400 and "expected what a held lock writes" in answer.text
        assert await bills(shop) == 0, "the endpoint was reached without its token"


async def test_two_headers_are_not_one_token(places: tuple[Any, Any]) -> None:
    shop, state = places
    async for client in opened(shop, state):
        two = [("Atoll-Fence", "lock/a 1:2"), ("Atoll-Fence", "lock/b 1:3")]
        assert (await client.get("/seen", headers=two)).status_code == 400


async def test_a_websocket_with_such_a_header_is_closed_before_it_opens() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was opened")

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await FenceHeader(app)({"type": "websocket", "headers": [(b"atoll-fence", b"?")]}, receive, send)
    assert sent[0]["type"] == "websocket.close" and sent[0]["code"] == 1008


@pytest.mark.parametrize("name", ["order/81", "a b", "ü%2F", "x" * 300, ":"])
def test_what_is_written_is_read_again(name: str) -> None:
    assert parsed(written(f"lock/{name}", Token(3, 48211))) == Handed(f"lock/{name}", Token(3, 48211))


async def test_a_lost_lock_writes_no_header() -> None:
    async with Lock(atoll.store("memory://"), "x") as held:
        assert headers(held) == {"Atoll-Fence": f"lock/x {held.token}"}
    with pytest.raises(LockLost):
        headers(held)
    with pytest.raises(ConfigurationError, match="as in lock/order%2F81 3:48211"):
        parsed("nonsense")
