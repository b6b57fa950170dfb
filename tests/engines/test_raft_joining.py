"""4.4: a member that joins a cluster that stands: fed by a snapshot, counted when it keeps up."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

from raft_crowd import Crowd, crowd, until

from atoll.engines.raft.member_options import Compaction


async def test_a_new_member_joins_by_a_snapshot_and_votes(tmp_path: Path) -> None:
    async with crowd(tmp_path, compaction={"keep": 0}) as members:
        leader = await members.leader()
        client = await members.client(leader)
        value = os.urandom(100_000)
        for n in range(20):  # more than a segment of the log, and a snapshot of many pieces
            await asyncio.gather(*(client.ask("put", f"k{n}-{m}", value) for m in range(10)))
        members.places["d"] = Crowd(tmp_path, "d").places["d"]
        members.start("d", join=members.places["a"], listen=members.places["d"])
        places = dict(members.places)
        await until(lambda: members.ask(leader, "snapshot"))
        assert (await members.ask(leader, "status"))["first"] > 1  # the log does not reach back far enough
        await members.ask(leader, "change", ["a", "b", "c"], ["d"], places)

        async def promote() -> None:
            await members.ask(leader, "change", ["a", "b", "c", "d"], [], places)

        await until(promote)
        await members.said("d", "d goes on from a snapshot")
        await members.kill(next(n for n in "abc" if n != leader))
        await members.put("by three of four", among=[leader, "d"])  # d's word is needed for it
        await until(lambda: members.same([leader, "d"]))


async def test_a_removed_member_hears_of_it_and_disturbs_nobody(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        leader = await members.leader()
        removed = await members.follower()
        staying = [name for name in "abc" if name != removed]
        members.signal(removed, signal.SIGSTOP)  # it misses its own removal
        places = {name: members.places[name] for name in staying}
        await members.ask(leader, "change", staying, [], places)
        term = (await members.ask(leader, "status"))["term"]
        members.signal(removed, signal.SIGCONT)
        await members.said(removed, "is no member of its cluster any more")
        await members.put("on", among=staying)
        assert (await members.ask(leader, "status"))["term"] == term


async def test_snapshots_are_made_by_themselves_and_a_member_begins_from_one(tmp_path: Path) -> None:
    async with crowd(tmp_path, compaction={"entries": 100, "keep": 10}) as members:
        leader = await members.leader()
        for n in range(50):
            await members.ask(leader, "put", f"k{n}", b"v")
        assert not any(snapshots(tmp_path, name) for name in "abc")
        for n in range(50, 120):
            await members.ask(leader, "put", f"k{n}", b"v")

        async def made() -> None:
            assert all(snapshots(tmp_path, name) for name in "abc")

        await until(made)
        victim = await members.follower()
        await members.kill(victim)
        shutil.rmtree(tmp_path / victim / "state")  # what it had applied is lost; snapshot and log are not
        members.start(victim)
        await until(lambda: members.same("abc"))


def snapshots(folder: Path, name: str) -> list[Path]:
    return list((folder / name / "snapshots").glob("*.snapshot"))


async def test_members_that_moved_are_found_where_they_are_said_to_be(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        await members.put("before")
        for name in "abc":
            await members.kill(name)
        members.places = Crowd(tmp_path).places
        for name in "abc":
            members.start(name, members=members.places)
        await members.put("after")
        assert await members.leader()


def test_the_log_that_is_kept_behind_a_snapshot_is_bounded_by_its_bytes_too() -> None:
    compaction = Compaction(keep=100, keep_bytes=1000)
    assert compaction.kept(entries=10, size=1000) == 10
    assert compaction.kept(entries=10, size=10) == 100  # small ones: the number counts
