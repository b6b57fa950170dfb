"""4.5: the sentences of the three papers on Paxos, each beside what keeps it here.

Numbers are the papers' own: of Paxos Made Simple (PMS), Paxos Made Moderately Complex (PMMC), CASPaxos (CP).
"""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from atoll.algorithms import caspaxos, paxos
from atoll.algorithms.caspaxos import Changed, Counter, Proposal, Quorums, growth
from atoll.algorithms.multi_paxos import messages as words
from atoll.algorithms.multi_paxos.member import Member
from atoll.algorithms.paxos import (
    ZERO,
    Accept,
    Accepted,
    Acceptor,
    Ballot,
    Cell,
    Chosen,
    Elapsed,
    Learner,
    Overtaken,
    Prepare,
    Promised,
    Proposer,
    Received,
    Send,
    Write,
    Written,
)
from atoll.errors import ConfigurationError

NAMES = ["a", "b", "c"]
ONE, TWO, THREE = Ballot(1, "p"), Ballot(2, "q"), Ballot(3, "p")


def heard(machine: object, sender: str, message: object, now: float = 0.0) -> list[object]:
    """What a machine does about a letter, its writes done at once."""
    effects = machine.step(Received(sender, message), now)  # type: ignore[attr-defined]
    for write in [one for one in effects if isinstance(one, Write)]:
        effects = [*effects, *machine.step(Written(write.seq), now)]  # type: ignore[attr-defined]
    return [one for one in effects if not isinstance(one, Write)]


# -- PMS ---------------------------------------------------------------------------------------------------


def test_pms_2_1_any_two_majorities_share_an_acceptor() -> None:
    for count in range(1, 8):
        groups = list(combinations(range(count), paxos.majority(count)))
        assert all(set(one) & set(other) for one in groups for other in groups)


def test_pms_p1_an_acceptor_accepts_the_first_proposal_that_it_receives() -> None:
    assert heard(Acceptor(), "p", Accept(ONE, "tea")) == [Send("p", Accepted(ONE, "tea"))]


def test_pms_p1a_it_accepts_iff_it_has_not_answered_a_prepare_of_a_greater_number() -> None:
    acceptor: Acceptor[str] = Acceptor()
    heard(acceptor, "q", Prepare(TWO))
    assert heard(acceptor, "p", Accept(ONE, "tea")) == [Send("p", Overtaken(ONE, TWO))]
    assert heard(acceptor, "q", Accept(TWO, "coffee")) == [Send("q", Accepted(TWO, "coffee"))]
    assert heard(acceptor, "p", Accept(THREE, "tea")) == [Send("p", Accepted(THREE, "tea"))]


def test_pms_2_2_a_prepare_is_answered_with_the_highest_proposal_accepted() -> None:
    acceptor: Acceptor[str] = Acceptor()
    heard(acceptor, "p", Accept(ONE, "tea"))
    heard(acceptor, "q", Accept(TWO, "coffee"))
    assert heard(acceptor, "p", Prepare(THREE)) == [Send("p", Promised(THREE, TWO, "coffee"))]


def test_pms_p2c_the_value_is_that_of_the_highest_numbered_proposal_among_the_answers() -> None:
    proposer = Proposer("p", NAMES, "mine", dice=random.Random(1))
    proposer.step(Elapsed(), 0.0)
    mine = proposer.ballot
    assert heard(proposer, "a", Promised(mine, Ballot(0, "x"), "old")) == []
    told = heard(proposer, "b", Promised(mine, Ballot(0, "y"), "newer"))
    assert told == [Send(name, Accept(mine, "newer")) for name in NAMES]


def test_pms_p2c_or_any_value_if_the_answers_report_none() -> None:
    proposer = Proposer("p", NAMES, "mine", dice=random.Random(1))
    proposer.step(Elapsed(), 0.0)
    heard(proposer, "a", Promised(proposer.ballot, ZERO, None))
    told = heard(proposer, "c", Promised(proposer.ballot, ZERO, None))
    assert told == [Send(name, Accept(proposer.ballot, "mine")) for name in NAMES]


