"""A host: the machine under a member, with a clock that drifts, a disk that forgets, and a power switch.

A shop outlives its clerk. The clerk (a `Runtime`) may faint and be replaced by one who knows only what
stands in the books; the shop's name, its books and its crooked clock stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from atoll.algorithms.raft.events import Role
from atoll.algorithms.raft.messages import Member, Membership
from atoll.verify.raft.disk import Damaged, MemberDisk, PowerCut
from atoll.verify.virtual_disk import PowerLoss, VirtualDisk

if TYPE_CHECKING:
    from atoll.verify.raft.cluster import Cluster
    from atoll.verify.raft.runtime import Runtime

BOUNDARIES = (
    "write asked",
    "record written",
    "batch forced",
    "segment named",
    "snapshot written",
    "snapshot forced",
    "snapshot named",
    "log cut",
    "recovering",
)
"""The moments at which the power may go; beside them any moment "between"."""
LEFT = {how: "names lost" if how is PowerLoss.LOST_ENTRIES else how.value for how in PowerLoss}


class Condition(Enum):
    """What became of a host."""

    UP = "up"
    DOWN = "down"
    REFUSED = "refused"  # its disk is damaged, and was not believed
    GONE = "gone"  # wiped, or removed and shut down; its name never comes back


@dataclass(slots=True)
class Trap:
    """The power goes at the `after`-th boundary of that name ("": any) from now on."""

    how: PowerLoss | None
    """None: only the process dies, and the kernel keeps what it was given."""
    boundary: str = ""
    after: int = 1


class Host:
    """One member's hardware. `offset` and `rate`: its clock shows offset + rate * virtual seconds."""

    def __init__(self, cluster: Cluster, name: Member, bootstrap: Membership) -> None:
        self.cluster, self.name, self.bootstrap = cluster, name, bootstrap
        self.dice = cluster.dice(name)
        self.disk = VirtualDisk()
        self.files = MemberDisk(self.disk)
        self.condition = Condition.DOWN
        self.runtime: Runtime | None = None
        self.rate = 1.0
        self.starts = 0
        self.dismissed = self.doomed = False
        self.boundary_number = 0
        self.trap: Trap | None = None
        self.frozen_until = self.stalled_until = 0.0
        self.inbox: list[tuple[Runtime, Callable[..., None], tuple[Any, ...]]] = []
        self._offset, self._anchor = self.dice.uniform(0.0, 1e6), cluster.now
        self._kept: bytes | None = None

    # -- the clock -----------------------------------------------------------------------------------

    def clock(self) -> float:
        """The host's own clock now."""
        return self._offset + (self.cluster.now - self._anchor) * self.rate

    def when(self, local: float) -> float:
        """The virtual time at which the host's clock will show `local`."""
        return self._anchor + (local - self._offset) / self.rate

    def drift(self, rate: float) -> None:
        """From now on the clock runs `rate` times as fast; it never jumps."""
        self._offset, self._anchor = self.clock(), self.cluster.now
        self.rate = rate
        if self.runtime is not None:
            self.runtime.arm()

    # -- the power switch ----------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Its disk is gone or damaged: what it said before can no longer be held against it."""
        return self.doomed or self.condition in (Condition.REFUSED, Condition.GONE)

    def standing(self) -> str:
        """For people."""
        if self.runtime is None:
            return self.condition.value
        machine = self.runtime.machine
        return (
            f"{self.role} in {machine.term}, {machine.commit} committed, {self.runtime.state.applied} applied"
        )

    @property
    def role(self) -> str:
        """For the table of faults: leader, follower, candidate, learner; "outsider" or "down" beside them."""
        if self.runtime is None:
            return "down"
        machine = self.runtime.machine
        if self.name in machine.membership.learners:
            return "learner"
        if self.name not in machine.membership.voters and self.name not in machine.membership.outgoing:
            return "outsider"
        role: Role = machine.role
        return "candidate" if role is Role.PRE_CANDIDATE else role.value

    def boundary(self, name: str) -> None:
        """A moment at which power may go; raises PowerCut where it does."""
        self.boundary_number += 1
        self.cluster.counts.boundaries[name] += 1
        trap = self.trap
        if trap is not None and trap.boundary in ("", name):
            trap.after -= 1
            if trap.after <= 0:
                raise PowerCut(name)

    def start(self) -> None:
        """Power on: recover from the disk, and run."""
        if self.runtime is not None or self.condition is not Condition.DOWN:
            return
        self.disk.on_change = self._recovering
        try:
            self.files = MemberDisk.recovered(self.disk)
        except Damaged as damage:
            self.condition = Condition.REFUSED
            self.cluster.operator.replan()
            self.cluster.note(f"{self.name} refused: {damage}")
            self.cluster.counts.notes["members refused for damage"] += 1
            return
        except OSError:
            self.cluster.bitten("write error", self.name)
            self.cluster.nemesis.crashed(self)
            return
        except PowerCut as cut:
            self.crash(self.trap.how if self.trap else PowerLoss.DROPPED, str(cut))
            return
        if self.files.rewritten:
            self.cluster.counts.notes["torn tails cut"] += 1
        self.files.lies = self.cluster.profile.lying_disks
        self.watch()
        self.starts += 1
        self.condition = Condition.UP
        self.runtime = self.cluster.parts.runtime(self, self._kept)
        self.cluster.note(f"{self.name} starts at {self.files.log.last} in term {self.files.term}")
        self.cluster.witness.started(self)
        self.runtime.arm()

    def crash(self, how: PowerLoss | None, boundary: str = "between") -> None:
        """The process ends here and now; `how`: what its disk keeps of what was not forced."""
        role, pending = self.role, "recovery"
        if self.runtime is not None:
            pending = self.runtime.pending()
            self._kept = self.runtime.kept()
        self.stop()
        fault = "killed" if how is None else f"power cut, {LEFT[how]}"
        if how is not None:
            self.disk = self.disk.power_loss(how, self.dice)
        self.cluster.crashed(self, fault, (boundary, role, pending))

    def stop(self, condition: Condition = Condition.DOWN) -> None:
        """The process is no more; nothing that was under way for it arrives."""
        self.runtime, self.condition, self.trap = None, condition, None
        self.frozen_until = self.stalled_until = 0.0
        self.inbox = []
        self.disk.on_change = None

    # -- pauses --------------------------------------------------------------------------------------

    def freeze(self, seconds: float) -> None:
        """The process stands still; all that is due to it waits."""
        self.frozen_until = max(self.frozen_until, self.cluster.now + seconds)
        self.cluster.at(self.frozen_until, self.thaw)

    def thaw(self) -> None:
        """What had waited, in its order."""
        if self.frozen_until > self.cluster.now:
            return
        waiting, self.inbox = self.inbox, []
        for place, (runtime, act, what) in enumerate(waiting):
            if self.frozen_until > self.cluster.now:
                self.inbox += waiting[place:]
                return
            runtime.enter(act, *what)

    def watch(self) -> None:
        """Each change of the disk is a moment at which the power may go."""
        self.disk.on_change = self._changed

    def _changed(self) -> None:
        self.boundary(self.files.doing)

    def _recovering(self) -> None:
        self.boundary("recovering")
