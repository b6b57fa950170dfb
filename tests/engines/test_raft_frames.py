"""4.4: frames on a member's port: bounds, greetings, formats, and what garbage costs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.algorithms.raft.messages import Append, Entry, Kind, VoteRequest
from atoll.engines.raft.connection import SAID_MOST, Connection, Murmur, TurnedAway, dial
from atoll.engines.raft.frames import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    MAGIC,
    Caller,
    Hello,
    Letter,
    Refusal,
    Splitter,
    Welcome,
    Why,
    agreed_format,
    pack,
    read_answer,
    read_hello,
    read_remark,
)
from atoll.errors import FormatRefused, NotSent

HELLO = Hello(MAGIC, 1, 1, "c1", Caller.PEER, "a", to="b", born="x", incarnation="y", place="127.0.0.1:1")


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 17))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(bodies: list[bytes], cut: int) -> None:
    stream = b"".join(len(b).to_bytes(4, "big") + b for b in bodies)
    splitter = Splitter()
    found = [f for at in range(0, len(stream), cut) for f in splitter.feed(stream[at : at + cut])]
    assert (found, splitter.waiting) == (bodies, 0)


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\n", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x16\x03\x01\x02\0"]
)
def test_a_length_out_of_bounds_is_refused_when_it_is_read(start: bytes) -> None:
    with pytest.raises(FormatRefused, match="frame announced with"):
        Splitter().feed(start)


def test_a_length_within_bounds_is_not_refused() -> None:
    """The control of the one above."""
    assert Splitter().feed(HELLO_BYTES_MAX.to_bytes(4, "big")) == []


def test_a_greeting_and_a_letter_survive_the_wire() -> None:
    letter = Letter("c1", Append(3, 7, 1, 2, 1, (Entry(3, 2, Kind.COMMAND, b"x" * 70_000, 5, 6),)))
    frames = Splitter(FRAME_BYTES_MAX).feed(pack(HELLO) + pack(letter))
    assert read_hello(frames[0]) == HELLO
    assert read_remark(frames[1]) == letter


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_but_a_refusal(body: bytes) -> None:
    for read in (read_hello, read_answer, read_remark):
        try:
            read(body)
        except FormatRefused:
            pass


@pytest.mark.parametrize("reader", [read_hello, read_answer, read_remark])
@pytest.mark.parametrize(
    "body", [b"", b"\x97\xbf\xdem" + b"\xb8" * 40, b"\x91" * 300, b"\xc1", b"\x95\x0d\xa1\xff"]
)
def test_bytes_that_once_were_misread_are_refused(reader: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(FormatRefused):
        reader(body)


def test_another_protocol_in_msgpack_is_no_greeting() -> None:
    with pytest.raises(FormatRefused, match="expected 'atoll-raft'"):
        read_hello(pack(Hello("other", 1, 1, "", 1, ""))[4:])


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"), [((1, 1), (1, 1), 1), ((1, 2), (2, 3), 2), ((2, 3), (1, 2), 2)]
)
def test_neighbouring_formats_agree(theirs: tuple[int, int], ours: tuple[int, int], agreed: int) -> None:
    assert agreed_format(Hello(MAGIC, *theirs, "c", 1, "a"), *ours) == agreed


@pytest.mark.parametrize(("theirs", "ours"), [((1, 1), (2, 3)), ((3, 4), (1, 2)), ((2, 3), (0, 1))])
def test_a_member_two_versions_apart_is_refused_with_both_ranges(
    theirs: tuple[int, int], ours: tuple[int, int]
) -> None:
    with pytest.raises(FormatRefused) as refusal:
        agreed_format(Hello(MAGIC, *theirs, "c", 1, "old-one"), *ours)
    for words in ("old-one", f"{theirs[0]} to {theirs[1]}", f"{ours[0]} to {ours[1]}"):
        assert words in str(refusal.value)


def place_of(server: asyncio.Server) -> str:
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Port:
    """A port that answers each greeting with what it was told, then echoes."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.lost: list[str] = []
        self.open: list[Connection] = []
        self.murmur = Murmur()

    def accept(self) -> Connection:
        connection = Connection(self.first, lambda c, why: self.lost.append(why), self.murmur)
        self.open.append(connection)
        return connection

    def first(self, connection: Connection, body: bytes) -> None:
        read_hello(body)
        connection.on_frame = lambda c, b: c.send(len(b).to_bytes(4, "big") + b)
        connection.admit()
        connection.send(pack(self.answer))