def test_pms_2_3_a_learner_finds_out_when_a_majority_has_accepted() -> None:
    learner: Learner[str] = Learner(NAMES)
    assert heard(learner, "a", Accepted(ONE, "tea")) == []
    assert heard(learner, "a", Accepted(ONE, "tea")) == [], "one acceptor, heard twice"
    assert heard(learner, "b", Accepted(TWO, "tea")) == [], "another ballot"
    assert heard(learner, "b", Accepted(ONE, "tea")) == [Chosen("tea")]


def test_pms_2_4_a_proposer_that_hears_of_a_higher_number_begins_again_above_it() -> None:
    proposer = Proposer("p", NAMES, "mine", dice=random.Random(1))
    proposer.step(Elapsed(), 0.0)
    heard(proposer, "a", Overtaken(proposer.ballot, Ballot(7, "q")))
    assert proposer.deadline is not None
    proposer.step(Elapsed(), proposer.deadline)
    assert proposer.ballot == Ballot(8, "p")


def test_pms_2_5_an_acceptor_records_its_response_before_sending_it() -> None:
    acceptor: Acceptor[str] = Acceptor()
    (write,) = acceptor.step(Received("p", Prepare(ONE)), 0.0)
    assert isinstance(write, Write) and write.cell.promised == ONE
    assert acceptor.step(Received("p", Prepare(ONE)), 0.0) == [], "asked again before the disk has answered"
    assert acceptor.step(Written(write.seq), 0.0) == [Send("p", Promised(ONE, ZERO, None))] * 2
    reborn: Acceptor[str] = Acceptor(cell=write.cell)
    assert heard(reborn, "x", Accept(Ballot(0, "x"), "x")) == [Send("x", Overtaken(Ballot(0, "x"), ONE))]


def test_pms_2_5_different_proposers_choose_their_numbers_from_disjoint_sets() -> None:
    assert Ballot(1, "p") != Ballot(1, "q") and Ballot(1, "q") < Ballot(2, "p")


def member(name: str = "a", **settings: int) -> Member:
    return Member(
        name, NAMES, dice=random.Random(1), now=0.0, settings=words.Settings(**settings) if settings else None
    )


def told(one: Member, sender: str, message: words.Message) -> list[words.Effect]:
    """As `heard`, for a member of a log."""
    return done(one, one.step(words.Received(sender, message), 1.0))


def done(one: Member, effects: list[words.Effect]) -> list[words.Effect]:
    for write in [effect for effect in effects if isinstance(effect, words.Write)]:
        effects = [*effects, *one.step(Written(write.seq), 1.0)]
    return [effect for effect in effects if not isinstance(effect, words.Write)]


def leader(*promises: words.Promised, **settings: int) -> tuple[Member, list[words.Effect]]:
    one = member(**settings)
    done(one, one.step(Elapsed(), one.deadline))
    assert one.ballot is not None
    effects: list[words.Effect] = []
    for name, promise in zip(NAMES, promises, strict=False):
        effects = told(one, name, words.Promised(one.ballot, promise.accepted))
    assert one.leading
    return one, effects


NOTHING = words.Promised(ZERO, ())


def test_pms_3_a_new_leader_executes_phase_1_for_all_instances_with_one_message() -> None:
    one = member()
    effects = done(one, one.step(Elapsed(), one.deadline))
    assert effects == [words.Send(name, words.Prepare(Ballot(1, "a"), 1)) for name in NAMES]


def test_pms_3_gaps_are_filled_with_a_no_op() -> None:
    _, effects = leader(NOTHING, words.Promised(ZERO, ((3, ONE, b"x"), (1, ONE, b"y"))))
    offered = {
        effect.message.slot: effect.message.value for effect in effects if isinstance(effect, words.Send)
    }  # type: ignore[union-attr]
    assert offered == {1: b"y", 2: words.NOOP, 3: b"x"}


