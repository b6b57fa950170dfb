"""3.4 on Redis: what `atoll verify --start redis` finds, fault by fault, in its short form."""

from __future__ import annotations

import pytest

import servers
from atoll.verify import special_stages
from atoll.verify.judgement import Answer
from atoll.verify.power import mount
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship, Line
from atoll.verify.staging import Start

REDIS = Start(product="redis")


async def played(workload: str, seconds: float, start: str = "redis") -> list[Line]:
    servers.expect("redis")
    return (await run(Wish(start=start, workloads=(workload,), seconds=seconds, seed=6))).lines


def bit(line: Line, hardship: Hardship) -> bool:
    return any(bite.times for bite in line.bites if bite.hardship is hardship)


@pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")
async def test_with_appendfsync_always_nothing_acknowledged_is_lost_in_a_power_cut() -> None:
    [line] = await played("power", 2.5)
    assert (line.verdict, bit(line, Hardship.POWER_CUT)) == ("held", True), line.figures


@pytest.mark.skipif(bool(special_stages.no_tmpfs(REDIS)), reason=special_stages.no_tmpfs(REDIS) or "-")
async def test_a_full_disk_costs_nothing_that_was_acknowledged() -> None:
    [line] = await played("full", 3)
    assert (line.verdict, bit(line, Hardship.FULL_DISK)) == ("held", True), line.figures


@pytest.mark.long
async def test_a_lagging_replica_forgets_as_its_claims_say_and_no_stale_token_writes_after_it() -> None:
    kept, stale = await played("failover", 2.5)
    assert bit(kept, Hardship.FAILOVER) and kept.answer is Answer.NO, kept.figures
    assert kept.verdict == "not promised"
    assert stale.verdict != "broken", stale.figures


@pytest.mark.skipif(
    bool(special_stages.no_wall_clock(REDIS)), reason=special_stages.no_wall_clock(REDIS) or "-"
)
async def test_a_stepped_clock_is_seen_by_the_server_and_no_lease_ends_earlier_than_it_claims() -> None:
    [line] = await played("clock", 3)
    assert bit(line, Hardship.CLOCK), "the server itself said its time had changed"
    assert line.verdict in ("held", "not promised"), line.figures
