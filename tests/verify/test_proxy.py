"""3.4: the proxy that stands before a server does each wrong thing it is asked to, counts it, and heals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atoll.verify.proxy import Mood, Proxy, addresses, redirected

HEARD: list[bytes] = []


@asynccontextmanager
async def echo() -> AsyncIterator[Proxy]:
    """A server that answers each line, and a proxy before it."""
    HEARD.clear()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                HEARD.append(line)
                writer.write(line.upper())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        async with Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
            yield proxy
    finally:
        server.close()


class Client:
    """One connection through the proxy."""

    async def open(self, proxy: Proxy) -> Client:
        host, port = proxy.address.split(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        return self

    async def ask(self, line: bytes, within_s: float = 5.0) -> bytes:
        self.writer.write(line)
        async with asyncio.timeout(within_s):
            return await self.reader.readline()

    def close(self) -> None:
        self.writer.transport.abort()


async def heard(line: bytes) -> None:
    async with asyncio.timeout(5):
        while line not in HEARD:
            await asyncio.sleep(0.005)


async def test_a_faithful_proxy_changes_nothing() -> None:
    async with echo() as proxy:
        client = await Client().open(proxy)
        assert await client.ask(b"a\n") == b"A\n"
        assert (proxy.counts.carried, proxy.counts.cut, proxy.links) == (4, 0, 1)
        client.close()


async def test_a_cut_resets_what_is_open_refuses_what_is_new_and_heals() -> None:
    async with echo() as proxy:
        client = await Client().open(proxy)
        await client.ask(b"a\n")
        proxy.be(Mood.CUT)
        with pytest.raises(ConnectionError):
            await client.ask(b"b\n")
        with pytest.raises(ConnectionError):
            if await (await Client().open(proxy)).ask(b"c\n") == b"":
                raise ConnectionResetError
        assert proxy.counts.cut == 2
        proxy.be(Mood.FAITHFUL)
        again = await Client().open(proxy)
        assert await again.ask(b"d\n") == b"D\n"
        again.close()


async def test_a_swallowed_answer_was_asked_and_is_never_heard() -> None:
    async with echo() as proxy:
        client = await Client().open(proxy)
        await client.ask(b"a\n")
        proxy.be(Mood.SWALLOW)
        with pytest.raises(ConnectionError):
            if await client.ask(b"b\n") == b"":
                raise ConnectionResetError
        assert b"b\n" in HEARD
        assert proxy.counts.answers_swallowed == 1


async def test_one_way_to_the_server_and_one_way_back_are_different() -> None:
    async with echo() as proxy:
        client = await Client().open(proxy)
        await client.ask(b"a\n")
        proxy.be(Mood.MUTE)
        with pytest.raises(TimeoutError):
            await client.ask(b"heard\n", within_s=0.2)
        await heard(b"heard\n")
        proxy.be(Mood.DEAF)
        with pytest.raises(TimeoutError):
            await client.ask(b"unheard\n", within_s=0.2)
        assert b"unheard\n" not in HEARD
        assert proxy.counts.dropped_to_client == 6 and proxy.counts.dropped_to_server == 8


async def test_a_connection_that_lost_something_is_reset_when_the_fault_is_over() -> None:
    async with echo() as proxy:
        client = await Client().open(proxy)
        proxy.be(Mood.SILENT)
        with pytest.raises(TimeoutError):
            await client.ask(b"a\n", within_s=0.2)
        proxy.be(Mood.FAITHFUL)
        with pytest.raises(ConnectionError):
            if await client.ask(b"b\n") == b"":
                raise ConnectionResetError


async def test_a_delay_holds_back_and_loses_nothing() -> None:
    async with echo() as proxy:
        client = await Client().open(proxy)
        proxy.be(Mood.FAITHFUL, delay_s=0.05)
        began = asyncio.get_running_loop().time()
        assert await client.ask(b"a\n") == b"A\n"
        assert asyncio.get_running_loop().time() - began >= 0.1
        assert proxy.counts.delayed == 4
        client.close()


async def test_only_the_clients_it_concerns_are_hurt() -> None:
    async with echo() as proxy:
        one, other = await Client().open(proxy), await Client().open(proxy)
        await one.ask(b"a\n")
        await other.ask(b"a\n")
        mine = one.writer.get_extra_info("sockname")[1]
        proxy.concerns = lambda port: port == mine
        proxy.be(Mood.MUTE)
        assert await other.ask(b"b\n") == b"B\n"
        with pytest.raises(TimeoutError):
            await one.ask(b"c\n", within_s=0.2)
        one.close()
        other.close()


def test_a_url_is_sent_through_proxies_and_its_options_are_left_alone() -> None:
    url = "etcd://root:x@127.0.0.1:2379,127.0.0.1:2381/app?ca=/tmp/127.0.0.1:2379.pem"
    assert addresses(url) == [("127.0.0.1", 2379), ("127.0.0.1", 2381)]
    through = {("127.0.0.1", 2379): "127.0.0.1:1", ("127.0.0.1", 2381): "127.0.0.1:2"}
    assert redirected(url, through).startswith(
        "etcd://root:x@127.0.0.1:1,127.0.0.1:2/app?ca=/tmp/127.0.0.1:2379"
    )
