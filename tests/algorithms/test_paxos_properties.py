"""4.5: whatever the post and the disks do, Paxos chooses one value, one log, one history of a register.

Each rule that makes it so is left out once, and must be missed within a few hundred stories.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file
from paxos_table import Table
from paxos_world import Jury, Offices, Parliament, Weather

from atoll.algorithms import caspaxos, paxos
from atoll.algorithms.multi_paxos import member as multi
from atoll.algorithms.multi_paxos import messages as words

SEEDS = range(300)
CAUGHT_WITHIN = range(1500)
STORM = Weather(loss=0.05, double=0.1, late_s=0.05, astray=0.05, write_s=0.05)
ROUGH = Weather(loss=0.15, double=0.2, late_s=0.3, write_s=0.1)


# -- one value -------------------------------------------------------------------------------------------


def jury(seed: int, count: int = 3, **changes: Any) -> Jury:
    one = Jury(seed, count, ROUGH)
    for name, value in changes.items():
        setattr(one, name, value)
    one.start(proposers=3)
    one.run(400, crash=0.05)
    return one


@pytest.mark.parametrize("count", [3, 4, 5])
def test_only_one_value_is_ever_chosen(count: int) -> None:
    juries = [jury(seed, count) for seed in SEEDS]
    assert [n for n, one in enumerate(juries) if not one.verdict.safe] == []
    assert sum(one.verdict.crashes for one in juries) > 1000
    assert sum(bool(one.verdict.learnt) for one in juries) > len(juries) / 2, "hardly anything was chosen"


def test_when_the_post_works_again_a_value_is_learnt() -> None:
    for seed in range(50):
        one = Jury(seed, 3, ROUGH)
        one.start(proposers=3)
        one.run(150, crash=0.05)
        one.post.weather = Weather(loss=0.0, double=0.0, late_s=0.01, write_s=0.01)
        one.propose("late", "value late")
        one.run(3000, crash=0.0)
        assert one.machines["late"].deadline is None, f"seed {seed}: the last proposer still waits"
        assert one.verdict.safe


class AdoptsNothing(paxos.Proposer[str]):
    def bound(self, promises: list[paxos.Promised[str]]) -> str:
        return self.value


class AdoptsAny(paxos.Proposer[str]):
    """Takes an accepted value, and not that of the highest ballot."""

    def bound(self, promises: list[paxos.Promised[str]]) -> str:
        return min(promises, key=lambda one: (one.accepted == paxos.ZERO, one.accepted)).value or self.value


class ReusesBallots(paxos.Proposer[str]):
    def next_ballot(self) -> paxos.Ballot:
        return super().next_ballot()._replace(proposer="everybody")


class AnswersBeforeWritten(paxos.Acceptor[str]):
    def step(self, event: Any, now: float) -> list[Any]:
        effects = super().step(event, now)
        early = [send for _, sends in self._waiting for send in sends]
        self._waiting = []
        return [*effects, *early]


def forgets_its_promise(cell: paxos.Cell[str]) -> Any:
    return paxos.Acceptor(cell=paxos.Cell(cell.accepted, cell.accepted, cell.value), learners=["learner"])


BROKEN_JURIES: dict[str, dict[str, Any]] = {
    "adopts nothing": {"proposer": AdoptsNothing},
    "adopts any accepted value": {"proposer": AdoptsAny},
    "reuses ballots": {"proposer": ReusesBallots},
    "answers before it is written": {
        "acceptor": lambda cell: AnswersBeforeWritten(cell=cell, learners=["learner"])
    },
    "forgets its promise": {"acceptor": forgets_its_promise},
    "a quorum of half": {"count": 4, "quorum": 2},
}


@pytest.mark.parametrize("mistake", BROKEN_JURIES)
def test_a_mistake_with_one_value_is_caught(mistake: str) -> None:
    assert caught(lambda seed: jury(seed, **BROKEN_JURIES[mistake]).verdict.safe), mistake


def caught(safe: Callable[[int], bool]) -> bool:
    return any(not safe(seed) for seed in CAUGHT_WITHIN)


# -- a log -----------------------------------------------------------------------------------------------


def parliament(seed: int, count: int = 3, **changes: Any) -> Parliament:
    one = Parliament(seed, count, STORM, **changes)
    one.run(700, crash=0.01, propose=0.1)
    return one


def test_the_logs_agree_slot_by_slot() -> None:
    told = [parliament(seed, 3 + 2 * (seed % 2)) for seed in range(200)]
    assert [n for n, one in enumerate(told) if not one.safe] == []
    assert sum(one.elections for one in told) > 200
    assert sum(one.crashes for one in told) > 500
    assert sum(len(one.applied) for one in told) > 1000
    assert sum(one.noops for one in told) > 0, "no gap was ever filled"


def test_no_more_slots_are_open_than_the_window_has() -> None:
    for seed in range(20):
        one = Parliament(seed, window=3)
        one.run(800, propose=0.5)
        assert 0 < one.most_open <= 3


def test_when_the_post_works_again_everybody_has_the_same_log() -> None:
    for seed in range(30):
        one = parliament(seed)
        one.heal()
        one.run(600, propose=0.0)
        leader = one.leader()
        assert leader is not None, f"seed {seed}: nobody leads"
        for n in range(10):
            one.propose(leader, b"last %d" % n)
        for _ in range(20):
            one.run(200, propose=0.0)
            logs = {tuple(machine.log) for machine in one.machines.values()}
            if len(logs) == 1 and b"last 9" in next(iter(logs)):
                break
        assert len(logs) == 1, f"seed {seed}: {[len(log) for log in logs]}"
        assert {b"last %d" % n for n in range(10)} <= set(logs.pop())


class IgnoresVotes(multi.Member):
    def binding(self, promises: list[words.Promised]) -> dict[int, words.Vote]:
        return {}


class StandsUnwritten(multi.Member):
    """Asks for promises under a ballot that it may forget, and so use twice."""

    def _stand(self, now: float) -> list[words.Effect]:
        effects = super()._stand(now)
        asks = [send for _, send in self._waiting if isinstance(send.message, words.Prepare)]
        self._waiting = [pair for pair in self._waiting if not isinstance(pair[1].message, words.Prepare)]
        return [*effects, *asks]


def no_promise(durable: words.Durable) -> words.Durable:
    return words.Durable(
        max((ballot for ballot, _ in durable.accepted.values()), default=paxos.ZERO), durable.accepted
    )


def test_a_leader_that_ignores_what_was_voted_is_caught() -> None:
    assert caught(lambda seed: parliament(seed, kind=IgnoresVotes).safe)


BROKEN_LOGS: dict[str, tuple[str, dict[str, Any]]] = {
    "forgets its promise": ("08", {"keep": no_promise}),
    "uses a ballot twice": ("09", {"member": StandsUnwritten}),
    "a quorum of half": ("10", {"quorum": 2}),
}


@pytest.mark.parametrize("mistake", BROKEN_LOGS)
def test_a_mistake_with_a_log_is_caught_by_its_story(mistake: str) -> None:
    """Rare in random weather, so each has a story that ends with two values in one slot where it is made."""
    number, broken = BROKEN_LOGS[mistake]
    (story,) = (Path(__file__).parent / "testdata" / "paxos").glob(f"{number}-*.txt")
    right, wrong = Table(), Table(**broken)
    scenario_file.replay(story.read_text(), right)
    scenario_file.replay(story.read_text(), wrong)
    assert right.safe
    assert not wrong.safe


# -- a register ------------------------------------------------------------------------------------------


def offices(seed: int, count: int = 3, **changes: Any) -> Offices:
    quorums = changes.pop("quorums", caspaxos.Quorums.of)
    one = Offices(seed, count, ROUGH, quorums=quorums)
    for name, value in changes.items():
        setattr(one, name, value)
    one.run(12)
    return one


@pytest.mark.parametrize("count", [3, 5])
def test_the_changes_of_a_register_are_one_line(count: int) -> None:
    told = [offices(seed, count) for seed in range(400 // count)]
    assert [n for n, one in enumerate(told) if not one.linear] == []
    assert sum(len(one.done) for one in told) > 5 * len(told), "too few changes were acknowledged"
    assert sum(one.crashes for one in told) > 100


class StartsFromNothing(caspaxos.Proposal[tuple[str, ...]]):
    def _accept(self, now: float) -> list[Any]:
        self._yes = {name: paxos.Promised(one.ballot, paxos.ZERO, None) for name, one in self._yes.items()}
        return super()._accept(now)


class StartsFromAny(caspaxos.Proposal[tuple[str, ...]]):
    """Goes on from a promise's state, and not from the newest's."""

    def _accept(self, now: float) -> list[Any]:
        if len(self._yes) >= self.quorums.prepare_needs:
            oldest = min((one for one in self._yes.values()), key=lambda one: one.accepted)  # type: ignore[union-attr]
            self._yes = dict.fromkeys(self._yes, oldest)
        return super()._accept(now)


def half(names: Any) -> caspaxos.Quorums:
    wrong = caspaxos.Quorums.of(names)
    object.__setattr__(wrong, "prepare_needs", len(names) // 2)
    object.__setattr__(wrong, "accept_needs", len(names) // 2)
    return wrong


BROKEN_OFFICES: dict[str, dict[str, Any]] = {
    "starts from nothing": {"proposal": StartsFromNothing},
    "starts from an old state": {"proposal": StartsFromAny},
    "shares its ballots": {"counter": lambda id: caspaxos.Counter("everybody")},
    "forgets its promise": {"forget": lambda cell: paxos.Cell(cell.accepted, cell.accepted, cell.value)},
    "loses everything": {"forget": lambda cell: paxos.Cell()},
    "a quorum of half": {"count": 4, "quorums": half},
}


@pytest.mark.parametrize("mistake", BROKEN_OFFICES)
def test_a_mistake_with_a_register_is_caught(mistake: str) -> None:
    assert caught(lambda seed: offices(seed, **BROKEN_OFFICES[mistake]).linear), mistake


def test_a_fourth_acceptor_joins_while_changes_go_on() -> None:
    """Some proposers have gone over to the next stage and some have not; a rescan lies between the stages."""
    for seed in range(150):
        one = Offices(seed, 3, ROUGH)
        first, second = caspaxos.growth(one.names, "a3")
        one.cells["a3"] = paxos.Cell()
        one.begin()
        for stage in (first, second):
            before = one.quorums
            one.run(4, steps=60)
            one.quorums = stage
            one.run(4, steps=60)
            assert before.prepare_needs + stage.accept_needs > len(one.cells)
        assert one.linear, f"seed {seed}"