def test_pms_3_a_leader_can_propose_at_most_a_window_ahead() -> None:
    one, _ = leader(NOTHING, NOTHING, window=2)
    placed = [
        effect.slot
        for n in range(4)
        for effect in one.step(words.Proposed(n, b"%d" % n), 1.0)
        if isinstance(effect, words.Placed)
    ]
    assert placed == [1, 2]
    assert one.ballot is not None
    told(one, "a", words.Accepted(one.ballot, 1))
    more = told(one, "b", words.Accepted(one.ballot, 1))
    assert [effect.slot for effect in more if isinstance(effect, words.Placed)] == [3]


# -- PMMC --------------------------------------------------------------------------------------------------


def test_pmmc_2_1_a_replica_performs_slots_in_order_and_each_once() -> None:
    one = member("c")
    assert told(one, "a", words.Decided(2, (b"two",))) == []
    assert told(one, "a", words.Decided(1, (b"one",))) == [words.Apply(1, b"one"), words.Apply(2, b"two")]
    assert told(one, "a", words.Decided(1, (b"one", b"two"))) == []


def test_pmmc_2_2_a1_an_acceptor_adopts_only_rising_ballots() -> None:
    one = member("c")
    told(one, "b", words.Prepare(Ballot(5, "b"), 1))
    assert told(one, "a", words.Prepare(Ballot(4, "a"), 1)) == [
        words.Send("a", Overtaken(Ballot(4, "a"), Ballot(5, "b")))
    ]
    assert one.promised == Ballot(5, "b")


def test_pmmc_2_2_a2_an_acceptor_accepts_only_under_its_current_ballot() -> None:
    one = member("c")
    told(one, "b", words.Prepare(Ballot(5, "b"), 1))
    told(one, "a", words.Accept(Ballot(4, "a"), 1, b"x"))
    assert 1 not in one.accepted


def test_pmmc_2_3_a_commander_decides_with_a_majority_and_tells_all_replicas() -> None:
    one, _ = leader(NOTHING, NOTHING)
    one.step(words.Proposed(1, b"x"), 1.0)
    assert one.ballot is not None
    assert told(one, "a", words.Accepted(one.ballot, 1)) == []
    assert told(one, "c", words.Accepted(one.ballot, 1)) == [
        words.Send("b", words.Decided(1, (b"x",))),
        words.Send("c", words.Decided(1, (b"x",))),
        words.Apply(1, b"x"),
    ]


def test_pmmc_2_4_a_scout_gathers_the_highest_vote_of_each_slot() -> None:
    _, effects = leader(
        words.Promised(ZERO, ((1, ONE, b"old"),)), words.Promised(ZERO, ((1, TWO, b"newer"),))
    )
    assert {effect.message.value for effect in effects if isinstance(effect, words.Send)} == {b"newer"}  # type: ignore[union-attr]


def test_pmmc_2_5_a_preempted_leader_turns_passive_and_says_who_leads() -> None:
    one, _ = leader(NOTHING, NOTHING)
    assert one.ballot is not None
    told(one, "b", Overtaken(one.ballot, Ballot(9, "b")))
    assert not one.leading
    told(one, "b", words.Prepare(Ballot(9, "b"), 1))
    assert one.step(words.Proposed(1, b"x"), 1.0) == [words.Refused(1, "b")]


def test_pmmc_3_a_passive_leader_waits_while_it_hears_the_active_one() -> None:
    one = member("c")
    due = one.deadline
    one.step(words.Received("a", words.Beat(Ballot(1, "a"), 0)), due - 0.01)
    assert one.deadline > due


