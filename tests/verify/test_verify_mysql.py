"""3.6 under verify: MariaDB in a power cut, as it is set and as it is set too often."""

from __future__ import annotations

import pytest

import servers
from atoll.verify.judgement import Answer
from atoll.verify.power import mount
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship, Line


async def played(workload: str, seconds: float, start: str = "mysql") -> list[Line]:
    servers.expect("mysql")
    return (await run(Wish(start=start, workloads=(workload,), seconds=seconds, seed=6))).lines


def bit(line: Line, hardship: Hardship) -> bool:
    return any(bite.times for bite in line.bites if bite.hardship is hardship)


@pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")
async def test_nothing_acknowledged_is_lost_in_a_power_cut() -> None:
    [line] = await played("power", 2.5)
    assert (line.verdict, bit(line, Hardship.POWER_CUT)) == ("held", True), line.figures


@pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")
@pytest.mark.long
@pytest.mark.parametrize("flush", [0, 2])
async def test_a_log_that_is_flushed_once_a_second_is_caught_and_was_not_promised(flush: int) -> None:
    [line] = await played("power", 4, f"mysql?flush={flush}")
    assert bit(line, Hardship.POWER_CUT) and line.answer is Answer.NO, line.figures
    assert line.verdict == "not promised"


async def test_observers_miss_nothing_while_the_server_is_hurt() -> None:
    [line] = await played("observe", 2.5)
    assert line.verdict == "held", line.figures
