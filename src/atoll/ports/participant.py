"""Participant: a database that can promise to commit before it does.

After PREPARED it has signed: whatever happens, it can still do either. From then on a commit never
fails for a reason in the data, in any process, also after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class Isolates(Enum):
    """What a prepared branch keeps others from writing."""

    ROWS = "rows"
    TABLES = "tables"
    FILE = "file"


class Survives(Enum):
    """What a prepared branch outlives."""

    PROCESS = "process"
    HOST = "host"
    FAILOVER = "failover"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantClaims:
    """What the database promises of prepared branches."""

    isolates: Isolates
    survives: Survives
    parallel_prepare: bool
    """Several branches may be prepared at the same time without deadlock."""


class Outcome(Enum):
    """How a transaction ended."""

    COMMIT = "commit"
    ABORT = "abort"


class Vote(Enum):
    """A branch's answer to prepare; a no is raised as NotApplied."""

    PREPARED = "prepared"
    READ_ONLY = "read_only"  # nothing was written; it is over and takes no part in phase two


class Finished(Enum):
    """What finishing a branch did."""

    DONE = "done"
    ABSENT = "absent"  # no such branch is prepared here: finished before, or never prepared
    BUSY = "busy"  # its own session still has it; ask again


@dataclass(frozen=True, slots=True, kw_only=True)
class InDoubt:
    """A prepared branch that waits for its decision. `prepared_at`: wall clock; `locks`: for people."""

    id: str
    prepared_at: float
    locks: str = ""


class Branch(Protocol):
    """One database's part of a transaction, open in this process."""

    @property
    def id(self) -> str: ...
    @property
    def tx(self) -> Any:
        """The database's own connection or session, to work on."""
        ...

    async def prepare(self) -> Vote: ...
    async def abort(self) -> None:
        """Undo it; also before prepare. Nothing happens if it is over."""
        ...


class Participant(Protocol):
    """Ids have at most 64 bytes and start with what `in_doubt` filters by."""

    @property
    def name(self) -> str: ...
    async def open(self) -> ParticipantClaims: ...
    async def begin(self, id: str) -> Branch: ...

    async def finish(self, id: str, outcome: Outcome) -> Finished:
        """Commit or abort a prepared branch, from any process, any number of times."""
        ...

    async def in_doubt(self, prefix: str = "") -> Sequence[InDoubt]: ...
