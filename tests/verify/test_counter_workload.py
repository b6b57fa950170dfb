"""3.4, workload counter: the number in the end is what was acknowledged, retries counted once."""

from __future__ import annotations

from collections.abc import Sequence

from broken_stores import Broken, judged

import atoll
from atoll.errors import OutcomeUnknown
from atoll.ports.register import Applied, Unmet
from atoll.ports.store import Compare, Guard, Operation
from atoll.verify.history import History, Type
from atoll.verify.judgement import Answer
from atoll.verify.workloads import counter


def book(*numbers: int, unknown: int = 0, total: int | None) -> History:
    history = History()
    for number in numbers:
        call = history.begin("a", "count", number)
        history.end(call, Type.OK, number, revision=number)
    for _ in range(unknown):
        history.end(history.begin("a", "count", 0), Type.INFO, error="OutcomeUnknown")
    if total is not None:
        history.note("last", "counted", "", total)
    return history


def test_a_number_given_twice_is_a_lost_update() -> None:
    assert "update lost" in counter.judge(book(1, 2, 2, total=3)).rules()


def test_fewer_than_acknowledged_is_wrong_and_so_is_more_than_anybody_asked() -> None:
    assert counter.judge(book(1, 2, 3, total=2)).rules() == {"counted wrong"}
    assert counter.judge(book(1, 2, 3, unknown=1, total=5)).rules() == {"counted wrong"}


def test_an_unknown_one_may_count_or_not() -> None:
    for total in (3, 4):
        assert counter.judge(book(1, 2, 3, unknown=1, total=total)).answer is Answer.YES


def test_where_the_end_could_not_be_read_nothing_is_known() -> None:
    assert counter.judge(book(1, total=None)).answer is Answer.NOT_KNOWN


class LosesAnswers(Broken):
    """One answer in ten is lost; `forgetful` also forgets which requests it has seen."""

    forgetful = False

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        kept = () if self.forgetful else compare
        asked = None if self.forgetful else request_id
        answer = await self.inner.transact(*then, compare=kept, guard=guard, request_id=asked)
        if self.dice.random() < 0.1:
            raise OutcomeUnknown("lost", id=request_id)
        return answer


class CountsWithoutComparing(LosesAnswers):
    """It neither compares nor remembers."""

    forgetful = True


async def test_retries_under_one_request_id_count_once() -> None:
    judgement = await judged("counter", LosesAnswers(atoll.store("memory://")))
    assert judgement.violations == []
    assert judgement.counts["counted"] > 20


async def test_a_store_that_does_not_compare_is_caught() -> None:
    judgement = await judged("counter", CountsWithoutComparing(atoll.store("memory://")))
    assert "update lost" in judgement.rules()
