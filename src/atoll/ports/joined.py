"""Joined: what happens inside the user's own SQL transaction.

A note pinned to the parcel, not sent after it: it arrives if and only if the parcel does. Outbox,
inbox and the SQL fence are these four verbs and nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from atoll.errors import ConfigurationError
from atoll.ports.broker import Message
from atoll.ports.participant import Participant
from atoll.ports.store import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A message waiting in an outbox. `position` rises in the order of the puts."""

    position: int
    queue: str
    message: Message
    put_at: float


class Joined(Protocol):
    """Verbs on a transaction that the caller has open. None of them commits or rolls back."""

    async def once(self, tx: Any, scope: str, id: str) -> bool:
        """True the first time `id` is seen in `scope`; waits until a rival has committed or not."""
        ...

    async def fence(self, tx: Any, resource: str, token: Token) -> None:
        """Note `token` for `resource`; Refused if a greater one is noted. First statement, reads included."""
        ...

    async def put(self, tx: Any, queue: str, messages: Sequence[Message]) -> None:
        """Stage messages; they leave after the commit, or not at all."""
        ...

    def schema(self) -> str:
        """The tables this needs, as SQL to read before running."""
        ...


class Schema(Protocol):
    """Atoll's tables in a database: to be read, and to be made when somebody says so (`atoll schema`)."""

    def text(self) -> str:
        """The SQL; running it again changes nothing."""
        ...

    async def make(self) -> Sequence[str]:
        """Make what is missing, all of it or nothing; answers the names of the tables that were made."""
        ...


class Relaying(Protocol):
    """The other half of an outbox: take what was committed, forget what has been sent."""

    async def staged(self, limit: int, *, claim_s: float, queues: Sequence[str]) -> Sequence[Staged]:
        """The oldest unclaimed of these queues only, claimed for `claim_s`; a courtesy, not a lock."""
        ...

    async def forget(self, positions: Sequence[int]) -> None: ...

    async def waiting(self) -> tuple[int, float]:
        """How many are staged, and the age in seconds of the oldest (0 if none)."""
        ...

    async def queues(self) -> Sequence[str]:
        """The names of the queues that something is staged for; reads the whole outbox."""
        ...


class Database(Protocol):
    """A database of the user's: its transactions, and what Atoll does inside them."""

    @property
    def name(self) -> str:
        """Names it in errors, decisions and reports; unique among the databases of a transaction."""
        ...

    @property
    def joined(self) -> Joined: ...
    @property
    def relaying(self) -> Relaying: ...
    @property
    def participant(self) -> Participant | None: ...
    @property
    def schema(self) -> Schema: ...

    async def open(self) -> None:
        """Connect, and make or check Atoll's tables where the engine may."""
        ...

    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    def begin(self) -> AbstractAsyncContextManager[Any]:
        """A transaction in the user's own terms: commits at the end, rolls back on an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[Any]:
        """The same for reading only: one snapshot, and nothing done in it stays."""
        ...


class Adapter(Protocol):
    """Recognises a transaction object of some library, and answers the Joined that works on it."""

    def __call__(self, tx: object) -> Joined | None: ...


_adapters: list[Adapter] = []


def register(adapter: Adapter) -> None:
    """Engines call this when they are imported; the newest is asked first."""
    if adapter not in _adapters:
        _adapters.insert(0, adapter)


def joined_on(tx: object) -> Joined:
    """The Joined for an open transaction of any library an engine has adapted."""
    for adapter in _adapters:
        if (found := adapter(tx)) is not None:
            return found
    kind = f"{type(tx).__module__}.{type(tx).__qualname__}"
    raise ConfigurationError(
        f"found a transaction of type {kind}, which no engine opened here understands. Expected "
        "one from a database made known with `atoll.database(...)`: a SQLAlchemy session, or what "
        "`database.begin()` gives. "
        "Write `orders = atoll.database(engine)` once where the engine is made."
    )
