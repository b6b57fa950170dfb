"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar, TypeVarTuple

from atoll.blocks.barrier import Barrier as AsyncBarrier
from atoll.blocks.barrier import DoubleBarrier as AsyncDoubleBarrier
from atoll.blocks.config import Config as AsyncConfig
from atoll.blocks.config import Version
from atoll.blocks.counter import Counter as AsyncCounter
from atoll.blocks.latch import Latch as AsyncLatch
from atoll.blocks.membership import Group as AsyncGroup
from atoll.blocks.membership import Member
from atoll.blocks.membership import Membership as AsyncMembership
from atoll.sync import portal
from atoll.sync.handles import Store

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Barrier:
    """A barrier by name, passed again and again: `await Barrier(state, "x", parties=3).wait()`."""

    def __init__(
        self, store: Store, name: str, *, parties: int, ttl_s: float = 15.0, owner: str | None = None
    ) -> None:
        self._inner = AsyncBarrier(portal.inner(store), name, parties=parties, ttl_s=ttl_s, owner=owner)

    def __repr__(self) -> str:
        return repr(self._inner)

    def wait(self, wait_s: float | None = None) -> int:
        """Until `parties` have come; answers the generation passed, 0 for the first."""
        return portal.run(self._inner.wait(wait_s))


class DoubleBarrier:
    """All begin together and all have ended before one goes on: `async with DoubleBarrier(...):`."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        parties: int,
        ttl_s: float = 15.0,
        wait_s: float | None = None,
        owner: str | None = None,
    ) -> None:
        self._inner = AsyncDoubleBarrier(
            portal.inner(store), name, parties=parties, ttl_s=ttl_s, wait_s=wait_s, owner=owner
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> int:
        return portal.enter(self._inner)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)


class Latch:
    """A latch by name. All who name it must mean the same `count`: else ConfigurationError."""

    def __init__(self, store: Store, name: str, *, count: int) -> None:
        self._inner = AsyncLatch(portal.inner(store), name, count=count)

    def __repr__(self) -> str:
        return repr(self._inner)

    def count_down(self, number: int = 1) -> int:
        """Count, and answer how many are left; an open latch stays at 0."""
        return portal.run(self._inner.count_down(number))

    def left(self) -> int:
        """How many are missing; 0: it is open."""
        return portal.run(self._inner.left())

    def wait(self, wait_s: float | None = None) -> None:
        """Until it is open, at most `wait_s` and the deadline in force; then NotReady. 0: only look."""
        portal.run(self._inner.wait(wait_s))

    def reset(self) -> None:
        """Close it again, with nothing counted. A count whose answer is awaited still may count after it."""
        portal.run(self._inner.reset())


class Counter:
    """A whole number by name, which starts at 0. Any process may add to it."""

    def __init__(self, store: Store, name: str) -> None:
        self._inner = AsyncCounter(portal.inner(store), name)

    def __repr__(self) -> str:
        return repr(self._inner)

    def add(self, number: int = 1) -> int:
        """Add it, and answer the number after that. One read and one write while nobody else writes."""
        return portal.run(self._inner.add(number))

    def get(self) -> int:
        """The number now."""
        return portal.run(self._inner.get())

    def watch(self) -> Iterator[int]:
        """The number, now and when it has changed; quick changes are told together."""
        return portal.iterate(self._inner.watch())


class Group:
    """A group by name: join it, list it, watch it."""

    def __init__(self, store: Store, name: str, *, ttl_s: float = 15.0) -> None:
        self._inner = AsyncGroup(portal.inner(store), name, ttl_s=ttl_s)

    def __repr__(self) -> str:
        return repr(self._inner)

    def join(self, name: str | None = None, *, about: str = "") -> Membership:
        """Be a member for the length of an `async with`."""
        return Membership(self._inner.join(name, about=about))

    def members(self) -> list[Member]:
        """Who is here, the longest first."""
        return portal.run(self._inner.members())

    def watch(self) -> Iterator[list[Member]]:
        """Who is here, now and whenever that has changed."""
        return portal.iterate(self._inner.watch())


class Membership:
    """Being a member, for one `async with`; made by `Group.join`."""

    def __init__(self, inner: AsyncMembership) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Membership:
        return Membership(portal.enter(self._inner))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    @property
    def name(self) -> str:
        """The name it joined with."""
        return self._inner.name

    @property
    def present(self) -> bool:
        """Whether its lease is certainly standing; False while it is cut off, and joins again."""
        return self._inner.present


class Config(Generic[T]):
    """A setting by name, of one type: msgspec, dataclass, pydantic or builtins."""

    def __init__(
        self, store: Store, name: str, kind: type[T], *, default: T | None = None, versions_max: int = 20
    ) -> None:
        self._inner = AsyncConfig(portal.inner(store), name, kind, default=default, versions_max=versions_max)

    def __repr__(self) -> str:
        return repr(self._inner)

    def get(self) -> T:
        """The value in force. NotReady if nothing was ever set and there is no default."""
        return portal.run(self._inner.get())

    def version(self) -> Version[T] | None:
        """The version in force; None if nothing was ever set."""
        return portal.run(self._inner.version())

    def history(self) -> list[Version[T]]:
        """The versions that are kept, the oldest first."""
        return portal.run(self._inner.history())

    def set(self, value: T, *, expected: int | None = None, by: str | None = None) -> int:
        """Put it in force everywhere; answers the new version's number."""
        return portal.run(self._inner.set(value, expected=expected, by=by))

    def roll_back(self, version: int, *, expected: int | None = None, by: str | None = None) -> int:
        """Put the value of an old version in force, as a new version; answers its number."""
        return portal.run(self._inner.roll_back(version, expected=expected, by=by))

    def watch(self) -> Iterator[T]:
        """The value in force, now and at each change; begins with the default while nothing was set."""
        return portal.iterate(self._inner.watch())
