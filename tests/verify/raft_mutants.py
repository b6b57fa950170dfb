"""Raft with one rule left out, each as a small change of the real machine, its runtime or its state machine.

Locks with one pin filed away. Each of them opens as a good lock does, until somebody tries the wrong key; the
simulation has to be that somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from atoll.algorithms.raft import (
    election,
    following,
    machine,
    quorum,
    reads,
    replication,
)
from atoll.algorithms.raft import events as e
from atoll.algorithms.raft.events import Apply, ReadReady, Send
from atoll.algorithms.raft.leadership import Leadership, PendingRead
from atoll.algorithms.raft.messages import Append, AppendReply, Member, Membership, ReadForward, Snapshot
from atoll.algorithms.raft.sessions import Sessions
from atoll.algorithms.raft.state import State
from atoll.verify.raft.books import Books
from atoll.verify.raft.register import Register
from atoll.verify.raft.runtime import Runtime

Patches = list[tuple[Any, str, Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name`: what is left out. `patches`: names of the machine bound to something else while it runs."""

    name: str
    patches: Callable[[], Patches] = list
    runtime: Callable[..., Any] = Runtime
    state: Any = Register

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this is open the machine is the broken one."""
        with ExitStack() as stack:
            for where, name, broken in self.patches():
                stack.enter_context(patch.object(where, name, broken))
            yield


# -- elections -----------------------------------------------------------------------------------------


class VoteNotForced(Runtime):
    """A vote is told to the machine as written, and never is."""

    def write(self, effect: e.Write) -> None:
        if effect.entries or self._jobs or self._busy:
            super().write(effect)
        else:
            self.witness.asked(self.host, effect)
            self._heard.append(e.Written(effect.seq))


def no_pre_vote() -> Patches:
    return [(election, "ask", election.stand)]


def votes_for_any_log() -> Patches:
    good = election.on_request

    def on_request(s: State, candidate: Member, m: Any) -> None:
        good(s, candidate, type(m)(m.term, 1 << 40, 1 << 40, m.pre, m.forced))

    return [
        (election, "on_request", on_request),
        (machine, "ANSWER", {**machine.ANSWER, type_of(0): on_request}),
    ]


def type_of(place: int) -> type:
    return list(machine.ANSWER)[place]


def votes_of_another_term_count() -> Patches:
    def on_reply(s: State, voter: Member, m: Any) -> None:
        if s.ballot is not None and m.granted:
            s.ballot.yes.add(voter)
            election.count(s)

    return [(machine, "ANSWER", {**machine.ANSWER, type_of(1): on_reply})]


def speaks_before_its_term_is_forced() -> Patches:
    return [(State, "send", lambda s, to, message: s.out.append(Send(to, message)))]


# -- the log -------------------------------------------------------------------------------------------


def truncates_unconditionally() -> Patches:
    return [(following, "unknown", lambda s, m: m.entries)]


def commits_an_old_term_s_entry() -> Patches:
    def commit(s: State) -> None:
        lead = s.lead
        if lead is not None:
            matches: dict[Member, float] = {member: p.match for member, p in lead.progress.items()}
            matches[s.me] = s.log.durable
            s.commit = max(s.commit, int(quorum.reached(s.membership, matches)))

    return [(replication, "commit_what_a_majority_has", commit)]


def counts_a_learner() -> Patches:
    good = quorum.reached

    def reached(membership: Membership, values: Any) -> float:
        return good(Membership(membership.voters + membership.learners, (), membership.outgoing), values)

    return [(quorum, "reached", reached)]


def counts_only_the_new_majority() -> Patches:
    def reached(membership: Membership, values: Any) -> float:
        return quorum.majority_reached(membership.voters, values)

    def won(membership: Membership, yes: Any) -> bool:
        return quorum.has_majority(membership.voters, yes)

    return [(quorum, "reached", reached), (quorum, "won", won)]


def half_is_a_majority() -> Patches:
    def reached(voters: Any, values: Any) -> float:
        row = sorted(values.get(member, 0) for member in voters)
        return row[len(row) // 2] if len(row) != 3 else row[1]

    def majority(voters: Any, yes: Any) -> bool:
        return sum(member in yes for member in voters) >= len(voters) / 2

    return [(quorum, "majority_reached", reached), (quorum, "has_majority", majority)]


def counts_itself_before_it_is_written() -> Patches:
    def commit(s: State) -> None:
        lead = s.lead
        if lead is not None:
            matches: dict[Member, float] = {member: p.match for member, p in lead.progress.items()}
            matches[s.me] = s.log.last
            index = int(quorum.reached(s.membership, matches))
            if index > s.commit and s.log.term(index) == s.term:
                s.commit = index

    return [(replication, "commit_what_a_majority_has", commit)]


def acknowledges_before_written() -> Patches:
    def answer(s: State) -> None:
        s.following.answered = s.following.agreed
        s.send(s.leader, AppendReply(s.term, s.following.round, True, s.following.agreed))

    return [(following, "answer", answer)]


class SaysWrittenBeforeItIs(Runtime):
    """Written is told when the write is asked for."""

    def write(self, effect: e.Write) -> None:
        super().write(effect)
        self._heard.append(e.Written(effect.seq))


def acknowledges_a_duplicate_with_a_lower_index() -> Patches:
    good = following.on_append

    def on_append(s: State, leader: Member, m: Append) -> None:
        last = m.prev_index + len(m.entries)
        if m.entries and last <= s.log.durable and s.log.term(last) == m.entries[-1].term:
            following.heard(s, m.round)
            s.send(leader, AppendReply(s.term, s.following.round, True, last))
        else:
            good(s, leader, m)

    return [(machine, "ANSWER", {**machine.ANSWER, Append: on_append})]


def believes_the_leader_s_commit() -> Patches:
    good = following.on_append

    def on_append(s: State, leader: Member, m: Append) -> None:
        good(s, leader, m)
        s.commit = max(s.commit, min(m.commit, s.log.last))

    return [(machine, "ANSWER", {**machine.ANSWER, Append: on_append})]


def applies_before_commit() -> Patches:
    def hand_out(s: State) -> None:
        if s.applied < s.log.durable and not s.installing:
            entries = s.log.entries(s.applied + 1, s.log.durable + 1, s.settings.message_bytes_max)
            s.applied = entries[-1].index
            s.out.append(Apply(tuple(entries)))

    return [(machine, "hand_out", hand_out)]


# -- reads and leases ----------------------------------------------------------------------------------


def reads_without_a_round() -> Patches:
    def ask(s: State, m: Any) -> None:
        if s.lead is not None:
            s.out.append(ReadReady(m.id, s.commit))
        else:
            good(s, m)

    good = reads.ask
    return [(machine, "HEAR", {**machine.HEAR, e.ReadAsked: ask})]


def reads_are_proved_by_an_earlier_round() -> Patches:
    def ask(s: State, m: Any) -> None:
        if s.lead is not None and s.commit >= s.lead.term_start:
            s.lead.waiting.append(PendingRead(m.id, "", max(1, s.lead.round - 30), s.commit))
        else:
            good(s, m)

    good = reads.ask
    return [(machine, "HEAR", {**machine.HEAR, e.ReadAsked: ask})]


def reads_before_an_entry_of_the_own_term() -> Patches:
    def begin_round(self: Leadership, now: float, commit: int, forget_s: float) -> None:
        start, self.term_start = self.term_start, 0
        try:
            good(self, now, commit, forget_s)
        finally:
            self.term_start = start

    def settle(s: State) -> None:
        lead = s.lead
        if lead is not None and (lead.queued or lead.waiting):
            if lead.queued and not lead.waiting:
                replication.begin_round(s)
            proved = lead.proved_round(s.membership)
            while lead.waiting and lead.waiting[0].round <= proved:
                reads.tell(s, lead.waiting.popleft())

    good = Leadership.begin_round
    return [(Leadership, "begin_round", begin_round), (reads, "settle", settle)]


def an_id_is_proved_once_and_for_all() -> Patches:
    """What was told of an id is told again when the id comes again, as to a letter that was sent twice."""
    told: dict[tuple[Member, int, str, int], int] = {}

    def tell(s: State, read: PendingRead) -> None:
        told[s.me, s.term, read.asker, read.id] = read.index
        good_tell(s, read)

    def ask(s: State, m: Any) -> None:
        if s.lead is not None and (index := told.get((s.me, s.term, "", m.id))):
            s.out.append(ReadReady(m.id, index))
        else:
            good_ask(s, m)

    def on_forward(s: State, asker: Member, m: Any) -> None:
        if s.lead is not None and (index := told.get((s.me, s.term, asker, m.id))):
            good_tell(s, PendingRead(m.id, asker, 0, index))
        else:
            good_forward(s, asker, m)

    good_tell, good_ask, good_forward = reads.tell, reads.ask, reads.on_forward
    return [
        (reads, "tell", tell),
        (machine, "HEAR", {**machine.HEAR, e.ReadAsked: ask}),
        (machine, "ANSWER", {**machine.ANSWER, ReadForward: on_forward}),
    ]


class ReusesIds(Runtime):
    """Every read asks under the same number."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.books = OneNumber(self)
        self._obey[e.ReadReady] = self.books.read_ready
        self._obey[e.Refused] = self.books.refused
        self._obey[e.Accepted] = self.books.accepted


