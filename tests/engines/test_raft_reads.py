"""4.4: reads: one question for all who wait together, of any member; a leader's lease for whoever asks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from raft_trio import Trio, trio

from atoll import clock
from atoll.errors import NotSent

READS = 200


async def letters_of_reads(own: Trio, name: str) -> int:
    """Letters that the leader sends while READS reads are asked, one after the other."""
    peers = own.members[await own.leader()].peers
    before = peers.counts.sent
    for _ in range(READS):
        await own.members[name].consensus.read_barrier()
    return peers.counts.sent - before


@pytest.mark.parametrize("lease_reads", [True, False])
async def test_a_lease_answers_reads_without_a_letter(lease_reads: bool, tmp_path: Path) -> None:
    async with trio(tmp_path, lease_reads=lease_reads) as own:
        leader = await own.leader()
        await own.put(leader, "x")
        sent = await letters_of_reads(own, leader)
        assert sent < READS if lease_reads else sent > READS  # heartbeats are few


async def test_reads_that_come_together_share_one_question(tmp_path: Path) -> None:
    async with trio(tmp_path) as own:
        leader = await own.leader()
        await own.put(leader, "x")
        peers = own.members[leader].peers
        before = peers.counts.sent
        await asyncio.gather(*(own.members[leader].consensus.read_barrier() for _ in range(READS)))
        assert peers.counts.sent - before < READS


async def test_every_member_reads_what_was_acknowledged_before(tmp_path: Path) -> None:
    async with trio(tmp_path) as own:
        leader = await own.leader()
        for n in range(20):
            await own.put(leader, f"k{n}")
            for name in "abc":
                assert f"k{n}" in await own.keys(name)


async def test_a_read_is_not_answered_where_no_majority_confirms(tmp_path: Path) -> None:
    async with trio(tmp_path) as own:
        leader = await own.leader()
        await own.put(leader, "x")
        for name in "abc":
            if name != leader:
                own.members[name].peers.close()
                own.members[name].door.close()
        with pytest.raises(NotSent), clock.deadline(0.3):
            await own.members[leader].consensus.read_barrier()
