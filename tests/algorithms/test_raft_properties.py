"""4.1: what must hold whatever happens: majorities, the log, and whole clusters under random schedules."""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from raft_cluster import Cluster
from raft_schedule import SMALL, Schedule

from atoll.algorithms.raft import election, following, quorum, replication
from atoll.algorithms.raft.events import Applied, Command, Proposed, Role
from atoll.algorithms.raft.log import Log
from atoll.algorithms.raft.membership import Members, begun, ended, pack, tidy
from atoll.algorithms.raft.memory_log import MemoryLog
from atoll.algorithms.raft.messages import Entry, Kind, Membership
from atoll.algorithms.raft.settings import Settings
from atoll.algorithms.raft.state import State

SEEDS = 3000 if os.environ.get("ATOLL_LONG") else 80
NAMES = "abcdefg"
some = st.frozensets(st.sampled_from(NAMES))
values = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9))


# -- majorities ----------------------------------------------------------------------------------------


def majorities(voters: frozenset[str]) -> list[frozenset[str]]:
    return [
        frozenset(chosen)
        for size in range(len(voters) // 2 + 1, len(voters) + 1)
        for chosen in itertools.combinations(sorted(voters), size)
    ]


@given(some, values)
def test_what_a_majority_reached_is_what_some_majority_reached(
    voters: frozenset[str], known: dict[str, int]
) -> None:
    brute = max((min(known.get(v, 0) for v in m) for m in majorities(voters)), default=0)
    assert quorum.majority_reached(voters, known) == brute


@given(some, some, values)
def test_a_joint_majority_is_a_majority_of_both(
    new: frozenset[str], old: frozenset[str], known: dict[str, int]
) -> None:
    membership = Membership(tuple(new), outgoing=tuple(old))
    expected = quorum.majority_reached(new, known)
    if old:
        expected = min(expected, quorum.majority_reached(old, known))
    assert quorum.reached(membership, known) == expected


@given(some, some, some)
def test_an_election_is_won_by_some_majority_of_each(
    new: frozenset[str], old: frozenset[str], yes: frozenset[str]
) -> None:
    membership = Membership(tuple(new), outgoing=tuple(old))
    brute = any(m <= yes for m in majorities(new)) and (not old or any(m <= yes for m in majorities(old)))
    assert quorum.won(membership, yes) == brute


@given(some, some, some, some)
def test_nobody_wins_who_has_lost(
    new: frozenset[str], old: frozenset[str], no: frozenset[str], more: frozenset[str]
) -> None:
    membership = Membership(tuple(new), outgoing=tuple(old))
    if quorum.lost(membership, no):
        assert not quorum.won(membership, more - no)


@given(some.filter(bool), some.filter(bool))
def test_each_step_of_a_change_shares_a_majority_with_the_step_before(
    old: frozenset[str], new: frozenset[str]
) -> None:
    """Any two sets that can decide in neighbouring lists have a member in common."""
    now = Membership(tuple(sorted(old)))
    joint = begun(now, tidy(Membership(tuple(sorted(new)))))
    steps = [now, joint, ended(joint)]
    for before, after in itertools.pairwise(steps):
        deciding = [
            [m for m in subsets(old | new) if quorum.won(membership, m)] for membership in (before, after)
        ]
        assert all(one & other for one in deciding[0] for other in deciding[1])


def subsets(members: frozenset[str]) -> list[frozenset[str]]:
    rows = sorted(members)
    return [frozenset(c) for size in range(len(rows) + 1) for c in itertools.combinations(rows, size)]


# -- the log -------------------------------------------------------------------------------------------

terms = st.lists(st.integers(0, 2), max_size=12).map(
    lambda steps: list(itertools.accumulate(steps, initial=1))
)


@given(terms, st.integers(0, 14), st.integers(0, 14), st.integers(0, 30))
def test_the_hint_is_the_newest_entry_of_no_later_term(
    terms: list[int], low: int, high: int, term: int
) -> None:
    log = Log(MemoryLog([Entry(t, i, Kind.COMMAND, b"") for i, t in enumerate(terms, 1)]))
    high = min(high, log.last)
    low = min(low, high)
    fitting = [i for i in range(low + 1, high + 1) if terms[i - 1] <= term]
    assert log.newest_not_after(term, low, high) == max(fitting, default=low)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), max_size=12), st.data())
