"""Store: many keys in one transaction, with leases.

A ledger with one line per transaction. The line's number is the *revision*: it rises in commit order,
every answer carries it, and it is the whole proof: replay the lines and you must get the answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Entry, Register, Unmet


class Durable(Enum):
    """What an acknowledged write survives."""

    NONE = "none"  # the process's memory
    NODE = "node"  # a power cut on its node: forced to disk before the answer
    QUORUM = "quorum"  # the loss of a minority of nodes


class Reach(Enum):
    """Who can share it."""

    PROCESS = "process"
    HOST = "host"
    NETWORK = "network"


class Observing(Enum):
    """What an observer sees of quick changes."""

    COALESCED = "coalesced"  # some intermediate states are skipped, news may be late
    PROMPT = "prompt"  # every transaction, soon


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreClaims:
    """What the opened engine promises, read from the server itself. Times in seconds, sizes in bytes."""

    durable: Durable
    reach: Reach
    ttl_min_s: float = 0.0
    """The shortest lease granted; a shorter wish is granted this."""
    expiry_late_max_s: float
    """How long after its end a lease's keys may still stand."""
    never_early: bool = True
    """A lease never ends before the granted time by this host's lease clock."""
    key_bytes_max: int = 1024
    value_bytes_max: int
    operations_max: int
    """Compares and operations together, in one transaction."""
    dedupe_window_s: float = 0.0
    """How long a request_id is remembered; 0: not at all."""
    epoch_source: str
    """Where the epoch is kept and what raises it."""
    observe: Observing = Observing.PROMPT
    liveness_s: float = 10.0
    """An observation silent for longer than this raises WatchLost."""
    linearizable: bool = True
    incarnation: str = ""
    """Names this life of the server's data: system id and timeline, cluster id, replication id. Empty:
    the engine cannot tell one that was copied back."""
    forgets_at_failover: bool = False
    """An acknowledged write may vanish when a server fails over; exclusive recipes refuse this."""
    remedy: str = ""
    """What to change so that exclusion is kept here; empty where it is kept, or where nothing helps."""


class Token(NamedTuple):
    """Proof of when ownership began; a later owner's is greater. Compare as a pair, store as two integers.

    `epoch`: raised only when a store is restored, moved or bumped. `revision`: of the transaction
    that gave ownership, never of a place in a queue.
    """

    epoch: int
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.revision}"


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value` to `key`; with `lease` the key dies with it. Made by `put`."""

    key: str
    value: bytes
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key` if it is there. Made by `delete`."""

    key: str


Operation = Put | Delete


def put(key: str, value: bytes, *, lease: str | None = None) -> Put:
    """Write `value` to `key`. Without a lease, a lease the key had is dropped."""
    return Put(key, value, lease)


def delete(key: str) -> Delete:
    """Remove `key`; nothing happens if it is absent."""
    return Delete(key)


class Field(Enum):
    """What of an entry is compared."""

    REVISION = "revision"
    CREATE_REVISION = "create_revision"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Compare:
    """`key`'s field must equal `expected`. Revision ABSENT (0) means: no such key."""

    key: str
    field: Field
    expected: int | bytes

    def holds(self, entry: Entry | None) -> bool:
        """Whether the comparison is true of `entry` (None: the key is absent)."""
        match self.field:
            case Field.VALUE:
                return entry is not None and entry.value == self.expected
            case Field.REVISION:
                return (entry.revision if entry else 0) == self.expected
            case Field.CREATE_REVISION:
                return (entry.create_revision if entry else 0) == self.expected


def absent(key: str) -> Compare:
    """There must be no such key."""
    return Compare(key, Field.REVISION, 0)


def unchanged(key: str, revision: int) -> Compare:
    """The key's last write must still be `revision`."""
    return Compare(key, Field.REVISION, revision)


def created(key: str, create_revision: int) -> Compare:
    """The key must still live the life that began at `create_revision`."""
    return Compare(key, Field.CREATE_REVISION, create_revision)


