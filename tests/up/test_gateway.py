"""B6, gateway: least connections, health, idempotent retries under a budget, bounds, and garbage."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from atoll.up.endpoints import Endpoint, Pool
from atoll.up.gateway import Gateway
from atoll.up.manifest import Gateway as Options
from atoll.up.serving import Serving, listen

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Fake:
    """An instance that answers as told: `how(request head and body, writer)`."""

    def __init__(self, name: str, how: Callable[[bytes, Writer], Awaitable[None]] | None = None) -> None:
        self.name = name
        self.how = how
        self.heard: list[bytes] = []
        self.endpoint = Endpoint(f"{name}#1", name, 0)

    async def start(self) -> Fake:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.endpoint = Endpoint(f"{self.name}#1", self.name, self.server.sockets[0].getsockname()[1])
        return self

    async def serve(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [
                    w.split(b":")[1] for w in head.lower().split(b"\r\n") if w.startswith(b"content-length")
                ]
                body = await reader.readexactly(int(length[0])) if length else b""
                self.heard.append(head + body)
                if self.how is None:
                    writer.write(OK)
                else:
                    await self.how(head + body, writer)
                await writer.drain()
        writer.close()


async def die(_: bytes, writer: Writer) -> None:
    writer.transport.abort()
    raise ConnectionResetError


class Door:
    """A gateway over fakes."""

    def __init__(self, options: Options, pools: dict[str, Pool]) -> None:
        self.gateway = Gateway(options, pools)
        self.pools = pools
        self.serving = Serving(self.gateway, listen("127.0.0.1", 0, "test"), grace_s=1)

    async def ask(self, text: str, body: bytes = b"") -> tuple[int, bytes]:
        """One raw request: its status, and everything that came back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.serving.port)
        try:
            head = text.replace("\n", "\r\n") + "\r\nHost: shop\r\nConnection: close\r\n\r\n"
            writer.write(head.encode("latin-1") + body)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            answer = await reader.read()
            return int(answer.split()[1]), answer
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def door(*fakes: Fake, **more: float) -> AsyncIterator[Door]:
    pool = Pool("api")
    for fake in fakes:
        await fake.start()
        pool.put(fake.endpoint)
    options = Options(port=0, routes={"/": "api"}, **{"wait_ready_s": 0.05, **more})  # type: ignore[arg-type]
    one = Door(options, {"api": pool})
    await one.serving.start()
    try:
        yield one
    finally:
        await one.serving.close()
        await one.gateway.close()
        for fake in fakes:
            fake.server.close()


async def test_requests_go_where_the_fewest_are_being_served() -> None:
    gate = asyncio.Event()

    async def slow(_: bytes, writer: Writer) -> None:
        await gate.wait()
        writer.write(OK)

    a, b, c = Fake("a", slow), Fake("b"), Fake("c")
    async with door(a, b, c) as one:
        held = [asyncio.create_task(one.ask("GET / HTTP/1.1"))]
        while not a.heard:
            await asyncio.sleep(0.01)
            if not a.heard and held[-1].done():
                held.append(asyncio.create_task(one.ask("GET / HTTP/1.1")))
        before = len(b.heard) + len(c.heard)
        for _ in range(20):
            assert (await one.ask("GET / HTTP/1.1"))[0] == 200
        assert len(a.heard) == 1 and len(b.heard) + len(c.heard) == before + 20
        assert abs(len(b.heard) - len(c.heard)) <= 1
        gate.set()
        assert {status for status, _ in await asyncio.gather(*held)} == {200}


async def test_an_idempotent_request_whose_instance_died_is_asked_again_elsewhere() -> None:
    for method in ("GET /x", "PUT /x", "DELETE /x", "POST /x"):
        dead, well = Fake("a", die), Fake("b")
        async with door(dead, well) as one:
            key = "\nIdempotency-Key: 7" if method.startswith("POST") else ""
            statuses = [(await one.ask(f"{method} HTTP/1.1{key}"))[0] for _ in range(4)]
            assert statuses == [200] * 4
            assert dead.heard and len(well.heard) == 4
            assert one.gateway.traffic["api"].retries == len(dead.heard)


async def test_a_post_without_a_key_is_never_sent_twice_and_its_outcome_is_unknown() -> None:
    dead, well = Fake("a", die), Fake("b")
    async with door(dead, well) as one:
        answers = [await one.ask("POST /x HTTP/1.1\nContent-Length: 2", b"hi") for _ in range(2)]
        refused = [answer for status, answer in answers if status == 502]
        assert len(refused) == 1 and len(dead.heard) == 1 and len(well.heard) == 1
        assert b"atoll-outcome: unknown" in refused[0] and b"it may have happened" in refused[0]


async def test_a_connection_that_is_refused_sets_the_instance_aside_and_the_request_goes_elsewhere() -> None:
    gone, well = Fake("a"), Fake("b")
    async with door(gone, well) as one:
        gone.server.close()
        await gone.server.wait_closed()
        statuses = [(await one.ask("POST /x HTTP/1.1"))[0] for _ in range(4)]
        assert statuses == [200] * 4
        assert gone.endpoint.suspected.is_set() and not one.pools["api"].has(gone.endpoint)


async def test_retries_stop_when_their_budget_is_used_up() -> None:
    a, b = Fake("a", die), Fake("b", die)
    async with door(a, b) as one:
        statuses = Counter([(await one.ask("GET / HTTP/1.1"))[0] for _ in range(60)])
        assert set(statuses) == {503}
        asked = len(a.heard) + len(b.heard)
        assert asked <= 60 * 1.2 + 10, f"{asked} requests reached the instances for 60 of the visitors'"
        assert asked > 60


