"""3.4, workload set: what was acknowledged is there in the end, what was refused is not."""

from __future__ import annotations

from broken_stores import Broken, judged

import atoll
from atoll.ports.register import Applied, Entry
from atoll.ports.store import Compare, Guard, Operation, Put
from atoll.verify.history import History, Transaction, Type
from atoll.verify.judgement import Answer
from atoll.verify.workloads import set as sets


def book(*calls: tuple[str, Type], found: dict[str, str] | None) -> History:
    history = History()
    for key, type in calls:
        call = history.begin("a", "transact", Transaction((Put(key, b"v"),)))
        history.end(call, type, Applied(1, (Entry(key, b"v", 1, 1),)) if type is Type.OK else None)
    if found is not None:
        history.note("last", "members", "", found)
    return history


def test_an_acknowledged_member_that_is_gone_is_lost() -> None:
    judgement = sets.judge(book(("x", Type.OK), ("y", Type.OK), found={"y": "v"}))
    assert judgement.rules() == {"acknowledged, then lost"}
    assert judgement.counts["lost"] == 1


def test_a_refused_member_that_is_there_is_a_violation() -> None:
    judgement = sets.judge(book(("x", Type.OK), ("y", Type.FAIL), found={"x": "v", "y": "v"}))
    assert judgement.rules() == {"not applied, yet there"}


def test_an_unknown_member_may_be_there_or_not() -> None:
    judgement = sets.judge(
        book(("x", Type.OK), ("y", Type.INFO), ("z", Type.INFO), found={"x": "v", "z": "v"})
    )
    assert judgement.answer is Answer.YES
    assert judgement.counts["unknown there"] == 1


def test_a_member_from_nowhere_is_a_violation() -> None:
    judgement = sets.judge(book(("x", Type.OK), found={"x": "v", "w": "v"}))
    assert judgement.rules() == {"member from nowhere"}


def test_where_the_end_could_not_be_read_nothing_is_known() -> None:
    assert sets.judge(book(("x", Type.OK), found=None)).answer is Answer.NOT_KNOWN


class Forgets(Broken):
    """One write in fifty is acknowledged and not made."""

    async def transact(
        self,
        *then: Operation,
        compare: tuple[Compare, ...] = (),  # type: ignore[override]
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied:
        if self.dice.random() < 0.02:
            return Applied(1, tuple(Entry(op.key, b"", 1, 1) for op in then))
        answer = await self.inner.transact(*then, compare=compare, guard=guard, request_id=request_id)
        assert isinstance(answer, Applied)
        return answer


async def test_a_store_that_forgets_now_and_then_is_caught_by_playing() -> None:
    judgement = await judged("set", Forgets(atoll.store("memory://")))
    assert "acknowledged, then lost" in judgement.rules()


async def test_a_true_store_keeps_all() -> None:
    judgement = await judged("set", atoll.store("memory://"))
    assert judgement.violations == []