def equals(key: str, value: bytes) -> Compare:
    """The key must be there with this value."""
    return Compare(key, Field.VALUE, value)


class Guard(Protocol):
    """A held lock or a term: makes a transaction happen only while it is held."""

    @property
    def owner_key(self) -> str: ...
    @property
    def token(self) -> Token: ...
    def check(self) -> None:
        """Raise LockLost or LeaderLost when the lease is over by this host's clock."""
        ...


class Ranged(NamedTuple):
    """Entries in key order, all as of one `revision`. `more`: the limit cut the list short."""

    entries: tuple[Entry, ...]
    revision: int
    more: bool = False


class Granted(NamedTuple):
    """A lease and the time it was really granted for, in seconds; may differ from the wish."""

    lease: str
    ttl_s: float


class Leasing(Protocol):
    """Ability: keys that die with a lease. Its end is an ordinary transaction that removes them all."""

    async def grant(self, ttl_s: float) -> Granted: ...

    async def keep_alive(self, lease: str) -> float:
        """Renew; answers the granted seconds, counted by the caller from the moment of *sending*.

        Raises LeaseOver when it has ended: a lease that is over never comes back.
        """
        ...

    async def revoke(self, lease: str) -> None:
        """End it now; its keys are removed in one transaction. Nothing happens if it is over."""
        ...

    async def remaining(self, lease: str) -> float | None:
        """Seconds it has left; None where it is over, or where the engine cannot know. For people to read."""
        ...


class Bookmark(NamedTuple):
    """A place in a store's history."""

    epoch: int
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction, whole: what it wrote and removed below the prefix. Both empty: a bookmark only."""

    at: Bookmark
    changed: tuple[Entry, ...]
    removed: tuple[str, ...]


class History(Protocol):
    """Ability: every transaction since a bookmark, none skipped."""

    def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        """One item per transaction after `after`, then as they happen. Raises Compacted, EpochChanged."""
        ...

    async def now(self) -> Bookmark: ...


class Moving(Protocol):
    """Ability: what `atoll store` does to a store that is restored, moved or copied."""

    async def bump(self, above: int = 0) -> int:
        """Raise the epoch to one more than both its own and `above`; answers the new one.

        Tokens and bookmarks of before are out of date then. It also accepts the server as it is now:
        where its incarnation had changed, exclusive use is open again.
        """
        ...

    async def freeze(self, note: str | None) -> None:
        """From now on every `transact` with operations is refused with ReadOnly, which quotes `note`.

        Leases still end and may be revoked, and a `request_id` that was applied before is still answered.
        None: takes writes again.
        """
        ...

    async def frozen(self) -> str | None:
        """The note it was frozen with, None while it takes writes."""
        ...


class Store(Register, Protocol):
    """What coordination stands on."""

    @property
    def leasing(self) -> Leasing | None: ...
    @property
    def history(self) -> History | None: ...
    @property
    def moving(self) -> Moving | None: ...
    @property
    def examining(self) -> Examining | None: ...
    @property
    def shadow(self) -> Store | None:
        """While this store is moving, the other one: exclusive recipes take what they take there too.

        After what they take here. None for a store that does not move.
        """
        ...

    async def epoch(self) -> int:
        """The store's epoch, the first half of every token; 1 for a store never restored or moved.

        Raises EpochUncertain where the server is not the one that the epoch was noted on (its
        incarnation changed: another timeline, cluster or replication id), until `moving.bump()`.
        """
        ...

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, in bytewise key order, as of one revision."""
        ...

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        """All of `then`, if all of `compare` hold, at one revision; else nothing, and Unmet says why.

        `guard` adds one comparison: its owner key's revision is its token's. When that one fails,
        Refused is raised. At most one lease in a transaction; a key at most once in `then`; a put
        under a lease that has ended raises LeaseOver. A `request_id` makes a retry exact for
        `dedupe_window_s`; successes only. A transaction without operations compares, writes
        nothing and answers the revision it was judged at.
        """
        ...
