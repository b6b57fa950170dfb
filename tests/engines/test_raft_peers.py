"""4.4: the lines between members: bounded, mended by themselves, with heartbeats before parcels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from raft_crowd import until

from atoll.algorithms.raft.messages import Append, Chunk, Entry, Kind, Membership, Message, Snapshot
from atoll.engines.raft.acquaintances import Acquaintances
from atoll.engines.raft.connection import TurnedAway, dial
from atoll.engines.raft.door import UNGREETED_MAX, Door
from atoll.engines.raft.frames import FORMAT, MAGIC, Caller, Hello, Letter, Why, pack
from atoll.engines.raft.peers import PARCELS_BYTES_MAX, Peers, Self
from atoll.errors import FormatRefused
from atoll.verify.servers.process import free_port

HEARTBEAT = Append(1, 1, 0, 0, 0)
SNAPSHOT = Snapshot(9, 1, Membership(("a", "b")), 1 << 30)


def parcel(size: int = 256 << 10) -> Chunk:
    return Chunk(1, 1, SNAPSHOT, 0, b"x" * size, False)


class End:
    """One member's lines and door, and what it hears."""

    def __init__(self, folder: Path, name: str, *, born: str = "", cluster: str = "c1") -> None:
        folder.mkdir(exist_ok=True)
        self.heard: list[tuple[str, Message]] = []
        self.final: list[str] = []
        me = Self(name, cluster, born or f"born-{name}", f"run-{name}", f"127.0.0.1:{free_port()}")
        self.peers = Peers(me, Acquaintances(folder), self.final.append)
        self.door = Door(self.peers, lambda *said: self.heard.append(said), lambda *_: None)

    async def open(self) -> End:
        await self.door.open(self.peers.me.place)
        return self

    def close(self) -> None:
        self.peers.close()
        self.door.close()

    def meet(self, other: End) -> None:
        self.peers.meet(other.peers.me.name, other.peers.me.place)

    async def reaches(self, name: str) -> None:
        async def look() -> None:
            assert self.peers.reached()[name]

        await until(look)


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[End, End]]:
    a, b = await End(folder / "a", "a").open(), await End(folder / "b", "b").open()
    a.meet(b)
    await a.reaches("b")
    try:
        yield a, b
    finally:
        a.close()
        b.close()


async def heard(end: End, count: int) -> list[Message]:
    async def look() -> list[Message]:
        assert len(end.heard) >= count
        return [message for _, message in end.heard]

    return list(await until(look))


def stop_listening(end: End) -> None:
    for guest in end.door._guests.values():
        guest.connection.pause_reading()


