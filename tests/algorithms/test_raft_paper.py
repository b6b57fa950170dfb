"""4.1: the paper's sentences, one after another, asked of the machine.

Each test is named after what the paper (In Search of an Understandable Consensus Algorithm: figures 2, 3, 13
and section 5) or the thesis (Consensus: Bridging Theory and Practice) demands, in our words.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from raft_cluster import Cluster

from atoll.algorithms.raft.events import (
    Apply,
    Became,
    Command,
    Compacted,
    Effect,
    Elapsed,
    Event,
    Proposed,
    ReadAsked,
    Received,
    Refused,
    Role,
    Send,
    StoreChunk,
    Write,
    WriteFailed,
    Written,
)
from atoll.algorithms.raft.machine import Raft
from atoll.algorithms.raft.memory_log import MemoryLog
from atoll.algorithms.raft.messages import (
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Entry,
    Kind,
    Membership,
    Message,
    Snapshot,
    VoteReply,
    VoteRequest,
)
from atoll.algorithms.raft.settings import Settings
from atoll.errors import ConfigurationError

ABC = Membership(("a", "b", "c"))


def entries(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(term, index, Kind.COMMAND, b"%d" % index) for index, term in enumerate(terms, first))


class One:
    """A member `a` of three, alone on the bench; its disk writes at once."""

    def __init__(self, *terms: int, term: int | None = None, vote: str = "", applied: int = 0) -> None:
        self.log = MemoryLog(entries(*terms))
        self.raft = Raft(
            "a",
            self.log,
            term=max(terms, default=0) if term is None else term,
            vote=vote,
            bootstrap=ABC,
            settings=Settings(),
            dice=random.Random(1),
            now=0.0,
            applied=applied,
        )
        self.now = 0.0
        self.effects: list[Effect] = []

    def step(self, event: Event) -> list[Effect]:
        self.effects = []
        waiting = [event]
        while waiting:
            for effect in self.raft.step(waiting.pop(0), self.now):
                self.effects.append(effect)
                if isinstance(effect, Write):
                    self.log.write(effect.entries)
                    waiting.append(Written(effect.seq))
        return self.effects

    def hear(self, sender: str, message: Message) -> list[Message]:
        """What is sent when `message` comes."""
        return [e.message for e in self.step(Received(sender, message)) if isinstance(e, Send)]

    def stand(self) -> None:
        """Candidate in the next term."""
        self.now = self.raft.deadline
        self.step(Elapsed())
        self.hear("b", VoteReply(self.raft.term, self.raft.term + 1, True, True))
        assert self.raft.role is Role.CANDIDATE

    def lead(self) -> None:
        self.stand()
        self.hear("b", VoteReply(self.raft.term, self.raft.term, True))
        assert self.raft.role is Role.LEADER

    @property
    def terms(self) -> list[int]:
        view = self.raft._state.log
        return [view.term(index) or 0 for index in range(view.first, view.last + 1)]


# -- figure 2: AppendEntries, receiver -----------------------------------------------------------------


def test_append_1_an_earlier_term_is_refused_and_told_the_time() -> None:
    one = One(1, term=5)
    (reply,) = one.hear("b", Append(4, 1, 1, 1, 0, entries(4, first=2)))
    assert isinstance(reply, AppendReply) and (reply.term, reply.ok) == (5, False)
    assert one.terms == [1]


@pytest.mark.parametrize(("prev", "prev_term"), [(3, 1), (2, 2), (9, 1)])
def test_append_2_without_the_entry_before_it_nothing_is_taken(prev: int, prev_term: int) -> None:
    one = One(1, 1)
    (reply,) = one.hear("b", Append(2, 1, prev, prev_term, 0, entries(2, first=prev + 1)))
    assert isinstance(reply, AppendReply) and not reply.ok
    assert one.terms == [1, 1]


def test_append_3_an_entry_that_conflicts_goes_and_all_that_follow_it() -> None:
    one = One(1, 1, 2, 2)
    one.hear("b", Append(3, 1, 1, 1, 0, entries(1, 3, first=2)))
    assert one.terms == [1, 1, 3]


def test_append_4_what_is_in_the_log_already_is_not_written_again() -> None:
    one = One(1, 1, 1)
    one.hear("b", Append(1, 1, 0, 0, 0, entries(1, 1)))
    assert one.terms == [1, 1, 1]
    assert not [e for e in one.effects if isinstance(e, Write) and e.entries]
    one.hear("b", Append(1, 1, 1, 1, 0, entries(1, 1, 1, first=2)))
    assert [e.entries for e in one.effects if isinstance(e, Write)] == [entries(1, first=4)]


def test_append_5_the_commit_index_follows_the_leaders_as_far_as_the_logs_agree() -> None:
    one = One(1, 1, 1)
    one.hear("b", Append(2, 1, 1, 1, 9))
    assert one.raft.commit == 1
    one.hear("b", Append(2, 1, 1, 1, 9, entries(2, first=2)))
    assert one.raft.commit == 2
    one.hear("b", Append(2, 1, 1, 1, 1))
    assert one.raft.commit == 2, "it never goes back"


# -- figure 2: RequestVote, receiver -------------------------------------------------------------------


def test_vote_1_an_earlier_term_gets_no_vote() -> None:
    (reply,) = One(term=5).hear("b", VoteRequest(4, 9, 9))
    assert isinstance(reply, VoteReply) and (reply.granted, reply.term) == (False, 5)


@pytest.mark.parametrize(("vote", "granted"), [("", True), ("b", True), ("c", False)])
def test_vote_2_one_vote_a_term(vote: str, granted: bool) -> None:
    (reply,) = One(term=5, vote=vote).hear("b", VoteRequest(5, 0, 0))
    assert isinstance(reply, VoteReply) and reply.granted is granted


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(2, 2, True), (3, 2, True), (1, 2, False), (1, 3, True), (9, 1, False)],
)
def test_vote_2_only_to_a_log_that_is_no_older(last_index: int, last_term: int, granted: bool) -> None:
    (reply,) = One(1, 2).hear("b", VoteRequest(3, last_index, last_term))
    assert isinstance(reply, VoteReply) and reply.granted is granted


# -- figure 2: rules for all ---------------------------------------------------------------------------


def test_all_1_what_is_committed_is_applied_in_order_once() -> None:
    one = One(1, 1, 1)
    applied: list[int] = []
    for commit in (2, 3, 3, 1):
        one.hear("b", Append(1, 1, 3, 1, commit))
        applied += [entry.index for e in one.effects if isinstance(e, Apply) for entry in e.entries]
    assert applied == [1, 2, 3]


@pytest.mark.parametrize(
    "message",
    [Append(9, 1, 0, 0, 0), AppendReply(9, 1, True, 0), VoteReply(9, 3, False), VoteRequest(9, 0, 0)],
)
def test_all_2_a_later_term_makes_a_follower_of_anybody(message: Message) -> None:
    one = One()
    one.stand()
    one.hear("c", message)
    assert (one.raft.role, one.raft.term) == (Role.FOLLOWER, 9)


def test_all_2_only_a_question_before_an_election_moves_nobody() -> None:
    one = One()
    one.hear("c", VoteRequest(9, 0, 0, True))
    assert one.raft.term == 0


# -- figure 2: followers and candidates ----------------------------------------------------------------


def test_followers_a_heartbeat_or_a_given_vote_renews_patience() -> None:
    one = One()
    for message in (Append(1, 1, 0, 0, 0), VoteRequest(2, 0, 0, False, True)):
        before = one.raft.deadline
        one.now += 0.4
        one.hear("b", message)
        assert one.raft.deadline >= one.now + Settings().election_s > before


def test_followers_a_refused_vote_renews_no_patience() -> None:
    one = One(1, 1)
    before = one.raft.deadline
    one.now = 0.3
    one.hear("b", VoteRequest(5, 1, 1))
    assert one.raft.deadline == before


def test_followers_patience_is_drawn_from_one_to_two_timeouts() -> None:
    drawn = set()
    for seed in range(50):
        raft = Raft("a", MemoryLog(), bootstrap=ABC, settings=Settings(), dice=random.Random(seed), now=0.0)
        drawn.add(raft.deadline)
    assert 0.5 <= min(drawn) < 0.55 and 0.95 < max(drawn) <= 1.0


def test_candidates_1_the_term_rises_by_one_and_the_vote_is_its_own() -> None:
    one = One(term=4)
    one.stand()
    assert (one.raft.term, one.raft.vote) == (5, "a")
    asked = [e for e in one.effects if isinstance(e, Send) and isinstance(e.message, VoteRequest)]
    assert [e.to for e in asked] == ["b", "c"]


def test_candidates_2_a_majority_makes_a_leader_and_a_doubled_yes_does_not() -> None:
    log, five = MemoryLog(), Membership(("a", "b", "c", "d", "e"))
    one = One()
    one.raft = Raft("a", log, bootstrap=five, settings=Settings(), dice=random.Random(1), now=0.0)
    one.log = log
    one.now = one.raft.deadline
    one.step(Elapsed())
    for voter in "bc":
        one.hear(voter, VoteReply(0, 1, True, True))
    for voter in "bbb":
        one.hear(voter, VoteReply(1, 1, True))
        assert one.raft.role is Role.CANDIDATE
    one.hear("d", VoteReply(1, 1, True))
    assert one.raft.role is Role.LEADER


def test_candidates_3_a_leader_of_this_term_is_followed() -> None:
    one = One()
    one.stand()
    one.hear("b", Append(1, 1, 0, 0, 0))
    assert (one.raft.role, one.raft.leader) == (Role.FOLLOWER, "b")


def test_candidates_4_an_election_without_an_end_is_begun_again() -> None:
    one = One()
    one.stand()
    one.now = one.raft.deadline
    one.step(Elapsed())
    assert one.raft.role is Role.PRE_CANDIDATE
    assert one.raft.term == 1, "it asks before it raises the term again"


# -- figure 2: leaders ---------------------------------------------------------------------------------


def test_leaders_1_all_hear_of_it_at_once_and_then_regularly() -> None:
    one = One()
    one.lead()
    assert {e.to for e in one.effects if isinstance(e, Send) and isinstance(e.message, Append)} == {"b", "c"}
    for _ in range(3):
        one.now = one.raft.deadline
        sent = [e for e in one.step(Elapsed()) if isinstance(e, Send)]
        assert {e.to for e in sent} == {"b", "c"}
        for name in "bc":
            one.hear(name, AppendReply(1, sent[0].message.round, True, 1))  # type: ignore[union-attr]


def test_leaders_2_a_command_is_appended_and_answered_when_it_is_applied() -> None:
    one = One()
    one.lead()
    one.step(Proposed(1, (Command(b"x"),)))
    assert not [e for e in one.effects if isinstance(e, Apply)]
    one.hear("b", AppendReply(1, 1, True, 2))
    (applied,) = [e for e in one.effects if isinstance(e, Apply)]
    assert [entry.data for entry in applied.entries] == [b"", b"x"]


def test_leaders_3_a_refusal_is_tried_again_further_back_until_the_logs_meet() -> None:
    one = One(1, 1, 2, 2, 2)
    one.lead()
    (again,) = one.hear("c", AppendReply(3, 1, False, 5, 2, 1))
    assert isinstance(again, Append)
    assert (again.prev_index, again.prev_term) == (2, 1)
    assert [entry.index for entry in again.entries] == [3, 4, 5, 6]


def test_leaders_4_only_entries_of_its_own_term_are_committed_by_counting() -> None:
    one = One(1, 1, 2)
    one.lead()
    one.hear("b", AppendReply(3, 1, True, 3))
    one.hear("c", AppendReply(3, 1, True, 3))
    assert one.raft.commit == 0
    one.hear("b", AppendReply(3, 1, True, 4))
    assert one.raft.commit == 4


def test_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    one = One(1, 1)
    one.lead()
    before = one.terms
    one.hear("b", AppendReply(2, 1, False, 3, 0, 0))
    one.hear("c", AppendReply(2, 1, False, 2, 0, 0))
    assert one.terms == before


# -- figure 13: InstallSnapshot ------------------------------------------------------------------------


def chunk(term: int, offset: int, data: bytes, done: bool, index: int = 5) -> Chunk:
    return Chunk(term, 1, Snapshot(index, 1, ABC, 4), offset, data, done)


def test_snapshot_1_an_earlier_term_is_told_the_time() -> None:
    one = One(term=5)
    (reply,) = one.hear("b", chunk(4, 0, b"ab", False))
    assert isinstance(reply, ChunkReply) and reply.term == 5
    assert not [e for e in one.effects if isinstance(e, StoreChunk)]


def test_snapshot_2_to_4_pieces_are_stored_in_order_and_more_is_waited_for() -> None:
    one = One(1)
    one.hear("b", chunk(1, 0, b"ab", False))
    assert [(e.offset, e.done) for e in one.effects if isinstance(e, StoreChunk)] == [(0, False)]


@pytest.mark.parametrize("length", [5, 6])
def test_snapshot_6_a_log_that_has_its_last_entry_keeps_what_follows(length: int) -> None:
    one = One(*[1] * length)
    (reply,) = one.hear("b", chunk(1, 0, b"abcd", True))
    assert isinstance(reply, AppendReply) and reply.match == 5
    assert one.raft.commit == 5
    assert len(one.terms) == length
    assert not [e for e in one.effects if isinstance(e, StoreChunk)]


# -- figure 3: what is always true ---------------------------------------------------------------------


def test_figure_3_a_leader_appends_only_and_a_majority_keeps_what_is_committed() -> None:
    cluster = Cluster(["a", "b", "c", "d", "e"])
    cluster.elect("a")
    for n in range(5):
        cluster.step("a", Proposed(n, (Command(b"%d" % n),)))
    cluster.settle()
    committed = list(cluster.committed)
    cluster.crash("a")
    cluster.elapse(3)
    leader = cluster.leader()
    assert leader not in ("", "a")
    assert cluster.nodes[leader].applied[: len(committed)] == committed


def test_5_4_3_the_same_entry_at_an_index_means_the_same_log_before_it() -> None:
    cluster = Cluster(["a", "b", "c"])
    cluster.elect("a")
    cluster.crash("c")
    cluster.step("a", Proposed(1, (Command(b"x"), Command(b"y"))))
    cluster.settle()
    cluster.restart("c")
    cluster.elapse(0.3)
    logs = [[node.log.term(i) for i in range(1, node.log.last + 1)] for node in cluster.nodes.values()]
    assert logs[0] == logs[1] == logs[2]


def test_5_6_a_cluster_whose_heartbeats_are_too_slow_for_its_elections_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most half"):
        Settings(election_s=0.1, heartbeat_s=0.08)


# -- what the runtime must be able to rely on ----------------------------------------------------------


def test_after_a_failed_write_nothing_is_ever_said_again() -> None:
    one = One()
    one.lead()
    effects = one.step(WriteFailed())
    assert [type(e) for e in effects] == [Became]
    for event in (Proposed(1, (Command(b"x"),)), Received("b", VoteRequest(9, 9, 9)), Elapsed()):
        assert one.step(event) == []
    assert one.raft.deadline == float("inf")


def test_a_state_that_is_ahead_of_the_log_is_refused_at_the_start() -> None:
    with pytest.raises(AssertionError, match="the log ends at 1"):
        One(1, applied=2)


def test_a_term_that_is_behind_the_log_is_refused_at_the_start() -> None:
    with pytest.raises(AssertionError, match="the log has term 3, but term 2 is remembered"):
        One(1, 3, term=2)


def test_a_snapshot_of_what_was_not_applied_is_refused() -> None:
    one = One(1, 1)
    with pytest.raises(AssertionError, match="only 0 is applied"):
        one.step(Compacted(Snapshot(2, 1, ABC)))


def test_a_read_that_a_leader_leaves_unanswered_is_refused_within_an_election_timeout() -> None:
    cluster = Cluster(["a", "b", "c"])
    cluster.elect("a")
    cluster.elapse(0.1)
    asked_at = cluster.now
    cluster.step("b", ReadAsked(7))
    for _ in range(5):  # the leader is heard, but its answer is not
        cluster.letters.clear()
        cluster.now = min(cluster.nodes["b"].raft.deadline, cluster.now + 0.2)
        cluster.step("b", Received("a", Append(1, 9, 1, 1, 1)))
        cluster.step("b", Elapsed())
    refused = [e for e in cluster.heard["b"] if isinstance(e, Refused)]
    assert [e.id for e in refused] == [7]
    assert cluster.now >= asked_at + 0.5
    assert cluster.nodes["b"].raft.role is Role.FOLLOWER


def test_time_that_goes_back_is_not_believed() -> None:
    one = One()
    one.now = 100.0
    one.hear("b", Append(1, 1, 0, 0, 0))
    deadline = one.raft.deadline
    one.now = 1.0
    one.hear("b", Append(1, 1, 0, 0, 0))
    assert one.raft.deadline >= min(deadline, 100.5)


def test_a_write_that_was_never_asked_for_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="only 0 were asked for"):
        One().raft.step(Written(7), 0.0)


def test_the_machine_keeps_only_what_is_not_yet_durable() -> None:
    cluster = Cluster(["a", "b", "c"])
    cluster.elect("a")
    for n in range(200):
        cluster.step("a", Proposed(n, (Command(b"x" * 100),)))
        cluster.settle()
    for node in cluster.nodes.values():
        assert node.raft._state.log._tail == []


def test_an_append_without_sense_gets_no_answer() -> None:
    one = One(1)
    assert one.hear("b", Append(1, 1, 1, 1, 0, entries(1, first=5))) == []
    assert one.terms == [1]
