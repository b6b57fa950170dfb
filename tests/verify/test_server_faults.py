"""3.4: what befalls servers that verify started; each fault says whether it bit, and what did not is told."""

from __future__ import annotations

import pytest

import servers
from atoll import clock
from atoll.ports.register import Got
from atoll.verify.accidents import Accident, bites
from atoll.verify.history import History, Type
from atoll.verify.judgement import Answer
from atoll.verify.lines import lines
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship
from atoll.verify.workloads import WORKLOADS

WAYS = {
    Hardship.SERVER_KILL,
    Hardship.SERVER_PAUSE,
    Hardship.SERVER_RESTART,
    Hardship.CUT,
    Hardship.SILENCE,
    Hardship.ONE_WAY,
    Hardship.SWALLOW,
    Hardship.DELAY,
}


async def bitten(start: str, workload: str, seconds: float, seed: int) -> tuple[set[Hardship], str, str]:
    report = await run(Wish(start=start, workloads=(workload,), seconds=seconds, seed=seed))
    line = report.lines[0]
    return {bite.hardship for bite in line.bites if bite.times}, line.verdict, line.figures


async def test_every_fault_of_processes_and_ways_bites_on_redis_and_nothing_breaks() -> None:
    servers.expect("redis")
    found, verdict, figures = await bitten("redis", "register", 14, 2)
    assert verdict == "held", figures
    assert len(WAYS & found) >= len(WAYS) - 1, WAYS - found  # a busy machine may be short of time for one


async def test_a_leader_of_etcd_is_cut_off_from_its_peers_and_another_leads() -> None:
    servers.expect("etcd")
    report = await run(Wish(start="etcd:3", workloads=("set",), seconds=14, seed=2))
    [line] = report.lines
    assert line.verdict == "held", line.figures
    found = {bite.hardship for bite in line.bites if bite.times}
    assert Hardship.PEERS in found or Hardship.SERVER_KILL in found
    assert report.preflight


@pytest.mark.long
@pytest.mark.parametrize("start", ["postgresql", "etcd:3", "redis"])
async def test_all_of_it_for_long(start: str) -> None:
    servers.expect(start.partition(":")[0])
    report = await run(Wish(start=start, seconds=60, seed=clock.chance().randrange(10**6)))
    assert [line for line in report.lines if line.verdict == "broken"] == [], report.again()


def quiet() -> History:
    """A client whose calls all ended well, long before the fault."""
    book = History()
    book.end(book.begin("a1.0", "get", "k"), Type.OK, Got(None, 1), revision=1)
    return book


def test_a_fault_while_nobody_asked_proves_nothing() -> None:
    later = Accident(Hardship.SERVER_KILL, "redis0", clock.lease_now() + 100)
    [bite] = bites(quiet(), [later], [Hardship.SERVER_KILL])
    assert (bite.times, bite.seen_by) == (0, "of 1 server kills")


def test_a_partition_that_dropped_no_byte_proves_nothing() -> None:
    book = History()
    book.begin("a1.0", "get", "k")
    nothing = Accident(Hardship.SILENCE, "the proxies", clock.lease_now(), 0.5, proof=0)
    [bite] = bites(book, [nothing], [Hardship.SILENCE])
    assert bite.times == 0


def test_a_fault_that_did_not_bite_makes_no_verdict_and_is_named() -> None:
    book = quiet()
    found = bites(book, [], [Hardship.SERVER_KILL, Hardship.DELAY])
    judgement = WORKLOADS["register"].judge(book, None)
    judgement.answer = Answer.YES
    [line] = lines(WORKLOADS["register"], judgement, found)
    assert line.verdict == "not known"
    assert line.not_tested == ["server kill -9, delay (not reached: give it more seconds)"]
