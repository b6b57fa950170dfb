"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from atoll.blocks.members import Members as AsyncMembers
from atoll.blocks.members import Peer, Settings, Status
from atoll.ports.observer import MemberEvent
from atoll.sync import portal

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Members:
    """Being a member of a group, for one `async with`, and seeing the others."""

    def __init__(
        self,
        name: str,
        *,
        listen: str = "127.0.0.1:7946",
        advertise: str | None = None,
        seeds: Sequence[str] = (),
        secret: str | bytes | Sequence[str | bytes] | None = None,
        metadata: Mapping[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._inner = AsyncMembers(
            name,
            listen=listen,
            advertise=advertise,
            seeds=seeds,
            secret=secret,
            metadata=metadata,
            settings=settings,
        )

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Self:
        portal.enter(self._inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.leave(self._inner, kind, error, trace)

    @property
    def address(self) -> str:
        """Where others reach it; known once the block is entered."""
        return self._inner.address

    def alive(self) -> list[Peer]:
        """Who is in, by name, this one too. A suspected one is still in."""
        return portal.run(portal.called(lambda: self._inner.alive()))

    def peer(self, name: str) -> Peer | None:
        """What is believed of `name`, also where it failed or left; None if it was never heard of."""
        return portal.run(portal.called(lambda: self._inner.peer(name)))

    def events(self) -> Iterator[MemberEvent]:
        """A MemberJoined for each other one that is in, then what changes; ends with the block."""
        return portal.iterate(self._inner.events())

    def watch(self) -> Iterator[list[Peer]]:
        """Who is in, this one too, now and whenever that has changed; several changes may come as one."""
        return portal.iterate(self._inner.watch())

    def ready(self, wait_s: float = 30.0) -> None:
        """Wait until a seed has let this one in; NotReady after `wait_s`. Without seeds it is in at once."""
        portal.run(self._inner.ready(wait_s))

    def status(self) -> Status:
        """Numbers of the group as seen from here."""
        return portal.run(portal.called(lambda: self._inner.status()))

    @property
    def metadata(self) -> Mapping[str, str]:
        """What it says of itself."""
        return self._inner.metadata

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Say this of itself from now on; the others are told MemberUpdated."""
        portal.run(portal.called(lambda: self._inner.describe(metadata)))

    def rotate(self, secret: str | bytes | Sequence[str | bytes]) -> None:
        """Another ring from now on. First give [old, new] to all, then [new, old] to all, then new."""
        portal.run(portal.called(lambda: self._inner.rotate(secret)))