@asynccontextmanager
async def port(answer: Any) -> AsyncIterator[tuple[Port, str]]:
    own = Port(answer)
    server = await asyncio.get_running_loop().create_server(own.accept, "127.0.0.1", 0)
    try:
        yield own, place_of(server)
    finally:
        server.close()
        for connection in own.open:
            connection.abort()


def nothing(*_: Any) -> None: ...


async def test_a_dialled_member_welcomes_and_carries_frames_both_ways() -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()
    async with port(Welcome(1, "c1", "b")) as (_, place):
        connection, said = await dial(place, HELLO, lambda c, b: got.put_nowait(b), nothing)
        assert said == Welcome(1, "c1", "b")
        connection.send(pack(Letter("c1", VoteRequest(1, 0, 0))))
        assert read_remark(await got.get()) == Letter("c1", VoteRequest(1, 0, 0))
        connection.close()


async def test_a_refusal_is_raised_with_its_sentence() -> None:
    async with port(Refusal(Why.CLUSTER, "another cluster lives here")) as (_, place):
        with pytest.raises(TurnedAway, match="another cluster lives here") as refusal:
            await dial(place, HELLO, nothing, nothing)
        assert refusal.value.why == Why.CLUSTER


async def test_whoever_answers_under_another_name_is_not_talked_to() -> None:
    async with port(Welcome(1, "c1", "c")) as (_, place):
        with pytest.raises(TurnedAway, match="answers 'c', expected 'b'"):
            await dial(place, HELLO, nothing, nothing)


async def test_a_port_that_says_nothing_or_garbage_is_not_waited_for() -> None:
    def mute() -> asyncio.Protocol:
        return asyncio.Protocol()

    server = await asyncio.get_running_loop().create_server(mute, "127.0.0.1", 0)
    place = place_of(server)
    with pytest.raises(NotSent, match="no answer in time"):
        await dial(place, HELLO, nothing, nothing, within_s=0.1)
    server.close()
    for wrong in (place, "127.0.0.1:99999", "127.0.0.1:x", "nowhere"):
        with pytest.raises(NotSent):
            await dial(wrong, HELLO, nothing, nothing)
    async with port(Hello("HTTP", 1, 1, "", 1, "")) as (_, place):
        with pytest.raises(NotSent):
            await dial(place, HELLO, nothing, nothing)


async def test_a_fault_of_ours_closes_one_connection_and_says_few_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with port(Welcome(1, "c1", "b")) as (own, place):
        for _ in range(SAID_MOST * 2):
            lost = asyncio.get_running_loop().create_future()
            connection, _ = await dial(place, HELLO, nothing, lambda _, why, lost=lost: lost.set_result(why))
            own.open[-1].on_frame = lambda *_: 1 // 0  # type: ignore[assignment]
            connection.send(pack(HELLO))
            await lost
        assert [r.name for r in caplog.records] == ["atoll.raft"] * SAID_MOST


async def test_garbage_closes_its_connection_with_few_lines_and_no_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "atoll.raft")
    async with port(Welcome(1, "c1", "b")) as (own, place):
        host, _, number = place.rpartition(":")
        for _ in range(SAID_MOST * 4):
            reader, writer = await asyncio.open_connection(host, int(number))
            writer.write(b"\x00\x00\x01\x00" + os.urandom(256))
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass
            writer.close()
        assert 1 <= len(caplog.records) <= SAID_MOST
        assert sum(c._splitter.waiting for c in own.open) == 0
        connection, _ = await dial(place, HELLO, nothing, nothing)  # the control: a greeting is welcome
        assert not connection.closed
        connection.close()
