"""4.4: a disk that stalls or fails: its member steps down or ends and says so; its loop never waits."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from raft_crowd import Failed, crowd, until
from raft_trio import trio

from atoll.engines.raft.watchdog import Watchdog
from atoll.errors import NotSent, OutcomeUnknown


async def test_a_leader_whose_disk_stalls_steps_down_and_its_loop_goes_on(tmp_path: Path) -> None:
    async with trio(tmp_path) as own:
        leader = await own.leader()
        await own.put(leader, "before")
        own.disks[leader].stall()
        stuck = [own.put(leader, f"stuck{n}") for n in range(10)]
        await until(lambda: asyncio.to_thread(own.disks[leader].stuck.wait, 1))
        while own.members[leader].consensus.is_leader:  # its followers may well have acknowledged
            await asyncio.sleep(0.01)
        assert not own.disks[leader].free.is_set()  # the loop did not wait for the disk
        second = await own.leader(but=leader)
        await own.put(second, "meanwhile")
        own.disks[leader].free.set()
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        keys = await own.keys(leader)
        assert {"before", "meanwhile"} <= keys
        for n, outcome in enumerate(outcomes):
            if isinstance(outcome, bytes):
                assert f"stuck{n}" in keys
            else:
                assert isinstance(outcome, OutcomeUnknown) or f"stuck{n}" not in keys


async def test_a_disk_that_is_only_slow_deposes_nobody(tmp_path: Path) -> None:
    """The control of the one above."""
    async with trio(tmp_path, election_s=1.0) as own:
        leader = await own.leader()
        term = own.members[leader].consensus.term
        own.disks[leader].slow_s = 0.05
        for n in range(5):
            await own.put(leader, f"k{n}")
        assert own.members[leader].consensus.is_leader and own.members[leader].consensus.term == term


async def test_a_follower_whose_disk_stalls_holds_nobody_up_and_catches_up(tmp_path: Path) -> None:
    async with crowd(tmp_path) as members:
        leader = await members.leader()
        first, second = (name for name in "abc" if name != leader)
        members.stall(first)
        for n in range(20):
            await members.ask(leader, "put", f"k{n}", b"v")
        members.stall(second)  # the control: now there is no majority of disks
        with pytest.raises(Failed, match=r"NotLeader|OutcomeUnknown"):
            await members.ask(leader, "put_within", 1.0, "alone")
        members.stall(first, on=False)
        members.stall(second, on=False)
        await members.put("after")
        for name in "abc":
            keys = await until(lambda name=name: members.ask(name, "keys"))
            assert {f"k{n}" for n in range(20)} | {"after"} <= set(keys)


async def test_a_disk_that_fails_ends_its_member_with_a_sentence_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "atoll.raft")
    async with trio(tmp_path) as own:
        leader = await own.leader()
        await own.put(leader, "before")
        own.disks[leader].broken = True
        lost = own.put(leader, "lost")
        sentence = await own.members[leader].ended()
        assert "its log cannot be written" in sentence and "the disk is broken" in sentence
        with pytest.raises(OutcomeUnknown):
            await lost
        with pytest.raises(NotSent, match="its log cannot be written"):
            await own.put(leader, "never")
        second = await own.leader(but=leader)
        await own.put(second, "after")
        keys = await own.keys(second)
        assert {"before", "after"} <= keys and "never" not in keys
        assert [r.message for r in caplog.records if r.name == "atoll.raft"] == [sentence]


@pytest.mark.parametrize("stands_still", [True, False])
async def test_a_loop_that_stands_still_is_noticed_from_outside(
    stands_still: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "atoll.raft")
    watchdog = Watchdog(1.0)
    if stands_still:
        while not watchdog.stalls:
            time.sleep(0.05)
    else:
        for _ in range(10):
            await asyncio.sleep(0.01)
    watchdog.close()
    assert ["has stood still" in record.message for record in caplog.records] == [True] * stands_still
