"""3.4 on PostgreSQL: power, an asynchronous and a synchronous standby promoted."""

from __future__ import annotations

import pytest

import servers
from atoll.verify.judgement import Answer
from atoll.verify.power import mount
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship, Line


async def played(workload: str, seconds: float, start: str = "postgresql") -> list[Line]:
    servers.expect("postgresql")
    return (await run(Wish(start=start, workloads=(workload,), seconds=seconds, seed=6))).lines


def bit(line: Line, hardship: Hardship) -> bool:
    return any(bite.times for bite in line.bites if bite.hardship is hardship)


@pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")
async def test_nothing_acknowledged_is_lost_in_a_power_cut() -> None:
    [line] = await played("power", 2.5)
    assert (line.verdict, bit(line, Hardship.POWER_CUT)) == ("held", True), line.figures


@pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")
@pytest.mark.long
async def test_with_fsync_off_a_power_cut_is_caught() -> None:
    [line] = await played("power", 3, "postgresql?fsync=false")
    assert line.verdict != "held", line.figures


async def test_a_lagging_standby_forgets_and_no_stale_token_writes_after_it() -> None:
    kept, stale = await played("failover", 2.5)
    assert bit(kept, Hardship.FAILOVER) and kept.answer is Answer.NO, kept.figures
    assert kept.verdict == "not promised"
    assert stale.verdict != "broken", stale.figures
