"""4.1 and 4.4: reads that wait: by which question each is answered, and that none is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from atoll.engines.raft.barriers import Barriers
from atoll.errors import NotSent


class Leader:
    """Hears the questions; what it answers, and when, the test decides."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.wanted: list[int] = []
        self.reads = Barriers(self.asked.append, self.wanted.append, 5, again_s=0.05)

    async def question(self, count: int) -> int:
        """The newest question, once there are `count`."""
        async with asyncio.timeout(5):
            while len(self.asked) < count:
                await asyncio.sleep(0.001)
        return self.asked[-1]


async def test_a_read_is_not_answered_by_a_question_that_was_asked_before_it_came() -> None:
    leader = Leader()
    early = leader.reads.wait()
    first = await leader.question(1)
    late = leader.reads.wait()
    leader.reads.ready(first, 5)
    await early
    assert not late.done(), "what was agreed meanwhile it would not see"
    leader.reads.ready(await leader.question(2), 6)
    assert not late.done() and leader.wanted == [6]
    leader.reads.advance(6)
    await late


async def test_a_question_that_is_asked_again_does_not_answer_who_came_after_it() -> None:
    leader = Leader()
    early = leader.reads.wait()
    first = await leader.question(1)
    late = leader.reads.wait()
    second = await leader.question(2)
    assert second != first, "no question has the number of another"
    leader.reads.ready(second, 5)
    await early
    leader.reads.ready(first, 5)
    assert not late.done(), "the answer to an older question is of no use"
    leader.reads.ready(await leader.question(3), 5)
    await late


async def test_a_refused_question_is_asked_again_and_a_read_that_left_is_not_asked_for() -> None:
    leader = Leader()
    patient, gone = leader.reads.wait(), leader.reads.wait()
    assert leader.reads.refused(await leader.question(1))
    gone.cancel()
    leader.reads.ready(await leader.question(2), 5)
    await patient
    assert not leader.reads.refused(leader.asked[0]), "it belongs to nobody any more"


async def test_the_state_never_seems_to_go_back() -> None:
    leader = Leader()
    leader.reads.advance(9)
    leader.reads.advance(7)
    read = leader.reads.wait()
    leader.reads.ready(await leader.question(1), 8)
    await read


async def test_whoever_waits_when_the_member_ends_is_told() -> None:
    leader = Leader()
    behind = leader.reads.wait()
    leader.reads.ready(await leader.question(1), 100)
    asked = leader.reads.wait()
    await leader.question(2)
    waiting = leader.reads.wait()
    leader.reads.ended("it ended")
    for read in (behind, asked, waiting):
        with pytest.raises(NotSent, match="it ended"):
            await read
