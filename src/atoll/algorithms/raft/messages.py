"""Messages: what the members of one Raft cluster say to each other, and what stands in their log.

Letters between members. Each carries its writer's term, answers too, so that a letter from another time is
known by its stamp and not by luck. They are plain records, and become the bytes on the wire as they are.

Source: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (2014), figure 2;
Ongaro, Consensus: Bridging Theory and Practice (2014), chapters 3 to 6 and 9.6.
Departure: `round` numbers every Append and Chunk of a leader; its echo proves that the leader was heard after
that moment, for reads and for check-quorum. Answers carry hints of a conflict.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

Term = int
Index = int
Member = str
"""A member's name, unique in its cluster for ever; never an address."""


class Kind(IntEnum):
    """What an entry is for."""

    EMPTY = 0  # a new leader's first entry: it commits those of earlier terms
    COMMAND = 1  # the state machine's
    MEMBERSHIP = 2  # data: a packed Membership


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of the log. `client` and `sequence` make a repeated command a no-op; 0: it asks for none."""

    term: Term
    index: Index
    kind: Kind
    data: bytes
    client: int = 0
    sequence: int = 0


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """Who counts. `outgoing` is not empty while two majorities are needed (joint consensus)."""

    voters: tuple[Member, ...]
    learners: tuple[Member, ...] = ()
    outgoing: tuple[Member, ...] = ()
    places: dict[Member, str] = {}
    """Where each is reached, for the runtime; the machine only carries it."""


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot stands for: everything up to `index`. Its bytes are the runtime's."""

    index: Index
    term: Term
    membership: Membership
    size: int = 0
    """Bytes of its body; 0 in a machine that never sends it."""


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Will you vote for me? `pre`: would you; nobody's term moves. `forced`: a transfer, so leaders yield."""

    term: Term
    last_index: Index
    last_term: Term
    pre: bool = False
    forced: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`term`: of the voter now. `asked`: the term that the request was for."""

    term: Term
    asked: Term
    granted: bool
    pre: bool = False


class Append(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Entries after (`prev_index`, `prev_term`); without entries a heartbeat."""

    term: Term
    round: int
    prev_index: Index
    prev_term: Term
    commit: Index
    entries: tuple[Entry, ...] = ()


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """`ok`: my durable log agrees with yours up to `match`. Else I lack the entry before yours, at `match`.

    Then the hint says where to try next: the newest entry of mine, not above `match`, whose term is no later
    than the one that was expected there.
    A heartbeat is answered at once, entries when they are written: `match` counts only what is durable.
    """

    term: Term
    round: int
    ok: bool
    match: Index
    hint_index: Index = 0
    hint_term: Term = 0


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A piece of a snapshot's body at `offset`; `done`: the last one."""

    term: Term
    round: int
    snapshot: Snapshot
    offset: int
    data: bytes
    done: bool


class ChunkReply(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """`offset`: how much of the snapshot at `index` is here; the leader goes on there. `done`: installed."""

    term: Term
    round: int
    index: Index
    offset: int
    done: bool = False


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Stand for election at once: the leader hands over."""

    term: Term


class ReadForward(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """A follower asks for a read index. `id` is unique to the asker and never used again."""

    term: Term
    id: int


class ReadAnswer(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """`index` 0: I cannot say; ask again with a new id."""

    term: Term
    id: int
    index: Index


Message = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Chunk
    | ChunkReply
    | TimeoutNow
    | ReadForward
    | ReadAnswer
)
