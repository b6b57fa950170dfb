"""3.4: what befalls servers that verify started; each fault says whether it bit, and what did not is told."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

import servers
from atoll import clock, urls
from atoll.errors import AtollError
from atoll.ports.register import Got
from atoll.ports.store import Store, put
from atoll.verify import revisions
from atoll.verify.accidents import Accident, bites
from atoll.verify.history import History, Type
from atoll.verify.judgement import Answer
from atoll.verify.lines import lines
from atoll.verify.recorder import RecordingStore
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship
from atoll.verify.server_faults import Weather
from atoll.verify.staging import Start, staged
from atoll.verify.workloads import WORKLOADS


async def hammer(store: Store, prefix: str) -> None:
    """Write and read all the time, whatever is answered."""
    number = 0
    while True:
        number += 1
        with suppress(AtollError):
            await store.transact(put(f"{prefix}{number % 3}", clock.unique_id().encode()))
            await store.get(f"{prefix}{number % 3}")
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("start", ["redis", "etcd:3", "raft:3"])
async def test_every_fault_bites_and_no_answer_is_wrong(start: str, tmp_path: Path) -> None:
    servers.expect(start.partition(":")[0])
    tmp_path.chmod(0o755)
    book, dice = History(), random.Random(3)
    async with staged(Start.read(start), tmp_path) as stage, urls.store(stage.url) as store:
        claims = await store.open()
        clients = [
            asyncio.ensure_future(hammer(RecordingStore(store, book, f"a1.{n}"), "hammered/"))
            for n in range(2)
        ]
        accidents: list[Accident] = []
        fates = Weather(stage).fates()
        for fate in fates.values():
            accidents += await fate(dice, max(0.4, claims.ttl_min_s / 2))
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    assert (Hardship.PEERS in fates) is start.endswith(":3")
    found = bites(book, accidents, fates)
    assert [bite.hardship.value for bite in found if not bite.times] == []
    assert revisions.judge(book, claims=claims).violations == []


@pytest.mark.long
@pytest.mark.parametrize("start", ["postgresql", "etcd:3", "redis", "raft:3"])
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