def test_the_log_shows_the_newest_and_calls_durable_only_what_is(
    writes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Writes replace the log from somewhere on, and are answered late."""
    view = MemoryLog()
    log = Log(view)
    wanted: list[Entry] = []
    waiting: list[tuple[int, tuple[Entry, ...]]] = []
    for seq, (first, count) in enumerate(writes, 1):
        first = min(first, len(wanted) + 1)
        entries = tuple(Entry(seq, first + n, Kind.COMMAND, b"%d" % seq) for n in range(count))
        wanted = wanted[: first - 1] + list(entries)
        log.append(entries)
        log.writing(seq)
        waiting.append((seq, entries))
        while waiting and data.draw(st.booleans()):
            done, written = waiting.pop(0)
            view.write(written)
            log.written(done)
        assert [log.term(i) for i in range(1, log.last + 1)] == [one.term for one in wanted]
        assert log.last == len(wanted)
        assert [view.term(i) for i in range(1, log.durable + 1)] == [e.term for e in wanted[: log.durable]]
        if not waiting:
            assert log.durable == log.last
        if log.last:
            assert log.entries(1, log.last + 1, 1 << 20)[0] == wanted[0]


@given(st.lists(st.integers(1, 20), unique=True).map(sorted), st.data())
def test_the_list_that_counts_is_the_newest_in_the_log(places: list[int], data: st.DataObject) -> None:
    base = Membership(("base",))
    members = Members(0, base, [])
    kept: dict[int, Membership] = {0: base}
    for place in places:
        kept[place] = Membership((f"at{place}",))
        members.appended(Entry(1, place, Kind.MEMBERSHIP, pack(kept[place])))
    cut = data.draw(st.integers(0, 21))
    members.compacted(cut)
    first = data.draw(st.integers(cut + 1, 22))
    members.truncated(first)
    left = {at: one for at, one in kept.items() if at < first}
    assert members.current == left[max(left)]
    for index in range(cut, 22):
        assert members.at(index) == left[max(at for at in left if at <= index)]


# -- whole clusters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 4, 5])
def test_a_cluster_under_a_random_schedule_keeps_every_promise_and_recovers(size: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        schedule = Schedule(seed, size)
        try:
            schedule.run(1200)
            schedule.heal()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {size} members: {error}") from error
        seen.update(schedule.seen)
    for what in ("crash", "snapshot", "change", "read", "terms", "commands"):
        assert seen[what] >= SEEDS // 4, f"the schedules did not exercise {what}: {seen}"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 40), st.integers(2, 5))
def test_a_cluster_with_lease_reads_answers_nothing_stale(seed: int, size: int) -> None:
    schedule = Schedule(seed, size, Settings(lease_reads=True))
    schedule.run(800)
    schedule.heal()


def test_a_state_that_is_slow_is_not_handed_more_than_it_asked_for() -> None:
    cluster = Cluster(["a"], Settings(apply_ahead_max=5))
    cluster.elect("a")
    raft = cluster.nodes["a"].raft
    cluster.settings = Settings()  # from here on the state reports nothing
    before = raft.applied
    for n in range(20):
        cluster.step("a", Proposed(n, (Command(b"%d" % n),)))
    assert raft.commit == before + 20
    assert raft.applied == before + 5
    cluster.step("a", Applied(before + 3))
    assert raft.applied == before + 8
    assert raft.deadline > cluster.now


@pytest.mark.parametrize("seed", range(10))
def test_a_cluster_whose_states_report_keeps_every_promise(seed: int) -> None:
    schedule = Schedule(seed, 3, replace(SMALL, apply_ahead_max=1 + seed % 3))
    schedule.run(1200)
    schedule.heal()


def test_one_seed_is_one_history() -> None:
    def history() -> list[Entry]:
        schedule = Schedule(7, 3)
        schedule.run(1500)
        return schedule.cluster.committed

    assert history() == history() != []


# -- the schedules catch what is broken ----------------------------------------------------------------


def answers_before_the_disk(s: State) -> None:
    s.following.answered = s.following.agreed
    reply = replication.AppendReply(s.term, s.following.round, True, s.following.agreed)
    s.send(s.leader, reply)


def truncates_always(s: State, m: replication.Append) -> tuple[Entry, ...]:
    return tuple(entry for entry in m.entries if entry.index > s.commit)


def forgets_its_vote(s: State, candidate: str, m: election.VoteRequest) -> None:
    if m.term == s.term and not m.pre and s.role is Role.FOLLOWER:
        s.vote = ""
    GIVES_VOTE(s, candidate, m)


GIVES_VOTE = election.on_request


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        (following, "answer", answers_before_the_disk),
        (following, "unknown", truncates_always),
        (quorum, "has_majority", lambda voters, yes: sum(v in yes for v in voters) >= len(voters) // 2),
    ],
)
def test_a_broken_machine_is_caught(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, broken: Callable[..., object]
) -> None:
    monkeypatch.setattr(where, name, broken)
    with pytest.raises((AssertionError, IndexError)):
        for seed in range(600):
            schedule = Schedule(seed, 3 + seed % 3, SMALL)
            schedule.run(1500)
            schedule.heal()


def test_a_vote_given_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from atoll.algorithms.raft import machine
    from atoll.algorithms.raft.messages import VoteRequest

    monkeypatch.setitem(machine.ANSWER, VoteRequest, forgets_its_vote)
    with pytest.raises(AssertionError):
        for seed in range(600):
            Schedule(seed, 3, SMALL).run(1500)
