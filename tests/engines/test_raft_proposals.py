"""4.4: what each who proposed is told: its own result, never another's, and what is not known is unknown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from raft_trio import trio

from atoll.algorithms.raft.events import Command
from atoll.algorithms.raft.messages import Entry, Kind
from atoll.engines.raft.proposals import Proposals
from atoll.errors import NotSent, OutcomeUnknown


class Counter:
    """Proposals whose commands go nowhere: where they stand in the log, the test decides."""

    def __init__(self) -> None:
        self.said: list[list[bytes]] = []
        self.answers: list[Any] = []
        self.all = Proposals(self._flush, lambda: NotSent("replaced"), lambda term: OutcomeUnknown(f"{term}"))

    def _flush(self, commands: list[Command], answers: list[Any]) -> None:
        self.said.append([command.data for command in commands])
        self.answers += answers

    def ask(self, *data: bytes) -> list[Any]:
        return [self.all.add(Command(one)) for one in data]


def entry(index: int, term: int) -> Entry:
    return Entry(term, index, Kind.COMMAND, b"")


async def test_all_of_one_turn_go_together_and_each_has_its_own_result() -> None:
    counter = Counter()
    asked = counter.ask(b"a", b"b", b"c")
    await asyncio.sleep(0)
    assert counter.said == [[b"a", b"b", b"c"]]
    counter.all.placed(asked, 3, 7)
    counter.all.applied([entry(6, 3), entry(7, 3)], [b"x", b"A"])
    counter.all.applied([entry(8, 3), entry(9, 3)], [b"B", b"C"])
    assert [one.result() for one in asked] == [b"A", b"B", b"C"] and not len(counter.all)


async def test_another_terms_entry_in_its_place_is_no_result_of_mine() -> None:
    counter = Counter()
    [mine] = counter.ask(b"a")
    await asyncio.sleep(0)
    counter.all.placed([mine], 3, 7)
    counter.all.applied([entry(7, 4)], [b"somebody else's"])
    with pytest.raises(NotSent, match="replaced"):
        mine.result()


async def test_two_terms_that_gave_one_place_are_told_apart() -> None:
    counter = Counter()
    old, new = counter.ask(b"old", b"new")
    await asyncio.sleep(0)
    counter.all.placed([old], 3, 7)
    counter.all.placed([new], 5, 7)
    counter.all.applied([entry(7, 5)], [b"N"])
    assert new.result() == b"N"
    with pytest.raises(NotSent):
        old.result()


async def test_who_leaves_before_his_turn_is_not_proposed() -> None:
    counter = Counter()
    stays, leaves = counter.ask(b"stays", b"leaves")
    leaves.cancel()
    await asyncio.sleep(0)
    assert counter.said == [[b"stays"]]
    stays.cancel()


async def test_at_the_end_what_was_never_said_is_not_sent_and_the_rest_unknown() -> None:
    counter = Counter()
    [said] = counter.ask(b"said")
    await asyncio.sleep(0)
    counter.all.placed([said], 3, 7)
    [waits] = counter.ask(b"waits")
    counter.all.ended(lambda: NotSent("the member ends"))
    await asyncio.sleep(0)
    assert counter.said == [[b"said"]]
    assert type(said.exception()) is OutcomeUnknown and type(waits.exception()) is NotSent


async def test_a_leader_sends_what_its_own_disk_does_not_have_yet(tmp_path: Path) -> None:
    async with trio(tmp_path) as own:
        leader = await own.leader()
        await own.put(leader, "before")
        runtime = own.members[leader].runtime
        own.disks[leader].stall()
        sent, forced = runtime.peers.counts.sent, runtime.forced
        write = own.put(leader, "while it writes")
        await asyncio.sleep(0)  # all of this turn are proposed in the next
        assert runtime.peers.counts.sent > sent and runtime.forced == forced
        own.disks[leader].free.set()
        await write
