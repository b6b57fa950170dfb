"""3.4, workload election: terms change hands, their tokens rise, an older term's word is refused."""

from __future__ import annotations

from broken_stores import judged

import atoll
from atoll.verify import lock_history
from atoll.verify.history import History, Holding, Type
from atoll.verify.lines import lines
from atoll.verify.workloads import WORKLOADS


async def test_leaders_change_and_their_terms_rise() -> None:
    judgement = await judged("election", atoll.store("memory://"), seconds=1.0)
    assert judgement.violations == []
    assert judgement.counts["acquisitions"] > 2
    assert judgement.counts["accepted"] > 2


def test_a_term_that_goes_down_is_told_on_a_line_of_its_own() -> None:
    book = History()
    for revision in (5, 4):
        book.end(book.begin("a", "acquired", "lead"), Type.OK, Holding("lead", 1, revision))
    made = lines(WORKLOADS["election"], lock_history.judge(book), [])
    assert [line.claim.name for line in made] == ["one leader's word counts", "terms only rise"]
    assert made[1].verdict == "broken"
    assert made[0].verdict != "broken"