async def test_a_restarted_instance_gets_the_request_that_its_former_life_dropped() -> None:
    first, second = Fake("a", die), Fake("a")
    async with door(first, wait_ready_s=5) as one:
        asking = asyncio.create_task(one.ask("GET / HTTP/1.1"))
        while not first.heard:
            await asyncio.sleep(0.01)
        one.pools["api"].forget(first.endpoint)
        await second.start()
        one.pools["api"].put(Endpoint("a#2", "a", second.endpoint.port))
        assert (await asking)[0] == 200
        second.server.close()


async def test_no_ready_instance_is_503_with_a_time_to_come_back() -> None:
    async with door() as one:
        status, answer = await one.ask("GET / HTTP/1.1")
        assert status == 503 and b"retry-after: 1" in answer and b"no instance of api is ready" in answer


async def test_the_deadline_is_kept_and_handed_on() -> None:
    never = asyncio.Event()

    async def silent(_: bytes, writer: Writer) -> None:
        await never.wait()

    fake = Fake("a", silent)
    async with door(fake) as one:
        status, answer = await one.ask("GET / HTTP/1.1\nAtoll-Deadline: 0.2")
        assert status == 504 and b"a did not answer within the deadline" in answer
        handed = next(line for line in fake.heard[0].split(b"\r\n") if line.startswith(b"atoll-deadline"))
        assert 0 < float(handed.split(b":")[1]) <= 0.2
        assert (await one.ask("GET / HTTP/1.1\nAtoll-Deadline: soon"))[0] == 400
        never.set()


async def test_headers_of_the_visitor_go_on_and_those_of_the_connection_do_not() -> None:
    fake = Fake("a")
    async with door(fake) as one:
        await one.ask(
            "POST /a%20b?c=d HTTP/1.1\ntraceparent: 00-abc-def-01\nX-Forwarded-For: 10.0.0.9\n"
            "Transfer-Encoding: chunked\nX-Private: 1\nAtoll-Fence: lock/x 9:9\nConnection: x-private",
            b"2\r\nhi\r\n0\r\n\r\n",
        )
        heard = fake.heard[0]
        assert heard.startswith(b"POST /a%20b?c=d HTTP/1.1") and heard.endswith(b"\r\n\r\nhi")
        for line in (
            b"traceparent: 00-abc-def-01",
            b"x-forwarded-for: 10.0.0.9, 127.0.0.1",
            b"content-length: 2",
        ):
            assert line in heard
        assert (
            b"chunked" not in heard and b"x-private" not in heard.lower() and heard.count(b"ost: shop") == 2
        )
        assert b"atoll-fence" not in heard.lower(), "a visitor's fence could refuse every lawful holder"


async def test_a_long_answer_is_passed_on_whole_and_a_broken_one_is_not_taken_for_whole() -> None:
    chunk = b"x" * 300_000

    async def long(head: bytes, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if b"/broken" in head:
            await die(head, writer)
        writer.write(b"0\r\n\r\n")

    async with door(Fake("a", long)) as one:
        status, answer = await one.ask("GET /whole HTTP/1.1")
        assert status == 200 and answer.count(b"x" * 1000) >= 2900 and answer.endswith(b"0\r\n\r\n")
        status, answer = await one.ask("GET /broken HTTP/1.1")
        assert status == 200 and not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_bound_is_413_and_reaches_nobody(declared: bool) -> None:
    fake = Fake("a")
    async with door(fake, body_bytes_max=1000) as one:
        if declared:
            status, _ = await one.ask("POST / HTTP/1.1\nContent-Length: 2000", b"x" * 2000)
        else:
            status, _ = await one.ask(
                "POST / HTTP/1.1\nTransfer-Encoding: chunked", b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"
            )
        assert status == 413 and not fake.heard


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03\x01" * 50 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_is_answered_400_and_the_next_visitor_is_served(garbage: bytes) -> None:
    fake = Fake("a")
    async with door(fake) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.serving.port)
        writer.write(garbage)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await reader.read(65536)
        assert answer == b"" or answer.split()[1] in (b"400", b"431", b"505"), answer[:200]
        writer.close()
        assert not fake.heard
        assert (await one.ask("GET / HTTP/1.1"))[0] == 200


async def test_a_service_that_answers_garbage_is_one_that_died() -> None:
    async def garbage(_: bytes, writer: Writer) -> None:
        writer.write(b"\x00\x01 no http\r\n\r\n")

    bad, well = Fake("a", garbage), Fake("b")
    async with door(bad, well) as one:
        assert [(await one.ask("GET / HTTP/1.1"))[0] for _ in range(4)] == [200] * 4


async def test_the_longest_prefix_decides_and_an_unknown_path_is_404() -> None:
    a, b = await Fake("a").start(), await Fake("b").start()
    pools = {"a": Pool("a"), "b": Pool("b")}
    pools["a"].put(a.endpoint)
    pools["b"].put(b.endpoint)
    one = Door(Options(port=0, routes={"/x": "a", "/x/y": "b"}), pools)
    await one.serving.start()
    for path in ("/x", "/x/", "/x/yes", "/x/y", "/x/y/z"):
        assert (await one.ask(f"GET {path} HTTP/1.1"))[0] == 200
    assert (len(a.heard), len(b.heard)) == (3, 2)
    status, answer = await one.ask("GET /xy HTTP/1.1")
    assert status == 404 and b"found no route for /xy; the gateway knows /x/y, /x" in answer
    await one.serving.close()
    await one.gateway.close()
    a.server.close()
    b.server.close()