def test_pmmc_4_2_who_missed_decisions_asks_for_them() -> None:
    one = member("c")
    assert told(one, "a", words.Beat(Ballot(1, "a"), 2)) == [words.Send("a", words.Ask(1))]


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="beat_s"):
        words.Settings(beat_s=1.0, patience_s=1.0)
    with pytest.raises(ConfigurationError, match="window"):
        words.Settings(window=0)


# -- CP ----------------------------------------------------------------------------------------------------


def proposal(change: caspaxos.Change[str], counter: Counter | None = None) -> Proposal[str]:
    return Proposal(counter or Counter("p"), Quorums.of(NAMES), change, dice=random.Random(1), now=0.0)


def test_cp_2_2_a_change_is_applied_to_the_value_of_the_highest_ballot_and_sent_to_be_accepted() -> None:
    one = proposal(lambda old: f"{old}!")
    one.step(Elapsed(), 0.0)
    heard(one, "a", Promised(one.ballot, Ballot(0, "x"), "old"))
    sent = heard(one, "b", Promised(one.ballot, Ballot(0, "y"), "new"))
    assert sent == [Send(name, Accept(one.ballot, "new!")) for name in NAMES]
    heard(one, "a", Accepted(one.ballot, "new!"))
    assert heard(one, "c", Accepted(one.ballot, "new!")) == [Changed("new!")]


def test_cp_2_2_an_unwritten_register_is_the_empty_value() -> None:
    seen: list[str | None] = []

    def init(old: str | None) -> str:
        seen.append(old)
        return "first"

    one = proposal(init)
    one.step(Elapsed(), 0.0)
    for name in "ab":
        heard(one, name, Promised(one.ballot, ZERO, None))
    assert seen == [None]


def test_cp_2_2_a_conflict_fast_forwards_the_counter() -> None:
    counter = Counter("p")
    one = proposal(lambda old: "x", counter)
    one.step(Elapsed(), 0.0)
    for name in "ab":
        heard(one, name, Overtaken(one.ballot, Ballot(41, "q")))
    assert one.deadline is not None
    one.step(Elapsed(), one.deadline)
    assert one.ballot == Ballot(42, "p")


def test_cp_2_2_an_acceptor_answers_a_conflict_if_it_saw_a_greater_ballot() -> None:
    cell: Cell[str] = Cell(TWO, ONE, "x")
    assert paxos.promise(cell, ONE) == (cell, Overtaken(ONE, TWO))
    assert paxos.accept(cell, ONE, "y") == (cell, Overtaken(ONE, TWO))


def test_cp_2_2_accepting_erases_nothing_but_the_older_value() -> None:
    cell, reply = paxos.accept(Cell(TWO, ONE, "x"), TWO, "y")
    assert (cell, reply) == (Cell(TWO, TWO, "y"), Accepted(TWO, "y"))


def test_cp_2_3_each_stage_of_growing_meets_the_quorums_of_the_stage_before() -> None:
    old = Quorums.of(NAMES)
    first, second = growth(NAMES, "d")
    assert len(first.accept) == 4 and first.accept_needs == 3 and first.prepare == tuple(NAMES)
    assert len(second.prepare) == 4 and second.prepare_needs == 3
    stages = [old, first, second]
    for before, after in pairwise(stages):
        for asking, writing in ((before, after), (after, before), (after, after)):
            for asked in combinations(asking.prepare, asking.prepare_needs):
                for wrote in combinations(writing.accept, writing.accept_needs):
                    assert set(asked) & set(wrote), (asking, writing)


def test_cp_what_was_sent_and_not_agreed_on_stays_in_doubt_until_everybody_has_refused_it() -> None:
    one = proposal(lambda old: "x")
    one.step(Elapsed(), 0.0)
    for name in "ab":
        heard(one, name, Promised(one.ballot, ZERO, None))
    ballot = one.ballot
    for name in "ab":
        heard(one, name, Overtaken(ballot, TWO))
    assert one.in_doubt() == ["x"], "c may have it"
    heard(one, "c", Overtaken(ballot, TWO))
    assert one.in_doubt() == []