async def test_what_is_sent_arrives_under_its_senders_name(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        entries = (Entry(1, 1, Kind.COMMAND, b"data", 7, 8),)
        a.peers.send("b", Append(1, 2, 0, 0, 0, entries))
        await heard(b, 1)
        assert b.heard == [("a", Append(1, 2, 0, 0, 0, entries))]


async def test_who_does_not_listen_costs_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        stop_listening(b)
        for _ in range(4 * PARCELS_BYTES_MAX // (256 << 10)):
            a.peers.send("b", parcel())
        line = a.peers._lines["b"]
        assert line._parcel_bytes <= PARCELS_BYTES_MAX
        assert a.peers.counts.dropped > 0
        assert line.connection is not None and line.connection.waiting < 1 << 20
        for _ in range(10_000):
            a.peers.send("b", HEARTBEAT)
        assert len(line._letters) < 1000


async def test_a_heartbeat_overtakes_the_parcels_that_wait(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        stop_listening(b)
        count = PARCELS_BYTES_MAX // (512 << 10)
        for _ in range(count):
            a.peers.send("b", parcel())
        a.peers.send("b", HEARTBEAT)
        for guest in b.door._guests.values():
            guest.connection.resume_reading()
        order = await heard(b, count + 1)
        assert HEARTBEAT in order and isinstance(order[-1], Chunk)  # some parcels had left before it
        assert a.peers.counts.dropped == 0


async def test_a_line_is_mended_when_the_other_end_comes_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        place = b.peers.me.place
        b.close()

        async def cut() -> None:
            assert not a.peers.reached()["b"]

        await until(cut)
        a.peers.send("b", parcel())  # nobody can take it: it is dropped, not kept
        assert a.peers.counts.dropped == 1
        again = End(tmp_path / "b", "b")
        again.peers.me = Self("b", "c1", "born-b", "another run", place)
        again.door.me = again.peers.me
        await again.open()
        await a.reaches("b")
        a.peers.send("b", HEARTBEAT)
        assert (await heard(again, 1))[-1] == HEARTBEAT
        again.close()


async def test_a_letter_of_another_cluster_closes_its_line(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        connection = a.peers._lines["b"].connection
        assert connection is not None
        connection.send(pack(Letter("c1", HEARTBEAT)) + pack(Letter("c2", HEARTBEAT)))

        async def cut() -> None:
            assert connection.closed

        await until(cut)
        assert b.heard == [("a", HEARTBEAT)]


async def test_a_member_two_formats_apart_is_refused_and_a_neighbour_is_not(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, _):

        def hello(oldest: int, newest: int) -> Hello:
            return Hello(MAGIC, oldest, newest, "c1", Caller.PEER, "b", "a", "born-b", "run-b")

        connection, welcome = await dial(a.peers.me.place, hello(FORMAT, FORMAT + 1), quiet, quiet)
        assert welcome.format == FORMAT
        connection.close()
        with pytest.raises(TurnedAway, match="one release apart") as refusal:
            await dial(a.peers.me.place, hello(FORMAT + 1, FORMAT + 2), quiet, quiet)
        assert refusal.value.why == Why.FORMAT


async def test_a_folder_that_was_wiped_is_remembered_across_restarts(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        place, born = b.peers.me.place, b.peers.me.born
        b.close()
        assert Acquaintances(tmp_path / "a").born("b") == born  # it is on the disk
        wiped = End(tmp_path / "wiped", "b", born="another")
        wiped.peers.me = Self("b", "c1", "another", "run", place)
        wiped.door.me = wiped.peers.me
        await wiped.open()
        wiped.meet(a)

        async def told() -> None:
            assert wiped.final

        await until(told)
        assert "under a new name" in wiped.final[0] and not a.heard
        wiped.close()


async def test_who_calls_a_wiped_member_ends_it_and_goes_on(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        place = b.peers.me.place
        b.close()
        wiped = End(tmp_path / "wiped", "b", born="another")  # it calls nobody: it is called
        wiped.peers.me = wiped.door.me = Self("b", "c1", "another", "run", place)
        await wiped.open()

        async def told() -> None:
            assert wiped.final and "turned this member away" in a.peers._lines["b"]._said

        await until(told)
        assert not a.final, "it is whole, and would have been taken down by another's loss"
        wiped.close()


async def test_callers_who_say_nothing_are_few_and_keep_nobody_out(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, _):
        host, _, port = a.peers.me.place.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(UNGREETED_MAX + 20)]

        async def met() -> None:
            assert len(a.door._hall) == UNGREETED_MAX

        await until(met)
        assert await silent[0][0].read() == b""  # the oldest had to go
        hello = Hello(MAGIC, FORMAT, FORMAT, "", Caller.CLIENT, "a client")
        connection, welcome = await dial(a.peers.me.place, hello, quiet, quiet)
        assert welcome.name == "a"
        connection.close()
        for _, writer in silent:
            writer.close()


def test_a_memory_of_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "acquaintances").write_text('{"format": 99, "born": {}}')
    with pytest.raises(FormatRefused, match="of format 99"):
        Acquaintances(tmp_path)
    (tmp_path / "acquaintances").write_text('{"format": 1, "born": {"b": "x"}}')
    assert Acquaintances(tmp_path).born("b") == "x"


def quiet(*_: Any) -> None: ...
