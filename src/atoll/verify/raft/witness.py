"""The witness: sees every member from outside, and holds what they do against Raft's invariants.

A referee with eyes everywhere, who takes part in nothing. Players see only their own cards; the referee has
seen all of them, so that the first wrong move is called when it is made and not when the game is lost.

Each check is made where something changed, so a step costs a step, however long the log is.

Source: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (2014), figure 3.
Departure: more is checked than figure 3 says: nothing is said before it is forced, and what is committed
stands forced on a majority at that moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from atoll.algorithms.raft.events import Became, Role, Write
from atoll.algorithms.raft.membership import unpack
from atoll.algorithms.raft.messages import (
    AppendReply,
    Entry,
    Kind,
    Member,
    Membership,
    Message,
    Snapshot,
    Term,
    TimeoutNow,
    VoteReply,
)
from atoll.verify.raft.history import History

if TYPE_CHECKING:
    from atoll.verify.raft.host import Host


LEADER = ""
"""Who told a member to stand: no member has this name."""


class Shadow:
    """A member's log as its machine asked for it, forced or not."""

    __slots__ = ("entries", "low")

    def __init__(self, low: int, entries: list[Entry]) -> None:
        self.low, self.entries = low, entries

    @property
    def last(self) -> int:
        return self.low + len(self.entries) - 1

    def at(self, index: int) -> Entry | None:
        """None where it is not in here."""
        return self.entries[index - self.low] if self.low <= index <= self.last else None


