"""The operator: changes who the members are, while everything else goes wrong.

A shop owner who hires and dismisses in the middle of the rush. New people watch first (learners) and sign
only when they know the books; who loses his books is never sent back to work under his old name.

Rules of the house: at most one member whose disk is gone at a time, and none while a change is under way;
a cluster of three survives that, and promises no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.algorithms.raft.messages import Member, Membership
from atoll.verify.raft.host import Condition, Host

if TYPE_CHECKING:
    from atoll.verify.raft.cluster import Cluster

TICK_S = 0.15
PATIENCE_S = 6.0
VOTERS = (3, 5)


class Operator:
    """Has a goal, asks the leader for the next step towards it, and takes another one when it is reached."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.dice = cluster.dice("operator")
        self.healing = False
        self._goal: tuple[Member, ...] = ()
        self._learners: tuple[Member, ...] = ()
        self._since = 0.0
        self._rest_until = 1.0
        self._leaving: dict[Member, str] = {}

    def begin(self) -> None:
        self.cluster.at(self.cluster.now + TICK_S, self._tick)

    def heal(self) -> None:
        """No new plans; who has lost his disk is still replaced."""
        self.healing = True
        self._goal = self._learners = ()

    def at_rest(self) -> bool:
        """Nobody to replace, nothing under way."""
        leader = self.cluster.leader()
        if leader is None or leader.runtime is None or self._lost():
            return False
        return not leader.runtime.machine.membership.outgoing

    def can_lose(self, host: Host) -> bool:
        """Whether this disk may go for ever now."""
        cluster, members = self.cluster, self.cluster.witness.members
        if self.healing or host.name not in members.voters + members.learners or len(members.voters) < 3:
            return False
        if any(other.lost for other in cluster.hosts.values()) or cluster.witness.lists[-1][1] is not members:
            return False
        running = [other.runtime for other in cluster.hosts.values() if other.runtime is not None]
        return all(life.machine.membership == members for life in running)

    def _lost(self) -> list[Member]:
        members = self.cluster.witness.members
        hosts = self.cluster.hosts
        return [n for n in members.voters + members.learners if n not in hosts or hosts[n].lost]

    # -- one step ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        cluster = self.cluster
        cluster.at(cluster.now + TICK_S, self._tick)
        self._dismiss()
        members = cluster.witness.members
        leader = cluster.leader()
        if leader is None or leader.runtime is None or cluster.witness.lists[-1][1] is not members:
            return
        if leader.runtime.machine.membership != members:
            return
        if not self._goal and not self._plan(members):
            return
        if (set(members.voters), set(members.learners)) == (set(self._goal), set(self._learners)):
            self._reached()
        elif cluster.now - self._since > PATIENCE_S and not self._lost():
            self._goal = ()
        else:
            self._ask(leader, members)

    def _ask(self, leader: Host, members: Membership) -> None:
        assert leader.runtime is not None
        newcomers = [n for n in self._goal if n not in members.voters]
        waiting = [n for n in newcomers if n not in members.learners]
        if waiting:
            wish = Membership(members.voters, (*members.learners, *waiting))
        else:
            wish = Membership(self._goal, self._learners)
        self.cluster.note(f"operator asks {leader.name} for {wish}")
        leader.runtime.enter(leader.runtime.change, wish)

    def _reached(self) -> None:
        for role in self._leaving.values():
            self.cluster.counts.cells["members changed", role] += 1
        self._leaving = {}
        self._goal = ()
        self._rest_until = self.cluster.now + self.dice.expovariate(1 / 1.5)

    def _dismiss(self) -> None:
        """Who is no member any more goes on for a while, and is then shut down."""
        cluster = self.cluster
        members = cluster.witness.lists[-1][1]
        staying = {*members.voters, *members.learners, *members.outgoing, *self._goal, *self._learners}
        for name, host in [*cluster.hosts.items()]:
            if name in staying:
                host.dismissed = False
            elif not host.dismissed:
                host.dismissed = True
                cluster.at(cluster.now + self.dice.uniform(0.3, 3.0), self._shut, name)

    def _shut(self, name: Member) -> None:
        host = self.cluster.hosts.get(name)
        if host is not None and host.dismissed:
            self.cluster.remove(name)

    # -- plans ---------------------------------------------------------------------------------------

    def _plan(self, members: Membership) -> bool:
        cluster, dice = self.cluster, self.dice
        lost = set(self._lost())
        self._since = cluster.now
        voters, learners = list(members.voters), list(members.learners)
        if lost:
            new = [self._hire() for name in voters if name in lost]
            self._set([n for n in voters if n not in lost] + new, [n for n in learners if n not in lost])
            return True
        if self.healing or not cluster.profile.changes or cluster.now < self._rest_until:
            return False
        if learners and dice.random() < 0.5:
            self._set(voters, [])
        elif dice.random() < 0.3 and not learners:
            self._set(voters, [self._hire()])
        elif len(voters) <= VOTERS[0]:
            self._set(voters + [self._hire() for _ in range(dice.choice((1, 2)))], learners)
        elif len(voters) >= VOTERS[1] or dice.random() < 0.5:
            leaving = [self._somebody(voters) for _ in range(dice.choice((1, 2)))]
            left = [n for n in voters if n not in leaving]
            self._set(left if len(left) >= VOTERS[0] else voters[: VOTERS[0]], learners)
        else:
            leaving = [self._somebody(voters)]
            self._set([n for n in voters if n not in leaving] + [self._hire()], learners)
        return True

    def _set(self, voters: list[Member], learners: list[Member]) -> None:
        members = self.cluster.witness.members
        self._goal, self._learners = tuple(sorted(voters)), tuple(sorted(learners))
        now, then = set(members.voters + members.learners), {*voters, *learners}
        hosts = self.cluster.hosts
        self._leaving = {n: hosts[n].role for n in sorted(now ^ then) if n in hosts}
        self._leaving |= {n: "learner" for n in sorted(then - now)}
        self.cluster.note(f"operator plans {self._goal} and {self._learners}")

    def _somebody(self, voters: list[Member]) -> Member:
        """Whom to dismiss: often the leader, and a candidate where there is one."""
        hosts = self.cluster.hosts
        for role in ("candidate", "leader"):
            found = [n for n in voters if n in hosts and hosts[n].role == role]
            if found and self.dice.random() < 0.5:
                return found[0]
        return self.dice.choice(voters)

    def _hire(self) -> Member:
        return self.cluster.add(self.cluster.new_name(), Membership(())).name

    def wiped(self, host: Host) -> None:
        """Its disk is gone; whoever comes in its place has another name."""
        host.stop(Condition.GONE)
        self.replan()

    def replan(self) -> None:
        """A disk was lost: whoever lost it is replaced first."""
        self._goal = ()
