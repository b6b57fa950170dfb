"""4.2: every invariant of the simulation catches the thing that breaks it, by hand and in a broken world."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.algorithms.raft.events import Became, Command, Role, Write
from atoll.algorithms.raft.machine import Raft
from atoll.algorithms.raft.messages import AppendReply, Entry, Kind, Membership, Snapshot, VoteReply
from atoll.algorithms.raft.settings import Settings
from atoll.verify.raft import cluster as cluster_module
from atoll.verify.raft import history, witness
from atoll.verify.raft.cluster import Cluster, Parts
from atoll.verify.raft.history import Violation
from atoll.verify.raft.host import Host
from atoll.verify.raft.profile import Profile, profile_of
from atoll.verify.raft.register import TTL_S, Register, expiring, putting
from atoll.verify.raft.runtime import Runtime
from atoll.verify.raft.simulate import simulate

QUIET = Profile(trouble_every_s=1e9, changes=False, weather=0.0, load_s=2.0, clients=2, batch_max=4)


@pytest.fixture
def calm() -> Cluster:
    """A cluster that has run for two quiet seconds and is at rest."""
    cluster = Cluster(7, QUIET, Parts(Raft, Runtime, Register))
    cluster.run()
    return cluster


def leader(cluster: Cluster) -> Host:
    found = cluster.leader()
    assert found is not None
    return found


def follower(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts.values() if host.role == "follower")


def machine(host: Host) -> Any:
    assert host.runtime is not None
    return host.runtime.machine


def entry_after(cluster: Cluster, *, term: int | None = None, ahead: int = 1, data: bytes = b"") -> Entry:
    log = cluster.witness.log
    data = data or putting(1)
    return Entry(log[-1].term if term is None else term, len(log) + ahead, Kind.COMMAND, data)


# -- one wrong move each ---------------------------------------------------------------------------


def falls_back_a_term(c: Cluster) -> None:
    c.witness.asked(follower(c), Write(99, machine(follower(c)).term - 1, ""))


def forgets_its_term(c: Cluster) -> None:
    host = follower(c)
    host.files.term -= 1
    c.witness.started(host)


def installs_what_nobody_committed(c: Cluster) -> None:
    c.witness.installed(follower(c), Snapshot(len(c.witness.log) + 5, 1, c.witness.members))


def forgets_its_members(c: Cluster) -> None:
    c.witness.saved(leader(c), Snapshot(5, c.witness.log[4].term, Membership(())))


def writes_another_entry_at_one_place(c: Cluster) -> None:
    entry = entry_after(c)
    term = machine(leader(c)).term
    c.witness.asked(leader(c), Write(98, term, "", (entry,)))
    c.witness.asked(follower(c), Write(98, term, "", (entry_after(c, data=putting(2)),)))


def commits_another_entry(c: Cluster) -> None:
    host = follower(c)
    shadow = c.witness._shadows[host.name]
    shadow.entries[-1] = entry_after(c, ahead=0, data=putting(3))
    c.witness.committed(host, len(c.witness.log) - 1, len(c.witness.log))


def cuts_what_is_committed(c: Cluster) -> None:
    c.witness.asked(follower(c), Write(97, machine(follower(c)).term, "", (entry_after(c, ahead=0),)))


def leads_and_strikes_out(c: Cluster) -> None:
    host, term = leader(c), machine(leader(c)).term
    c.witness.asked(host, Write(98, term, "", (entry_after(c),)))
    c.witness.asked(host, Write(99, term, "", (entry_after(c),)))


def commits_less(c: Cluster) -> None:
    c.witness.committed(leader(c), 9, 8)


def commits_before_its_leader(c: Cluster) -> None:
    host = follower(c)
    c.witness.leaders[machine(host).term] = "nobody"
    wrote_all(c, entry_after(c))
    c.witness.committed(host, len(c.witness.log), len(c.witness.log) + 1)


def wrote_all(c: Cluster, entry: Entry) -> None:
    for host in c.hosts.values():
        c.witness.asked(host, Write(97, machine(host).term, "", (entry,)))


def commits_an_older_term_by_counting(c: Cluster) -> None:
    wrote_all(c, entry_after(c, term=machine(leader(c)).term - 1))
    c.witness.committed(leader(c), len(c.witness.log), len(c.witness.log) + 1)


def commits_what_only_it_has(c: Cluster) -> None:
    wrote_all(c, entry_after(c))  # asked for, and forced nowhere
    c.witness.committed(leader(c), len(c.witness.log), len(c.witness.log) + 1)


def votes_twice(c: Cluster) -> None:
    c.witness.forced(follower(c), [Write(1, 90, "a"), Write(2, 90, "b")])


def votes_before_it_is_forced(c: Cluster) -> None:
    c.witness.says(follower(c), leader(c).name, VoteReply(90, 90, True))


def acknowledges_before_it_is_forced(c: Cluster) -> None:
    term = machine(leader(c)).term
    c.witness.says(follower(c), leader(c).name, AppendReply(term, 1, True, len(c.witness.log) + 1))


def takes_back_what_it_acknowledged(c: Cluster) -> None:
    for match in (8, 7):
        c.witness.says(follower(c), leader(c).name, AppendReply(machine(leader(c)).term, 1, True, match))


def agrees_where_it_differs(c: Cluster) -> None:
    host, ahead = leader(c), entry_after(c, term=machine(leader(c)).term)
    c.witness.asked(host, Write(97, ahead.term, "", (ahead,)))
    other = follower(c)
    other.files.log.write((replace_term(ahead, ahead.term + 1),))
    c.witness.says(other, host.name, AppendReply(ahead.term, 1, True, ahead.index))


def replace_term(entry: Entry, term: int) -> Entry:
    return Entry(term, entry.index, entry.kind, entry.data)


def stands_unasked(c: Cluster) -> None:
    host = follower(c)
    c.witness.asked(host, Write(97, machine(host).term + 1, host.name))


def leads_beside_another(c: Cluster) -> None:
    c.witness.became(follower(c), Became(Role.LEADER, machine(leader(c)).term, follower(c).name))


def leads_without_votes(c: Cluster) -> None:
    c.witness.became(follower(c), Became(Role.LEADER, 90, follower(c).name))


def leads_without_what_is_committed(c: Cluster) -> None:
    host = follower(c)
    for name in c.hosts:
        c.witness.votes[name, 90] = host.name
    c.witness._shadows[host.name].entries.pop()
    c.witness.became(host, Became(Role.LEADER, 90, host.name))


def applies_what_is_not_committed(c: Cluster) -> None:
    c.witness.applied(leader(c), entry_after(c), 1)


def applies_another_command(c: Cluster) -> None:
    c.witness.applied(leader(c), entry_after(c, ahead=0, data=putting(9)), 1)


def applies_what_is_not_durable(c: Cluster) -> None:
    c.witness.log.append(entry_after(c))
    c.witness.applied(leader(c), c.witness.log[-1], 1)


def answers_another_result(c: Cluster) -> None:
    c.witness.applied(leader(c), c.witness.log[-1], 12345)


def skips_an_entry(c: Cluster) -> None:
    c.witness._results.pop()
    c.witness._results.pop()
    c.witness.applied(leader(c), c.witness.log[-1], 1)


def has_another_state(c: Cluster) -> None:
    runtime = follower(c).runtime
    assert runtime is not None
    runtime.state.values[1] = 1
    c.witness.agreed([*c.hosts.values()])


def has_an_effect_twice(c: Cluster) -> None:
    for index in (900, 901):
        c.witness.took_effect(Entry(1, index, Kind.COMMAND, putting(1), 5, 7), index)


def answers_late_what_was_never_done(c: Cluster) -> None:
    c.witness.took_effect(Entry(1, 900, Kind.COMMAND, putting(1), 5, 7), -1)


def ends_a_lease_early(c: Cluster) -> None:
    c.witness.believed(5, c.now)
    c.now += TTL_S / 10
    c.witness.took_effect(Entry(1, 900, Kind.COMMAND, expiring(5)), 900)


def promises_an_ended_lease(c: Cluster) -> None:
    c.witness.took_effect(Entry(1, 900, Kind.COMMAND, expiring(5)), 900)
    c.now += TTL_S / 10
    c.witness.believed(5, c.now)


def answers_a_write_that_was_not_done(c: Cluster) -> None:
    c.witness.wrote(0, [Command(putting(1), 5, 7)], [12])


def reads_a_wrong_value(c: Cluster) -> None:
    c.witness.read(0, c.witness.newest, [1], [1])


def reads_an_old_state(c: Cluster) -> None:
    c.witness.read(c.witness.newest, c.witness.newest - 1, [], [])


def writes_into_the_past(c: Cluster) -> None:
    c.witness.took_effect(Entry(1, 5, Kind.COMMAND, putting(1), 5, 7), 5)
    c.witness.wrote(c.witness.newest, [Command(putting(1), 5, 7)], [5])


BROKEN: list[tuple[str, Callable[[Cluster], None]]] = [
    ("terms do not fall", falls_back_a_term),
    ("terms do not fall", forgets_its_term),
    ("a snapshot is of what is committed", installs_what_nobody_committed),
    ("a snapshot carries its members", forgets_its_members),
    ("log matching", writes_another_entry_at_one_place),
    ("log matching", commits_another_entry),
    ("nothing committed is cut", cuts_what_is_committed),
    ("a leader only appends", leads_and_strikes_out),
    ("commit does not fall", commits_less),
    ("leaders commit first", commits_before_its_leader),
    ("commit in the own term", commits_an_older_term_by_counting),
    ("committed is forced on a majority", commits_what_only_it_has),
    ("one vote a term", votes_twice),
    ("nothing is said before it is forced", votes_before_it_is_forced),
    ("nothing is said before it is forced", acknowledges_before_it_is_forced),
    ("nobody stands unasked", stands_unasked),
    ("an acknowledgement stands", takes_back_what_it_acknowledged),
    ("a match agrees", agrees_where_it_differs),
    ("one leader a term", leads_beside_another),
    ("elected by a majority", leads_without_votes),
    ("leader completeness", leads_without_what_is_committed),
    ("only committed is applied", applies_what_is_not_committed),
    ("state machine safety", applies_another_command),
    ("only durable is applied", applies_what_is_not_durable),
    ("one state", answers_another_result),
    ("one state", has_another_state),
    ("applied in order", skips_an_entry),
    ("exactly once", has_an_effect_twice),
    ("exactly once", answers_late_what_was_never_done),
    ("no lease ends early", ends_a_lease_early),
    ("no lease ends early", promises_an_ended_lease),
    ("a true answer", answers_a_write_that_was_not_done),
    ("a true answer", reads_a_wrong_value),
    ("real time", reads_an_old_state),
    ("real time", writes_into_the_past),
]


@pytest.mark.parametrize(("rule", "break_it"), BROKEN, ids=[broken.__name__ for _, broken in BROKEN])
def test_one_wrong_move_is_called_by_its_rule(
    calm: Cluster, rule: str, break_it: Callable[[Cluster], None]
) -> None:
    with pytest.raises(Violation) as seen:
        break_it(calm)
    assert seen.value.rule == rule


def test_every_rule_has_something_that_breaks_it() -> None:
    rules = set()
    for module in (witness, history, cluster_module):
        text = Path(str(module.__file__)).read_text()
        rules |= set(re.findall(r'(?:_broken|Violation)\(\s*"([^"]+)"', text))
    assert rules == {rule for rule, _ in BROKEN} | {"liveness after healing", "the world goes on"}


# -- broken worlds -----------------------------------------------------------------------------------


class Forging(Runtime):
    """A network that makes every answer to a vote a yes."""

    def receive(self, sender: str, message: Any) -> None:
        if isinstance(message, VoteReply) and not message.granted and not message.pre:
            message = VoteReply(message.asked, message.asked, True)
        super().receive(sender, message)


class Hasty(Runtime):
    """Reads of whatever is here, without asking whether it is still true."""

    def ask(self, client: Any, number: int, request: Any) -> None:
        if request[0] == "read":
            self.books._answer((client, number, request))
        else:
            super().ask(client, number, request)


class Deaf(Runtime):
    """Hears no client any more after a while."""

    def ask(self, client: Any, number: int, request: Any) -> None:
        if self.cluster.now < 8:
            super().ask(client, number, request)


class Restless(Runtime):
    """Looks at its clock again and again, and never waits."""

    def arm(self) -> None:
        self.cluster.at(self.cluster.now, self.enter, self.arm)


def caught(seeds: int, **parts: Any) -> set[str]:
    """The rules that broke in the first `seeds` seeds, until there is one."""
    lying, last = parts.pop("lying_disks", False), parts.pop("last_batch_flips", False)
    for seed in range(seeds):
        profile = parts.get("profile") or profile_of(seed)
        profile = replace(profile, lying_disks=lying, last_batch_flips=last)
        if lying or last:
            profile = replace(profile, state_kept=False)  # a state of its own would tell
        broken = simulate(seed, **{**parts, "profile": profile}).violation
        if broken is not None:
            return {broken.partition(":")[0]}
    return set()


def test_forged_votes_are_caught() -> None:
    assert caught(20, runtime=Forging) & {"elected by a majority", "one leader a term", "an exception"}


def test_reads_without_asking_the_others_are_caught() -> None:
    assert caught(20, runtime=Hasty) == {"real time"}


def test_a_cluster_that_answers_nobody_is_caught() -> None:
    short = Profile(load_s=10.0, healed_s_max=5.0, settings=Settings(election_s=0.3))
    assert caught(1, runtime=Deaf, profile=short) == {"liveness after healing"}


def test_a_member_that_never_waits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "EVENTS_MAX", 20_000)
    assert caught(1, runtime=Restless) == {"the world goes on"}


def test_disks_that_lie_about_forcing_are_caught_so_nothing_is_promised_on_them() -> None:
    assert caught(20, lying_disks=True) - {"an exception"}


def test_a_bit_flipped_in_the_last_forced_batch_is_caught_so_nothing_is_promised_there() -> None:
    assert caught(60, last_batch_flips=True) - {"an exception"}