class Witness(History):
    """The invariants of the log, of votes and of the state machine. The clients' side is `History`'s."""

    def __init__(self, bootstrap: Membership, hosts: dict[Member, Host], now: Callable[[], float]) -> None:
        super().__init__(now)
        self.hosts = hosts
        self.log: list[Entry] = []
        """What was ever committed: the entry of index i stands at i - 1."""
        self.members = bootstrap
        """The newest committed membership without a joint phase."""
        self.lists: list[tuple[int, Membership]] = [(0, bootstrap)]
        """Every committed list of members, joint ones too, with its index."""
        self.changes = 0
        self.leaders: dict[Term, Member] = {}
        self.votes: dict[tuple[Member, Term], Member] = {}
        self._wanted: dict[tuple[Member, Term], set[Member]] = {}  # who would vote for whom, or told it to
        self._matches: dict[tuple[Member, Member], tuple[Term, int]] = {}  # acknowledged last
        self._shadows: dict[Member, Shadow] = {}
        self._known: dict[tuple[int, Term], tuple[Entry, Term]] = {}
        self._terms: dict[Member, Term] = {}  # as asked for in this life
        self._forced: dict[Member, Term] = {}
        self._by: list[Term] = []  # the term in which each index was first seen committed
        self._results: list[int] = []

    # -- the log -------------------------------------------------------------------------------------

    def started(self, host: Host) -> None:
        """A member runs; its log is what it found on its disk."""
        view = host.files.log
        entries = view.entries(view.first, view.last + 1, 1 << 40) if view.last >= view.first else []
        self._shadows[host.name] = Shadow(view.first, entries)
        self._matches = {pair: match for pair, match in self._matches.items() if pair[0] != host.name}
        before, self._terms[host.name] = self._forced.get(host.name, 0), host.files.term
        if host.files.term < before:
            self._broken("terms do not fall", f"{host.name} starts in {host.files.term} after {before}")
        self._forced[host.name] = host.files.term
        self._voted(host.name, host.files.term, host.files.vote)

    def installed(self, host: Host, snapshot: Snapshot) -> None:
        """A snapshot took the place of the log up to its index."""
        known = self.log[snapshot.index - 1] if snapshot.index <= len(self.log) else None
        if known is None or known.term != snapshot.term:
            self._broken("a snapshot is of what is committed", f"{host.name} installed {snapshot}")
        shadow = self._shadows[host.name]
        view = host.files.log
        if view.last <= snapshot.index:
            self._shadows[host.name] = Shadow(snapshot.index + 1, [])
        elif shadow.low > snapshot.index + 1:
            self.started(host)

    def saved(self, host: Host, snapshot: Snapshot) -> None:
        """A member makes a snapshot of its own state."""
        place = bisect_right(self.lists, snapshot.index, key=lambda one: one[0]) - 1
        expected = self.lists[place][1]
        if snapshot.membership != expected:
            self._broken("a snapshot carries its members", f"{host.name}: {snapshot}, committed {expected}")

    def asked(self, host: Host, write: Write) -> None:
        """A member's machine wants this written."""
        name, entries = host.name, write.entries
        if write.term < self._terms.get(name, 0):
            self._broken("terms do not fall", f"{name} writes {write.term} after {self._terms[name]}")
        if write.vote == name and write.term > self._terms.get(name, 0):
            self._stands(host, write.term)
        self._terms[name] = write.term
        if not entries:
            return
        shadow, first = self._shadows[name], entries[0].index
        if first <= shadow.last:
            self._truncated(host, shadow, entries)
            del shadow.entries[max(0, first - shadow.low) :]
        if not shadow.entries:
            shadow.low = first
        before = self._term_before(host, shadow, first)
        known = self._known
        for entry in entries:
            place = (entry.index, entry.term)
            seen = known.get(place)
            if seen is None:
                known[place] = (entry, before if before is not None else -1)
            elif (seen[0] is not entry and seen[0] != entry) or (
                before is not None and 0 <= seen[1] != before
            ):
                self._broken("log matching", f"{name} has {entry} after term {before}, another {seen}")
            before = entry.term
        shadow.entries += entries

    def _stands(self, host: Host, term: Term) -> None:
        """It was asked to by its leader, or a majority would vote for it: nobody else's term is disturbed."""
        wanted = self._wanted.get((host.name, term), set())
        if LEADER in wanted or host.runtime is None:
            return
        membership = host.runtime.machine.membership
        for side in (membership.voters, membership.outgoing):
            having = [name for name in side if name in wanted or name == host.name]
            if side and 2 * len(having) <= len(side):
                self._broken("nobody stands unasked", f"{host.name} in {term}, wanted by {having} of {side}")

    def _term_before(self, host: Host, shadow: Shadow, first: int) -> Term | None:
        if first == 1:
            return 0
        entry = shadow.at(first - 1)
        return entry.term if entry is not None else host.files.log.term(first - 1)

    def _truncated(self, host: Host, shadow: Shadow, entries: Sequence[Entry]) -> None:
        commit = host.runtime.commit if host.runtime is not None else 0  # as it was before this step
        if entries[0].index <= commit:
            self._broken(
                "nothing committed is cut", f"{host.name} replaces from {entries[0].index}, commit {commit}"
            )
        name = host.name
        if self.leaders.get(self._terms[name]) == name and host.runtime is not None:
            if host.runtime.machine.role is Role.LEADER:
                self._broken("a leader only appends", f"{name} replaces from {entries[0].index}")

    def committed(self, host: Host, before: int, commit: int) -> None:
        """A member's commit index moved."""
        name, log = host.name, self.log
        if commit < before:
            self._broken("commit does not fall", f"{name} goes from {before} to {commit}")
        shadow = self._shadows[name]
        seen = min(commit, len(log))
        low, entries = shadow.low, shadow.entries
        for index in range(max(before + 1, low), seen + 1):
            mine = entries[index - low] if index - low < len(entries) else None
            if mine is not log[index - 1] and mine != log[index - 1]:
                self._broken("log matching", f"{name} committed {mine}, another {log[index - 1]}")
        if commit > seen:
            self._first_commit(host, shadow, seen, commit)

    def _first_commit(self, host: Host, shadow: Shadow, before: int, commit: int) -> None:
        runtime = host.runtime
        assert runtime is not None
        machine, name = runtime.machine, host.name
        entry = shadow.at(commit)
        if self.leaders.get(machine.term) != name:
            leader = self.leaders.get(machine.term)
            self._broken(
                "leaders commit first", f"{name} commits {commit} in term {machine.term} of {leader}"
            )
        if entry is None or entry.term != machine.term:
            self._broken("commit in the own term", f"{name} commits {entry} in term {machine.term}")
        self._forced_on_majority(machine.membership, commit, machine.term)
        for index in range(before + 1, commit + 1):
            entry = shadow.at(index)
            if entry is None:
                self._broken("log matching", f"{name} commits {commit} and has no entry {index}")
                return
            self.log.append(entry)
            self._by.append(machine.term)
            if entry.kind == Kind.MEMBERSHIP:
                self._changed(index, unpack(entry.data))

    def _changed(self, index: int, membership: Membership) -> None:
        self.lists.append((index, membership))
        if not membership.outgoing:
            old = self.members
            self.changes += (set(old.voters), set(old.learners)) != (
                set(membership.voters),
                set(membership.learners),
            )
            self.members = membership

    def _forced_on_majority(self, membership: Membership, index: int, term: Term) -> None:
        for side in (membership.voters, membership.outgoing):
            having = [name for name in side if self._has_forced(name, index, term)]
            if side and 2 * len(having) <= len(side):
                self._broken(
                    "committed is forced on a majority", f"{index} of term {term} only on {having} of {side}"
                )

    def _has_forced(self, name: Member, index: int, term: Term) -> bool:
        host = self.hosts.get(name)
        if host is None or host.lost:
            return True  # it may have had it; its disk is gone, and the world allows for that
        view = host.files.log
        return index <= view.last and view.term(index) in (term, None)

    # -- votes and words -----------------------------------------------------------------------------

    def forced(self, host: Host, writes: Sequence[Write]) -> None:
        """A member's writes are on its disk."""
        self._forced[host.name] = writes[-1].term
        for write in writes:
            self._voted(host.name, write.term, write.vote)

    def _voted(self, name: Member, term: Term, vote: Member) -> None:
        if vote and (other := self.votes.setdefault((name, term), vote)) != vote:
            self._broken("one vote a term", f"{name} for {other} and {vote} in {term}")

    def says(self, host: Host, to: Member, message: Message) -> None:
        """A member sends this."""
        if type(message) is AppendReply:
            if message.ok:
                self._promised(host, to, message)
        elif type(message) is VoteReply and message.granted:
            if message.pre:
                self._wanted.setdefault((to, message.asked), set()).add(host.name)
            elif self.votes.get((host.name, message.asked)) != to:
                self._broken("nothing is said before it is forced", f"{host.name} votes for {to}: {message}")
        elif type(message) is TimeoutNow:
            self._wanted.setdefault((to, message.term + 1), set()).add(LEADER)

    def _promised(self, host: Host, to: Member, reply: AppendReply) -> None:
        if reply.match > host.files.log.last:
            last = host.files.log.last
            self._broken("nothing is said before it is forced", f"{host.name} has {last}, says {reply}")
        term, match = self._matches.get((host.name, to), (0, 0))
        if reply.term == term and reply.match < match:
            self._broken("an acknowledgement stands", f"{host.name} had {match}, says {reply}")
        self._matches[host.name, to] = (reply.term, reply.match)
        leader = self.hosts.get(to)
        if leader is None or leader.runtime is None or self.leaders.get(reply.term) != to:
            return
        machine = leader.runtime.machine
        theirs = self._shadows[to].at(reply.match)
        if machine.role is Role.LEADER and machine.term == reply.term and theirs is not None:
            mine = host.files.log.term(reply.match)
            if mine is not None and mine != theirs.term:
                self._broken(
                    "a match agrees", f"{host.name} has term {mine} at {reply.match}, {to} {theirs.term}"
                )

    def became(self, host: Host, effect: Became) -> None:
        """A change of role, term or leader."""
        if effect.role is not Role.LEADER:
            return
        name, term = host.name, effect.term
        other = self.leaders.setdefault(term, name)
        if other != name:
            self._broken("one leader a term", f"{other} and {name} in {term}")
        assert host.runtime is not None
        self._elected(name, term, host.runtime.machine.membership)
        self._complete(host, term)

    def _elected(self, name: Member, term: Term, membership: Membership) -> None:
        for side in (membership.voters, membership.outgoing):
            votes = [voter for voter in side if self.votes.get((voter, term)) == name or self._lost(voter)]
            if side and 2 * len(votes) <= len(side):
                self._broken("elected by a majority", f"{name} leads in {term} with {votes} of {side}")

    def _lost(self, name: Member) -> bool:
        host = self.hosts.get(name)
        return host is None or host.lost

    def _complete(self, host: Host, term: Term) -> None:
        """It has all that was committed in terms before its own; the newest of that is enough to look at."""
        index = len(self._by)
        while index and self._by[index - 1] >= term:
            index -= 1
        if not index:
            return
        shadow = self._shadows[host.name]
        if index < shadow.low:
            return
        if shadow.at(index) != self.log[index - 1]:
            self._broken(
                "leader completeness",
                f"{host.name} in {term} has {shadow.at(index)}, committed {self.log[index - 1]}",
            )

    # -- the state machine ---------------------------------------------------------------------------

    def applied(self, host: Host, entry: Entry, result: int) -> None:
        """A member applied an entry, with this result."""
        index = entry.index
        if index > len(self.log):
            self._broken("only committed is applied", f"{host.name} applies {entry}")
        if self.log[index - 1] is not entry and self.log[index - 1] != entry:
            self._broken(
                "state machine safety", f"{host.name} applies {entry}, committed {self.log[index - 1]}"
            )
        if index > host.files.log.last:
            self._broken(
                "only durable is applied", f"{host.name} applies {entry}, {host.files.log.last} forced"
            )
        if index <= len(self._results):
            if self._results[index - 1] != result:
                told = self._results[index - 1]
                self._broken("one state", f"{host.name} answers {result} at {index}, another answered {told}")
            return
        if index != len(self._results) + 1:
            self._broken("applied in order", f"{host.name} applies {entry}, {len(self._results)} were")
        self._results.append(result)
        if entry.kind == Kind.COMMAND:
            self.took_effect(entry, result)

    def agreed(self, hosts: Collection[Host]) -> None:
        """At the end: who has applied the same has the same state, to the byte."""
        states: dict[int, tuple[Member, bytes]] = {}
        for host in hosts:
            if host.runtime is not None:
                state = host.runtime.state
                name, packed = states.setdefault(state.applied, (host.name, state.packed()))
                if packed != state.packed():
                    self._broken("one state", f"{name} and {host.name} differ at {state.applied}")
