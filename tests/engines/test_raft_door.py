"""4.4: strangers at a member's door: another cluster, a twin, a wiped disk, garbage, what is too large."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from raft_crowd import Crowd, Failed, until

from atoll.engines.raft.frames import MAGIC, Caller, Hello, pack


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Three members for all tests of this file; each leaves them as it found them, the last one excepted."""
    members = Crowd(tmp_path_factory.mktemp("town"))
    try:
        for name in "abc":
            members.start(name)
        yield members
    finally:
        members.end()


@asynccontextmanager
async def visit(town: Crowd) -> AsyncIterator[Crowd]:
    """The town with one that leads; this loop's connections are closed at the end."""
    try:
        await town.leader(town.first)
        yield town
    finally:
        town.hang_up()


def elsewhere(town: Crowd) -> str:
    """A place where nobody is."""
    return Crowd(town.folder, "x").places["x"]


async def test_a_member_of_another_cluster_is_turned_away_and_disturbs_nobody(town: Crowd) -> None:
    async with visit(town) as members:
        before = await members.ask(await members.leader("abc"), "status")
        members.places["d"] = elsewhere(town)
        members.start("d", members={"d": members.places["d"], "a": members.places["a"]})
        assert "of cluster" in await members.said("d", "turned this member away")
        await members.said("a", "Were all members first started with the same --members?")
        after = await members.ask(await members.leader("abc"), "status")
        assert (after["term"], after["voters"]) == (before["term"], ["a", "b", "c"])
        assert (await members.ask("d", "status"))["leader"] == ""
        await members.kill("d")


async def test_the_second_of_two_members_with_one_name_is_refused_naming_both(town: Crowd) -> None:
    async with visit(town) as members:
        await members.put("x", among="abc")
        victim = await members.follower()
        await members.kill(victim)
        shutil.copytree(town.folder / victim, town.folder / "twin")
        members.start(victim)  # the control: the same member in a new process is welcome
        await until(lambda: members.ask(victim, "keys"))
        await until(lambda: reached_by_all(members, victim))
        other = elsewhere(town)
        members.start(victim, data="twin", members=members.first, listen=other, place=other)
        assert await members.gone("twin") == 1
        said = members.log("twin")
        assert "two members are named" in said and other in said and members.places[victim] in said
        assert "x" in await members.ask(victim, "keys")
        assert members.children[victim].poll() is None


async def reached_by_all(members: Crowd, name: str) -> None:
    for other in members.first:
        if other != name and not (await members.ask(other, "status"))["reached"][name]:
            raise Failed("NotReached")
        if other != name and not (await members.ask(name, "status"))["reached"][other]:
            raise Failed("NotReached")


async def test_garbage_on_the_port_costs_lines_and_no_memory(town: Crowd) -> None:
    async with visit(town) as members:
        await members.put("x", among="abc")
        before = await members.ask("a", "status")
        host, _, port = members.places["a"].rpartition(":")
        hello = pack(Hello("other", 1, 1, "", Caller.PEER, "b"))
        forged = pack(Hello(MAGIC, 1, 1, before["cluster"], Caller.CLIENT, "t")) + b"\xff" * 64
        for n in range(300):
            kinds = [
                os.urandom(4096),
                b"\x7f\xff\xff\xff" + b"x" * 4096,
                b"GET / HTTP/1.1\r\n\r\n",
                hello,
                forged,
            ]
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(kinds[n % len(kinds)])
        await members.put("y", among="abc")
        after = await members.ask("a", "status")
        assert after["rss_kb"] - before["rss_kb"] < 8_000
        assert members.log("a").count("closed the connection") <= 5
        assert after["term"] == before["term"]


async def test_an_oversize_command_is_refused_before_it_is_sent(town: Crowd) -> None:
    async with visit(town) as members:
        leader = await members.leader("abc")
        before = (await members.ask(leader, "status"))["last"]
        with pytest.raises(Failed, match="LimitReached") as refused:
            await members.ask(leader, "put", "big", b"v" * (1 << 20))
        assert "message_bytes_max" in refused.value.args[1]
        assert (await members.ask(leader, "status"))["last"] == before
        await members.ask(leader, "put", "big", b"v" * ((1 << 20) - 200))  # the control
        for name in "abc":
            assert "big" in await members.ask(name, "keys")


async def test_a_folder_has_one_process_and_one_member(town: Crowd) -> None:
    async with visit(town) as members:
        first = members.children["b"]
        second = members.start("b", members=members.first, listen=elsewhere(town))
        members.children["b"] = first
        assert second.wait(20) != 0
        assert "is in use by pid" in members.log("b")


async def test_a_wiped_member_does_not_vote_and_is_told_how_to_come_back(town: Crowd) -> None:
    async with visit(town) as members:
        await members.put("x", among="abc")
        victim = await members.follower()
        await members.kill(victim)
        shutil.rmtree(town.folder / victim)
        members.start(victim)
        assert await members.gone(victim) == 1
        assert "under a new name" in members.log(victim)
        assert "is candidate" not in members.log(victim).rpartition("ready")[2]
        await members.put("still", among=[n for n in "abc" if n != victim])
