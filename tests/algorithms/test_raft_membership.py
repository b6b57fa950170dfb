"""4.1: members come and go under load without two majorities, and a snapshot knows who counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from raft_cluster import Cluster

from atoll.algorithms.raft.events import (
    Accepted,
    ChangeAsked,
    Command,
    Declined,
    Proposed,
    Refused,
    Role,
    TransferAsked,
)
from atoll.algorithms.raft.membership import begun, ended, everybody, may_vote, pack, tidy, unpack
from atoll.algorithms.raft.messages import Membership


def members(voters: str, learners: str = "", outgoing: str = "") -> Membership:
    return Membership(tuple(voters), tuple(learners), tuple(outgoing))


class Asked:
    """A quiet cluster of which changes are asked."""

    def __init__(self, names: str) -> None:
        self.cluster = Cluster(list(names))
        self.cluster.elect(names[0])
        self.cluster.elapse(0.3)
        self.id = 0

    def change(self, voters: str, learners: str = "") -> Accepted | Refused:
        self.id += 1
        leader = self.cluster.leader()
        effects = self.cluster.step(leader, ChangeAsked(self.id, members(voters, learners)))
        (answer,) = [e for e in effects if isinstance(e, Accepted | Refused)]
        return answer

    def changed(self, voters: str, learners: str = "") -> None:
        assert isinstance(self.change(voters, learners), Accepted)
        self.cluster.elapse(1)
        assert self.now() == (voters, learners)

    def now(self) -> tuple[str, str]:
        raft = self.cluster.nodes[self.cluster.leader()].raft
        assert not raft.membership.outgoing
        return "".join(raft.membership.voters), "".join(raft.membership.learners)

    def write(self, data: bytes) -> None:
        self.id += 1
        self.cluster.step(self.cluster.leader(), Proposed(self.id, (Command(data),)))
        self.cluster.elapse(0.2)


# -- the arithmetic ------------------------------------------------------------------------------------


def test_a_change_of_voters_goes_through_a_joint_list() -> None:
    joint = begun(members("abc", "d"), members("bcd"))
    assert joint == members("bcd", "", "abc")
    assert ended(joint) == members("bcd")


def test_a_change_of_learners_alone_takes_one_step() -> None:
    assert begun(members("abc"), members("cba", "d")) == members("abc", "d")


def test_who_is_a_voter_is_no_learner_and_nobody_stands_twice() -> None:
    assert tidy(members("aab", "bcc", "x")) == members("ab", "c")


def test_places_of_those_who_left_go_with_them() -> None:
    now = Membership(("a", "b"), (), (), {"a": "1", "b": "2"})
    joint = begun(now, Membership(("a", "c"), (), (), {"a": "1", "c": "3"}))
    assert joint.places == {"a": "1", "b": "2", "c": "3"}
    assert ended(joint).places == {"a": "1", "c": "3"}


def test_all_who_count_or_learn_are_sent_the_log() -> None:
    joint = members("ab", "c", "ad")
    assert everybody(joint) == set("abcd")
    assert [m for m in "abcd" if may_vote(joint, m)] == list("abd")
    assert unpack(pack(joint)) == joint


# -- in a cluster --------------------------------------------------------------------------------------


def test_a_cluster_grows_from_one_to_five_and_shrinks_to_one() -> None:
    asked = Asked("a")
    for name in "bcde":
        voters, _ = asked.now()
        asked.cluster.add(name)
        asked.changed(voters, name)
        asked.changed(voters + name)
        asked.write(b"with " + name.encode())
    for left in ("bcde", "cde", "de", "e"):
        asked.changed(left)
        asked.write(b"without")
    assert asked.cluster.leader() == "e"
    assert len(asked.cluster.commands("e")) == 8


def test_all_voters_may_be_replaced_at_once() -> None:
    asked = Asked("abc")
    for name in "def":
        asked.cluster.add(name)
    asked.changed("abc", "def")
    asked.write(b"before")
    asked.changed("def")
    asked.write(b"after")
    assert asked.cluster.leader() in "def"
    assert all(asked.cluster.commands(name) == [b"before", b"after"] for name in "def")


def test_a_leader_that_becomes_a_learner_hands_over_and_goes_on_learning() -> None:
    asked = Asked("abc")
    asked.changed("bc", "a")
    asked.write(b"x")
    assert asked.cluster.leader() in "bc"
    assert asked.cluster.commands("a") == [b"x"]


def test_a_change_goes_on_when_its_leader_falls_in_the_middle() -> None:
    asked = Asked("abc")
    asked.cluster.add("d")
    asked.changed("abc", "d")
    asked.change("bcd")
    asked.cluster.deliver(next(one for one in asked.cluster.letters if one.to == "b"))
    asked.cluster.deliver(next(one for one in asked.cluster.letters if one.to == "d"))
    asked.cluster.crash("a")
    asked.cluster.letters.clear()
    asked.cluster.elapse(5)
    assert asked.now() == ("bcd", "")


def test_a_change_that_reached_nobody_is_undone_by_the_next_leader() -> None:
    asked = Asked("abc")
    asked.change("ab")
    asked.cluster.letters.clear()
    asked.cluster.crash("a")
    asked.cluster.elapse(5)
    assert asked.now() == ("abc", "")
    asked.cluster.restart("a")
    asked.cluster.elapse(2)
    assert asked.cluster.nodes["a"].raft.membership == members("abc")


def test_one_that_was_restored_from_a_snapshot_knows_who_counts() -> None:
    asked = Asked("abc")
    asked.cluster.crash("c")
    asked.cluster.add("d")
    asked.changed("abc", "d")
    asked.changed("abcd")
    asked.write(b"x")
    asked.cluster.snapshot("a")
    asked.cluster.restart("c")
    asked.cluster.elapse(1)
    c = asked.cluster.nodes["c"]
    assert c.raft.membership == members("abcd")
    assert c.log.first > 1
    asked.cluster.restart("c")
    assert c.raft.membership == members("abcd")


def test_the_list_for_a_snapshot_is_the_one_of_its_index_not_the_newest() -> None:
    asked = Asked("abc")
    raft = asked.cluster.nodes["a"].raft
    before = raft.commit
    asked.changed("ab")
    assert raft.membership_at(before) == members("abc")
    assert raft.membership_at(before + 1) == members("ab", "", "abc")
    assert raft.membership_at(before + 2) == members("ab")


@pytest.mark.parametrize(
    ("voters", "learners", "why"),
    [
        ("", "", Declined.WOULD_LOSE_QUORUM),
        ("", "abc", Declined.WOULD_LOSE_QUORUM),
        ("abcd", "", Declined.NOT_CAUGHT_UP),
        ("abce", "", Declined.NOT_CAUGHT_UP),
    ],
)
def test_what_would_be_harmful_is_refused(voters: str, learners: str, why: Declined) -> None:
    asked = Asked("abc")
    asked.cluster.add("d")
    answer = asked.change(voters, learners)
    assert isinstance(answer, Refused) and answer.reason is why
    asked.write(b"x")
    assert asked.now() == ("abc", "")


def test_a_second_change_waits_for_the_first() -> None:
    asked = Asked("abc")
    asked.change("ab")
    answer = asked.change("abc")
    assert isinstance(answer, Refused) and answer.reason is Declined.CHANGING
    asked.cluster.elapse(1)
    assert asked.now() == ("ab", "")


def test_a_member_that_is_silent_can_be_removed_but_not_be_needed() -> None:
    asked = Asked("abc")
    asked.cluster.crash("c")
    asked.cluster.elapse(2)
    answer = asked.change("ac")
    assert isinstance(answer, Refused) and answer.reason is Declined.WOULD_LOSE_QUORUM
    asked.changed("ab")


def test_a_leader_of_this_moment_counts_on_nobody_whom_it_has_not_heard() -> None:
    """Else a change to members of whom most are gone would be begun, and could never end."""
    asked = Asked("abc")
    asked.cluster.crash("c")
    asked.cluster.elapse(2)
    asked.cluster.step("a", TransferAsked(98, "b"))
    asked.cluster.settle()
    assert asked.cluster.nodes["b"].raft.role is Role.LEADER
    answer = asked.change("bc")
    assert isinstance(answer, Refused) and answer.reason is Declined.WOULD_LOSE_QUORUM
    asked.changed("ab")


def test_a_learner_that_lags_is_no_voter_yet() -> None:
    asked = Asked("abc")
    asked.cluster.add("d")
    asked.changed("abc", "d")
    asked.cluster.crash("d")
    for n in range(5):
        asked.write(b"%d" % n)
    answer = asked.change("abcd")
    assert isinstance(answer, Refused) and answer.reason is Declined.NOT_CAUGHT_UP
    asked.cluster.restart("d")
    asked.cluster.elapse(1)
    asked.changed("abcd")


def test_the_office_is_not_handed_to_a_learner_or_a_stranger() -> None:
    asked = Asked("abc")
    asked.cluster.add("d")
    asked.changed("abc", "d")
    for target in "dx":
        (answer,) = [
            e for e in asked.cluster.step("a", TransferAsked(99, target)) if isinstance(e, Refused | Accepted)
        ]
        assert isinstance(answer, Refused) and answer.reason is Declined.UNKNOWN_MEMBER


def test_one_that_was_removed_while_away_learns_of_it_and_is_quiet() -> None:
    asked = Asked("abc")
    asked.cluster.crash("c")
    asked.changed("ab")
    term = asked.cluster.nodes["a"].raft.term
    asked.cluster.restart("c")
    asked.cluster.elapse(5)
    c = asked.cluster.nodes["c"].raft
    assert c.membership == members("ab")
    assert c.role is Role.FOLLOWER
    assert c.deadline == float("inf")
    assert asked.cluster.nodes["a"].raft.term == term
