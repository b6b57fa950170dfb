"""3.2: the HTTP/2 connection under the etcd store: what it reads, what it says of a call that ended badly."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from atoll.engines.etcd import call, hpack
from atoll.engines.etcd.call import END_HEADERS, END_STREAM, Ended, frame
from atoll.engines.etcd.endpoint import Endpoint
from atoll.engines.etcd.http2 import PREFACE

OK = hpack.literal(":status", "200") + hpack.literal("content-type", "application/grpc")
DONE = hpack.literal("grpc-status", "0")
EMPTY = b"\0\0\0\0\0"

Answer = Callable[["Peer", int], Awaitable[None]]


class Peer:
    """A server that says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def hear(self) -> tuple[int, int, int, bytes]:
        head = await self.reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        return kind, flags, int.from_bytes(head[5:], "big"), await self.reader.readexactly(size)


@asynccontextmanager
async def peer(answer: Answer, settings: bytes = b"") -> AsyncIterator[Endpoint]:
    """An endpoint whose server calls `answer` with the number of each call it has heard whole."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Peer(reader, writer)
        try:
            assert await reader.readexactly(len(PREFACE)) == PREFACE
            one.say(frame(call.SETTINGS, 0, 0, settings))
            while True:
                kind, flags, number, _ = await one.hear()
                if kind == call.DATA and flags & END_STREAM:
                    await answer(one, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], None)
    try:
        yield endpoint
    finally:
        endpoint.close()
        server.close()


async def ends(answer: Answer, timeout: float = 1.0) -> Ended:
    async with peer(answer) as endpoint:
        with pytest.raises(Ended) as caught:
            await endpoint.ask("Status", b"", timeout)
        return caught.value


def test_the_code_of_every_letter_is_the_published_one() -> None:
    # RFC 7541, appendix C.4 and C.6: texts and their codes.
    for text, code in (
        ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        ("no-cache", "a8eb10649cbf"),
        ("custom-value", "25a849e95bb8e8b4bf"),
        ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
        ("foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
         "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"),
    ):  # fmt: skip
        assert hpack.unpacked(bytes.fromhex(code)).decode() == text


@pytest.mark.parametrize(
    "block",
    [b"\xff", b"\xbf", b"\x00\x05ab", b"\x00\x01a\x81\x00", b"\x7f\xff\xff\xff\xff\xff\xff\x01", b"\xc0"],
)
def test_a_block_that_cannot_be_read_is_refused(block: bytes) -> None:
    with pytest.raises(hpack.BadBlock):
        hpack.headers(block)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 300, 20_000])
def test_what_is_written_is_read(size: int) -> None:
    assert hpack.headers(hpack.literal("x", "v" * size)) == {"x": "v" * size}


async def test_an_answer_in_single_bytes_padded_and_continued_is_one_answer() -> None:
    async def answer(one: Peer, number: int) -> None:
        said = b"".join(
            (
                frame(call.HEADERS, 0, number, OK[:5]),
                frame(call.CONTINUATION, END_HEADERS, number, OK[5:]),
                frame(call.PING, 0, 0, b"12345678"),
                frame(0x77, 0, number, b"from the future"),
                frame(call.DATA, call.PADDED, number, b"\x03\0\0\0" + b"xxx"),
                frame(call.DATA, 0, number, b"\0\0"),
                frame(call.HEADERS, END_HEADERS | END_STREAM, number, DONE),
            )
        )
        for at in range(len(said)):
            one.say(said[at : at + 1])
            await one.writer.drain()
            await asyncio.sleep(0)

    async with peer(answer) as endpoint:
        assert (await endpoint.ask("Status", b"", 5)).version == ""


async def test_a_large_question_waits_for_the_windows_and_arrives_whole() -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Peer(reader, writer)
        await reader.readexactly(len(PREFACE))
        one.say(frame(call.SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        while True:
            kind, flags, number, payload = await one.hear()
            if kind == call.DATA:
                heard.extend(payload)
                assert len(payload) <= 1000
                more = struct.pack(">I", len(payload))
                one.say(frame(call.WINDOW_UPDATE, 0, 0, more), frame(call.WINDOW_UPDATE, 0, number, more))
                if flags & END_STREAM:
                    one.say(frame(call.HEADERS, END_HEADERS, number, OK), frame(call.DATA, 0, number, EMPTY))
                    one.say(frame(call.HEADERS, END_HEADERS | END_STREAM, number, DONE))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], None)
    question = bytes(range(256)) * 800
    await endpoint.ask("Status", question, 10)
    assert bytes(heard[5:]) == question
    endpoint.close()
    server.close()


async def test_no_more_calls_are_begun_than_the_server_allows() -> None:
    waiting: list[tuple[Peer, int]] = []

    async def answer(one: Peer, number: int) -> None:
        waiting.append((one, number))

    async with peer(answer, struct.pack(">HI", 3, 2)) as endpoint:
        calls = [asyncio.create_task(endpoint.ask("Status", b"", 5)) for _ in range(5)]
        for expected in (2, 2, 1):
            async with asyncio.timeout(5):
                while len(waiting) < expected:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            assert len(waiting) == expected
            for one, number in waiting:
                one.say(frame(call.HEADERS, END_HEADERS, number, OK), frame(call.DATA, 0, number, EMPTY))
                one.say(frame(call.HEADERS, END_HEADERS | END_STREAM, number, DONE))
            waiting.clear()
        await asyncio.gather(*calls)


async def test_a_refused_call_was_never_begun_and_a_broken_one_may_have_been() -> None:
    async def refuse(one: Peer, number: int) -> None:
        one.say(frame(call.RST_STREAM, 0, number, struct.pack(">I", call.REFUSED_STREAM)))

    async def go_away(one: Peer, number: int) -> None:
        one.say(frame(call.GOAWAY, 0, 0, struct.pack(">II", number - 1, 0)))

    async def break_off(one: Peer, number: int) -> None:
        one.say(frame(call.RST_STREAM, 0, number, struct.pack(">I", 2)))

    async def hang_up(one: Peer, number: int) -> None:
        one.writer.transport.abort()

    async def babble(one: Peer, number: int) -> None:
        one.say(frame(call.HEADERS, END_HEADERS, number, b"\xff\xff\xff\xff\xff\xff"))

    async def be_silent(one: Peer, number: int) -> None:
        return None

    assert not (await ends(refuse)).sent
    assert not (await ends(go_away)).sent
    assert (await ends(break_off)).sent
    assert (await ends(hang_up)).sent
    assert (await ends(babble)).sent
    assert (await ends(be_silent, 0.1)).code == "DEADLINE_EXCEEDED"


async def test_an_error_is_told_with_its_code_and_sentence() -> None:
    async def fail(one: Peer, number: int) -> None:
        told = hpack.literal("grpc-status", "14") + hpack.literal("grpc-message", "etcdserver: no%20leader")
        one.say(frame(call.HEADERS, END_HEADERS | END_STREAM, number, OK + told))

    async def web(one: Peer, number: int) -> None:
        one.say(frame(call.HEADERS, END_HEADERS | END_STREAM, number, hpack.literal(":status", "503")))

    told = await ends(fail)
    assert (told.code, told.text) == ("UNAVAILABLE", "etcdserver: no leader")
    assert "503" in (await ends(web)).text


async def test_a_call_given_up_leaves_the_connection_for_the_others() -> None:
    async def answer_odd(one: Peer, number: int) -> None:
        if number != 3:
            one.say(frame(call.HEADERS, END_HEADERS, number, OK), frame(call.DATA, 0, number, EMPTY))
            one.say(frame(call.HEADERS, END_HEADERS | END_STREAM, number, DONE))

    async with peer(answer_odd) as endpoint:
        await endpoint.ask("Status", b"", 5)
        given_up = asyncio.create_task(endpoint.ask("Status", b"", 5))
        await asyncio.sleep(0.05)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        before = endpoint._connection
        await endpoint.ask("Status", b"", 5)
        assert endpoint._connection is before
