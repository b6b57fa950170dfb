"""Events and effects: all that a Raft machine hears, and all that it asks of its runtime.

`step(event, now)` answers a list of effects, obeyed in order. None of them is waited for: what must come
after a write is asked for when its `Written` arrives, so a stalled disk never holds up a decision.

The runtime's duties:
1. Obey effects in order; never hold one back for another. Writes are done in the order of `seq`.
2. `Written(seq)` only when all up to `seq` would survive a power cut. A failed write: `WriteFailed`, once.
3. The log view shows what is *durable*; the machine itself keeps what is not yet.
4. `Apply` is durable here and committed. Apply in order, each entry once; a command's error is its result.
5. Step at `deadline` with `Elapsed()`; `now` never goes back. It may be now: there is more to apply.
6. The log view changes by what the runtime was asked for, and never while a step runs.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import msgspec

from atoll.algorithms.raft.messages import Entry, Index, Member, Membership, Message, Snapshot, Term


class Role(Enum):
    """What a member is at this moment."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Declined(Enum):
    """Why something asked for was not begun; it certainly has no effect."""

    NOT_LEADER = "not the leader"
    TRANSFERRING = "handing over"
    OVERLOADED = "too much is waiting to be committed"
    TOO_LARGE = "a command is larger than a message may be"
    CHANGING = "another change of members is under way"
    WOULD_LOSE_QUORUM = "no majority of voters would remain"
    NOT_CAUGHT_UP = "that member has not caught up"
    UNKNOWN_MEMBER = "no such member"


class LogView(Protocol):
    """The durable log, read only. Entries up to `first - 1` stand in the snapshot."""

    @property
    def first(self) -> Index: ...
    @property
    def last(self) -> Index:
        """The newest durable entry; the snapshot's index in an empty log."""
        ...

    def term(self, index: Index) -> Term | None:
        """None where it is not here: compacted below the snapshot, or never written."""
        ...

    def entries(self, low: Index, high: Index, bytes_max: int) -> list[Entry]:
        """`low` <= index < `high`, at least one, then no more than `bytes_max` of data."""
        ...

    def snapshot(self) -> Snapshot | None:
        """The newest durable snapshot."""
        ...

    def memberships(self) -> list[tuple[Index, Membership]]:
        """Every entry of Kind.MEMBERSHIP in the log, oldest first."""
        ...


class Dice(Protocol):
    """Chance, handed in: `random.Random` is one."""

    def random(self) -> float: ...


# -- what it hears -------------------------------------------------------------------------------------


class Elapsed(msgspec.Struct, frozen=True, gc=False):
    """`deadline` has come."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message of `sender` arrived; the runtime has checked cluster and sender."""

    sender: Member
    message: Message


class Written(msgspec.Struct, frozen=True, gc=False):
    """All writes up to `seq` are durable."""

    seq: int


class WriteFailed(msgspec.Struct, frozen=True, gc=False):
    """The disk said no. The machine says nothing more, for ever: nobody knows what is on that disk."""


class Command(msgspec.Struct, frozen=True, gc=False):
    """What a client wants in the log."""

    data: bytes
    client: int = 0
    sequence: int = 0


class Proposed(msgspec.Struct, frozen=True, gc=False):
    """Commands, to be appended together. Answered by `Accepted` or `Refused`, in the same step."""

    id: int
    commands: tuple[Command, ...]


class ReadAsked(msgspec.Struct, frozen=True, gc=False):
    """A linearizable read, of any role. Answered later by `ReadReady` or `Refused`; no `id` is used twice."""

    id: int


class ChangeAsked(msgspec.Struct, frozen=True, gc=False):
    """`voters` and `learners` as they shall be. Answered by `Accepted` (its joint entry) or `Refused`."""

    id: int
    membership: Membership


class TransferAsked(msgspec.Struct, frozen=True, gc=False):
    """Hand over to `target`, or to the voter that is furthest ("").

    Answered by `Accepted` when it begins or by `Refused`. Until it ends, proposals are refused; it ends with
    another leader (`Became`), or, when the target does not stand within an election timeout, with nothing.
    """

    id: int
    target: Member = ""


class Compacted(msgspec.Struct, frozen=True, gc=False):
    """A durable snapshot of the state was made here; the log view may have lost what is below it."""

    snapshot: Snapshot


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The state has applied all up to `index`. Only asked for where `Settings.apply_ahead_max` is."""

    index: Index


class ChunkStored(msgspec.Struct, frozen=True, gc=False):
    """Answer to `StoreChunk`. `offset`: bytes here so far. `installed`: durable, whole, and now the state."""

    snapshot: Snapshot
    offset: int
    installed: bool


Event = (
    Elapsed
    | Received
    | Written
    | WriteFailed
    | Proposed
    | ReadAsked
    | ChangeAsked
    | TransferAsked
    | Compacted
    | Applied
    | ChunkStored
)


# -- what it asks for ----------------------------------------------------------------------------------


class Write(msgspec.Struct, frozen=True, gc=False):
    """Make durable: the term, the vote, and `entries`, which replace all from `entries[0].index` on."""

    seq: int
    term: Term
    vote: Member
    """"" for nobody."""
    entries: tuple[Entry, ...] = ()


class Send(msgspec.Struct, frozen=True, gc=False):
    """A message; it may be lost, doubled, late."""

    to: Member
    message: Message


class SendChunk(msgspec.Struct, frozen=True, gc=False):
    """Send `Chunk(term, round, snapshot, offset, ...)` with up to `bytes_max` of the snapshot's body.

    A runtime that has this snapshot no longer drops the effect: after a while the newest one is offered.
    """

    to: Member
    term: Term
    round: int
    snapshot: Snapshot
    offset: int
    bytes_max: int


class StoreChunk(msgspec.Struct, frozen=True, gc=False):
    """Keep a piece of a snapshot; when `done`, make it durable and install it. Answered by `ChunkStored`.

    A piece at offset 0 begins anew, whatever is here: two leaders' snapshots of one index may differ in their
    bytes. One that does not begin where the last one ended is not kept; the answer says how much is here.
    To install empties the log, and comes after every `Apply` asked for before. No `Write` is unanswered when
    the last piece is handed over, and the log does not hold the snapshot's last entry.
    """

    snapshot: Snapshot
    offset: int
    data: bytes
    done: bool


class Apply(msgspec.Struct, frozen=True, gc=False):
    """Committed, durable here, in order."""

    entries: tuple[Entry, ...]


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What `id` asked for stands in the leader's log from `index` on, in `term`. Not yet committed.

    Where another term is applied at that index, they never will be.
    """

    id: int
    term: Term
    index: Index


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Not begun. `leader`: who might, "" if nobody is known."""

    id: int
    reason: Declined
    leader: Member


class ReadReady(msgspec.Struct, frozen=True, gc=False):
    """Answer read `id` from a state that has applied at least `index`."""

    id: int
    index: Index


class Became(msgspec.Struct, frozen=True, gc=False):
    """A change of role, term or leader, for logs, waiting clients and leases."""

    role: Role
    term: Term
    leader: Member


Effect = Write | Send | SendChunk | StoreChunk | Apply | Accepted | Refused | ReadReady | Became
