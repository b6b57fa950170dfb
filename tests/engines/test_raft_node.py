"""4.4: three members in processes of their own elect, commit, and are killed, stopped and restarted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from raft_crowd import Crowd, Failed, crowd, until


async def pour(members: Crowd, leader: str, count: int, begin: int = 0) -> dict[str, asyncio.Future[Any]]:
    """Many writes at once to one member; what became of each."""
    client = await members.client(leader)
    return {f"k{n:05}": client.ask("put", f"k{n:05}", b"v") for n in range(begin, begin + count)}


async def sorted_out(asked: dict[str, asyncio.Future[Any]]) -> tuple[set[str], set[str], set[str]]:
    """Acknowledged, certainly not applied, unknown."""
    async with asyncio.timeout(30):
        await asyncio.gather(*asked.values(), return_exceptions=True)
    done, never, unknown = set(), set(), set()
    for key, future in asked.items():
        error = future.exception()
        if error is None:
            done.add(key)
        elif isinstance(error, Failed) and error.kind in ("NotLeader", "NotSent"):
            never.add(key)
        else:
            unknown.add(key)
    return done, never, unknown


async def test_three_members_elect_one_and_all_read_what_it_acknowledged(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        leader = await members.leader()
        asked = await pour(members, leader, 200)
        done, _, _ = await sorted_out(asked)
        assert len(done) == 200
        for name in "abc":
            assert set(await members.ask(name, "keys")) == done
        follower = await members.follower()
        with pytest.raises(Failed, match="NotLeader") as refused:
            await members.ask(follower, "put", "x", b"")
        assert members.places[leader] in refused.value.args[1]
        await members.same("abc")
        before = (await members.ask(leader, "status"))["forced"]
        await sorted_out(await pour(members, leader, 1000))
        assert (await members.ask(leader, "status"))["forced"] - before < 500  # they share forced writes
        before = (await members.ask(leader, "status"))["forced"]
        for n in range(10):
            await members.ask(leader, "put", f"alone{n}", b"")
        assert (await members.ask(leader, "status"))["forced"] - before >= 10  # the control: none is saved


async def test_a_killed_leader_takes_no_acknowledged_write_with_it(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        leader = await members.leader()
        client = await members.client(leader)
        asked: dict[str, asyncio.Future[Any]] = {}

        async def write(writer: int) -> None:
            for n in range(10_000):
                key = f"{writer}-{n}"
                asked[key] = client.ask("put", key, b"v")
                await asked[key]

        writers = [asyncio.ensure_future(write(n)) for n in range(64)]
        while len(asked) < 400 or sum(not future.done() for future in asked.values()) < 32:
            await asyncio.sleep(0)
        await members.kill(leader)  # at least 32 writes are in flight: the fault bites
        await asyncio.gather(*writers, return_exceptions=True)
        done, _, _ = await sorted_out(asked)
        assert len(done) > 200
        await members.put("after", among=[n for n in "abc" if n != leader])
        members.start(leader)
        for name in "abc":
            keys = set(await until(lambda name=name: members.ask(name, "keys")))
            assert done | {"after"} <= keys
        await members.same("abc")


async def test_a_leader_that_was_stopped_answers_honestly_when_it_wakes(tmp_path: Path) -> None:
    async with crowd(tmp_path, election_s=1.0) as members:
        leader = await members.leader()
        others = [name for name in "abc" if name != leader]
        first, _, _ = await sorted_out(await pour(members, leader, 50))
        client = await members.client(leader)
        for name in others:  # nobody hears the leader: what it takes now is in its own log at most
            members.signal(name, signal.SIGSTOP)
        asked = await pour(members, leader, 50, begin=1000)
        await client.ask("status")
        members.signal(leader, signal.SIGSTOP)
        assert not any(future.done() for future in asked.values())
        for name in others:
            await members.kill(name)
            members.start(name, members=members.first, election_s=1.0)
        await members.put("meanwhile", among=others)
        members.signal(leader, signal.SIGCONT)
        done, never, unknown = await sorted_out(asked)
        await members.said(leader, f"{leader} is follower")
        for name in "abc":
            keys = set(await until(lambda name=name: members.ask(name, "keys")))
            assert first | done | {"meanwhile"} <= keys
            assert not never & keys
        assert not done and never and len(never | unknown) == 50  # the fault bit
        await members.same("abc")


async def test_what_was_acknowledged_survives_the_death_of_all(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        done, _, _ = await sorted_out(await pour(members, await members.leader(), 200))
        for name in "abc":
            members.signal(name, signal.SIGKILL)
        for name in "abc":
            await members.gone(name)
            members.start(name)
        await members.leader()
        for name in "abc":
            assert set(await until(lambda name=name: members.ask(name, "keys"))) == done
        await members.same("abc")


async def test_a_stop_that_was_asked_for_hands_over_first(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        leader = await members.leader()
        term = (await members.ask(leader, "status"))["term"]
        others = [name for name in "abc" if name != leader]
        members.signal(leader, signal.SIGTERM)
        assert await members.gone(leader) == 0
        assert f"{leader} is follower in term {term + 1}" in members.log(leader)  # it saw its successor
        second = await members.leader(others)
        members.signal(second, signal.SIGKILL)
        await members.gone(second)
        assert f"{second} is follower in term {term + 2}" not in members.log(second)  # the control