class OneNumber(Books):
    """All reads have one number; the newest gets whatever answer comes first."""

    def _read(self, client: Any, number: int, request: Any) -> None:
        self._reads[1] = (client, number, request)
        self.runtime.step(e.ReadAsked(1))

    def read_ready(self, effect: e.ReadReady) -> None:
        if 1 in self._reads and self.runtime.state.applied >= effect.index:
            super().read_ready(effect)


class KeepsAliveWithoutAQuorum(Runtime):
    """Who believes itself leader says that a lease goes on."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.books.keep_alive = lambda client, number, lease: self.books._extend(  # type: ignore[method-assign]
            client, number, lease, self.host.clock(), self.machine.term
        )


class NewLeaderEndsLeases(Runtime):
    """A new leader counts leases from when they began, as far as it knows: not at all."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        good = self.books.term_begun

        def term_begun(term: int) -> None:
            good(term)
            self.books._leases = dict.fromkeys(self.books._leases, 0.0)

        self.books.term_begun = term_begun  # type: ignore[method-assign]


# -- snapshots and sessions ----------------------------------------------------------------------------


class SnapshotWithoutMembership(Runtime):
    """A snapshot names the members of the first day."""

    def make_snapshot(self) -> tuple[Snapshot, bytes]:
        made, body = super().make_snapshot()
        return Snapshot(made.index, made.term, Membership(("m1", "m2", "m3")), made.size), body


