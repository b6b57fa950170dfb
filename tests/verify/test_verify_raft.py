"""4.4: `atoll verify --start raft:3`: what befalls the disk, the clock, the network of three real members."""

from __future__ import annotations

import asyncio
import functools
import subprocess
from pathlib import Path

import pytest

from atoll import clock
from atoll.verify import namespaces, special_stages
from atoll.verify.power import mount
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship, Line
from atoll.verify.servers import raft
from atoll.verify.staging import Start
from atoll.verify.wall_clock import compiler

THREE = Start(product="raft", nodes=3)
NO_DISK = mount.missing()
NO_NETWORK = namespaces.no_namespaces(THREE) or asyncio.run(namespaces.tried())
NO_CLOCK = special_stages.no_wall_clock(THREE)
NO_ROOM = special_stages.no_tmpfs(THREE)


async def played(act: str, seconds: float, start: str = "raft:3") -> list[Line]:
    return (await run(Wish(start=start, workloads=(act,), seconds=seconds, seed=6))).lines


def bit(line: Line, hardship: Hardship) -> bool:
    return any(bite.times for bite in line.bites if bite.hardship is hardship)


@pytest.mark.skipif(bool(NO_DISK), reason=NO_DISK or "-")
async def test_three_members_on_one_plug_keep_what_was_acknowledged() -> None:
    [line] = await played("power", 2.5)
    assert (line.verdict, bit(line, Hardship.POWER_CUT)) == ("held", True), line.figures
    assert line.judgement and line.judgement.counts["added"] > 0 == line.judgement.counts["lost"]


IDLE_DISK = "int fsync(int file) { return 0; } int fdatasync(int file) { return 0; }"


@pytest.mark.skipif(bool(NO_DISK) or not compiler(), reason=NO_DISK or "no C compiler")
async def test_members_whose_forced_writes_force_nothing_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a library before the members answers each fsync with yes, and does none."""
    library = tmp_path / "idle.so"
    words = [compiler() or "cc", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-"]
    subprocess.run(words, input=IDLE_DISK.encode(), check=True, timeout=60)
    dressed = functools.partial(raft.RaftSettings, environment={"LD_PRELOAD": str(library)})
    monkeypatch.setattr(raft, "RaftSettings", dressed)
    [line] = await played("power", 1.5)
    lost = line.judgement.counts.get("lost", 0) if line.judgement is not None else 0
    noticed = "could not be played" in line.figures and "ended with" in line.figures  # by the members
    assert lost or noticed, (line.verdict, line.figures)


async def test_there_is_no_lagging_copy_to_be_promoted_and_it_is_said() -> None:
    lines = await played("failover", 1)
    assert [line.verdict for line in lines] == ["not run"] * 2
    assert "only a member with all that was acknowledged is elected" in lines[0].figures


@pytest.mark.skipif(bool(NO_NETWORK), reason=NO_NETWORK or "-")
async def test_clients_behind_a_network_that_drops_packets_see_one_order() -> None:
    [line] = await played("partition", 2.5)
    assert (line.verdict, bit(line, Hardship.NAMESPACE)) == ("held", True), line.figures


@pytest.mark.long
@pytest.mark.skipif(bool(NO_CLOCK), reason=NO_CLOCK or "-")
async def test_a_clock_that_jumps_ends_no_lease_early() -> None:
    [line] = await played("clock", 6)
    assert (line.verdict, bit(line, Hardship.CLOCK)) == ("held", True), line.figures


@pytest.mark.long
@pytest.mark.skipif(bool(NO_ROOM), reason=NO_ROOM or "-")
async def test_a_full_disk_loses_nothing_and_members_that_ended_of_it_come_back() -> None:
    [line] = await played("full", 6)
    assert (line.verdict, bit(line, Hardship.FULL_DISK)) == ("held", True), line.figures


@pytest.mark.long
@pytest.mark.parametrize("start", ["raft:3", "raft:5", "raft:3?tls=true", "raft:3?lease_reads=true", "raft"])
async def test_leaders_are_cut_off_killed_and_stopped_and_no_answer_is_wrong(start: str) -> None:
    wish = Wish(start=start, workloads=("register", "lock"), seconds=25, seed=clock.chance().randrange(10**6))
    report = await run(wish)
    assert [line for line in report.lines if line.verdict != "held"] == [], report.again()
    assert start == "raft" or bit(report.lines[0], Hardship.PEERS), report.lines[0].not_tested