class SnapshotWithoutSessions(Register):
    """A snapshot knows the keys and forgets which commands were done."""

    def packed(self) -> bytes:
        kept, self.sessions = self.sessions, Sessions()
        try:
            return super().packed()
        finally:
            self.sessions = kept


class NoSessions(Register):
    """A command that is sent again is done again."""

    def apply(self, entry: Any) -> int:
        self.sessions = Sessions()
        return super().apply(entry)


MUTANTS = [
    Mutant("skips the vote's fsync", runtime=VoteNotForced),
    Mutant("drops pre-vote", no_pre_vote),
    Mutant("votes for any log", votes_for_any_log),
    Mutant("counts votes of another term", votes_of_another_term_count),
    Mutant("speaks before its term is forced", speaks_before_its_term_is_forced),
    Mutant("truncates unconditionally", truncates_unconditionally),
    Mutant("commits an old term's entry by counting", commits_an_old_term_s_entry),
    Mutant("counts a learner", counts_a_learner),
    Mutant("counts only the new majority in a change", counts_only_the_new_majority),
    Mutant("takes half for a majority", half_is_a_majority),
    Mutant("counts itself before its disk has it", counts_itself_before_it_is_written),
    Mutant("acknowledges before Written", acknowledges_before_written),
    Mutant("says Written before it is", runtime=SaysWrittenBeforeItIs),
    Mutant("acknowledges a duplicate with a lower index", acknowledges_a_duplicate_with_a_lower_index),
    Mutant("believes the leader's commit beyond what agrees", believes_the_leader_s_commit),
    Mutant("applies before commit", applies_before_commit),
    Mutant("reads without a round", reads_without_a_round),
    Mutant("proves a read by a round of before it", reads_are_proved_by_an_earlier_round),
    Mutant("reads before an entry of its own term", reads_before_an_entry_of_the_own_term),
    Mutant("reuses a read's id", an_id_is_proved_once_and_for_all, runtime=ReusesIds),
    Mutant("keeps a lease alive without a quorum", runtime=KeepsAliveWithoutAQuorum),
    Mutant("gives leases no new time when it begins to lead", runtime=NewLeaderEndsLeases),
    Mutant("makes snapshots without the membership", runtime=SnapshotWithoutMembership),
    Mutant("makes snapshots without the sessions", state=SnapshotWithoutSessions),
    Mutant("does a repeated command again", state=NoSessions),
]
