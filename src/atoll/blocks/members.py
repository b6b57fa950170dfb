"""Members: who is here, told by the members to each other, without a server.

A village without a registry office. Everybody looks in on somebody now and then, and passes on what was
heard. Whoever does not answer is asked for by others too, and has time to object before he is counted as
gone.

Promise: whoever joined through one of the seeds is known to all within seconds; one that dies is found by
all; one that is only slow or paused is suspected first, and may object. Who leaves in order is not called
failed.
What can break it: it is news, not a right. Both sides of a partition go on, each without the other; nobody is
stopped. For what only one may do take a Lock or an Election.
Proved by: tests/blocks/test_members.py, tests/blocks/test_members_fifty.py,
tests/blocks/test_members_encrypted.py
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from atoll import clock
from atoll.algorithms.swim import events as swim
from atoll.algorithms.swim.machine import Status as Status
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.messages import NAME_BYTES_MAX, State
from atoll.algorithms.swim.settings import Settings as Settings
from atoll.blocks.ear import Ear
from atoll.blocks.envelope import ring_of
from atoll.blocks.gossiping import Gossip
from atoll.blocks.lock import checked_name
from atoll.blocks.post import Traffic, literal, resolved, shown
from atoll.blocks.session import finished, in_background
from atoll.errors import ConfigurationError, NotReady, Taken, UsedAfterFork
from atoll.ports.observer import (
    MemberEvent,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberSuspected,
    MemberUpdated,
    emit,
)

log = logging.getLogger("atoll.members")

JOIN_S = 5.0
"""How long the beginning of the block waits for seeds that neither answer nor refuse."""
_STATES = {State.ALIVE: "alive", State.SUSPECT: "suspected", State.FAILED: "failed", State.LEFT: "left"}
_EVENTS: dict[type, type[MemberEvent]] = {
    swim.Joined: MemberJoined,
    swim.Suspected: MemberSuspected,
    swim.Refuted: MemberRefuted,
    swim.Failed: MemberFailed,
    swim.Left: MemberLeft,
    swim.Updated: MemberUpdated,
}
_metadata = msgspec.msgpack.Decoder(dict[str, str])


class Peer(NamedTuple):
    """One member as this one sees it. `state`: "alive", "suspected", "failed" or "left"."""

    name: str
    address: str
    metadata: Mapping[str, str]
    state: str


class Members:
    """Being a member of a group, for one `async with`, and seeing the others.

    `name`: unique in the group. `listen`: host and port, for datagrams and streams; port 0 takes a free one.
    `advertise`: where others reach it, if that is not `listen`. `seeds`: addresses of some members, its own
    may be among them; they are tried until one answers. `secret`: at least 16 random bytes, the same for all;
    of several the first seals, each opens. Without one it stays on loopback. `metadata`: text to text, at
    most 512 bytes.
    """

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
        checked_name("member", name)
        if len(name.encode()) > NAME_BYTES_MAX:
            raise ConfigurationError(f"found a name of {len(name.encode())} bytes; at most {NAME_BYTES_MAX}")
        if isinstance(seeds, str):
            raise ConfigurationError(f"found seeds={seeds!r}; expected a list of addresses: [{seeds!r}]")
        self.name, self.settings = name, settings or Settings()
        self._address = ""
        self._listen, self._advertise, self._seeds = listen, advertise, tuple(seeds)
        self._ring = ring_of(secret)
        self._said: dict[str, str] = dict(metadata or {})
        self._packed = self._pack(self._said)
        self._gossip: Gossip | None = None
        self._pid = os.getpid()
        self._ears: set[Ear] = set()
        self._bells: set[asyncio.Event] = set()
        self._introduced, self._over = asyncio.Event(), asyncio.Event()
        self._out: str | None = None

    def __repr__(self) -> str:
        state = "not open" if self._gossip is None else self._out or ("left" if self._over.is_set() else "in")
        return f"<Members as {self.name!r} at {self.address or self._listen}, {state}>"

    @property
    def address(self) -> str:
        """Where others reach it; known once the block is entered."""
        return self._address

    # -- who is here -----------------------------------------------------------------------------------

    def alive(self) -> list[Peer]:
        """Who is in, by name, this one too. A suspected one is still in."""
        return sorted((_peer(member) for member in self._machine().members()), key=lambda peer: peer.name)

    def peer(self, name: str) -> Peer | None:
        """What is believed of `name`, also where it failed or left; None if it was never heard of."""
        member = self._machine().member(name)
        return None if member is None else _peer(member)

    async def events(self) -> AsyncGenerator[MemberEvent]:
        """A MemberJoined for each other one that is in, then what changes; ends with the block.

        A reader that is far behind is told only what is different now. Taken where this one was put out,
        because another living process has its name.
        """
        self._machine()
        ear = Ear(self._present())
        self._ears.add(ear)
        try:
            while (event := await ear.next(self._present)) is not None:
                yield event
        finally:
            self._ears.discard(ear)
        self._refuse_if_out()

    async def watch(self) -> AsyncGenerator[list[Peer]]:
        """Who is in, this one too, now and whenever that has changed; several changes may come as one."""
        bell = asyncio.Event()
        self._bells.add(bell)
        told: list[Peer] | None = None
        try:
            while not self._over.is_set():
                bell.clear()
                now = self.alive()
                if now != told:
                    told = now
                    yield list(now)
                await bell.wait()
        finally:
            self._bells.discard(bell)
        self._refuse_if_out()

    async def ready(self, wait_s: float = 30.0) -> None:
        """Wait until a seed has let this one in; NotReady after `wait_s`. Without seeds it is in at once."""
        self._machine()
        try:
            async with asyncio.timeout(clock.remaining_s(wait_s)):
                await self._introduced.wait()
        except TimeoutError:
            raise NotReady(
                f"none of the seeds {', '.join(self._seeds)} has let {self.name} in for {wait_s:.3g} s. Is "
                "one of them running, reached from here by UDP and TCP, and with the same secret? Tried again"
            ) from None
        self._refuse_if_out()

    def status(self) -> Status:
        """Numbers of the group as seen from here."""
        return self._machine().status()

    @property
    def traffic(self) -> Traffic:
        """What came and went since the block was entered."""
        return self._open().post.traffic

    # -- what it says of itself ------------------------------------------------------------------------

    @property
    def metadata(self) -> Mapping[str, str]:
        """What it says of itself."""
        return dict(self._said)

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Say this of itself from now on; the others are told MemberUpdated."""
        self._refuse_if_out()
        packed = self._pack(metadata)
        self._said, self._packed = dict(metadata), packed
        if self._gossip is not None:
            self._gossip.step(swim.MetadataSet(packed))
            self._wake()

    def rotate(self, secret: str | bytes | Sequence[str | bytes]) -> None:
        """Another ring from now on. First give [old, new] to all, then [new, old] to all, then new."""
        ring = ring_of(secret)
        if not self._ring or not ring:
            raise ConfigurationError("a member goes on with a secret if it began with one, and only then.")
        self._ring = ring
        if self._gossip is not None:
            self._gossip.envelopes.turn(ring)
            self._gossip.post.turn()

    # -- the block -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._gossip is not None:
            raise ConfigurationError(f"{self!r} was entered before: one Members for one block.")
        host, port = await resolved("listen", self._listen)
        self._check_place(host)
        gossip = self._gossip = Gossip(self.name, self.settings, self._ring, self._tell)
        try:
            port = await gossip.post.open(host, port)
            reached = await resolved("advertise", self._advertise) if self._advertise else (host, port)
            self._address = shown(*reached)
            gossip.begin(self.address, self._packed)
            await self._join(gossip)
        except BaseException:
            await finished(f"closing {self.name}", self._close(gossip))
            raise
        return self

    async def _join(self, gossip: Gossip) -> None:
        """Meet the seeds once; later the machine goes on by itself."""
        others = tuple(seed for seed in self._seeds if seed not in (self.address, self._listen))
        if not others:
            self._introduced.set()
            return
        gossip.step(swim.JoinAsked(others))
        met = in_background(self._introduced.wait())
        tried = in_background(gossip.asked())
        await asyncio.wait(
            [met, tried], timeout=clock.remaining_s(JOIN_S), return_when=asyncio.FIRST_COMPLETED
        )
        met.cancel()
        tried.cancel()
        self._refuse_if_out()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid and self._gossip is not None:
            await finished(
                f"leaving as {self.name}", self._leave(self._gossip), self.settings.leave_s + JOIN_S
            )

    async def _leave(self, gossip: Gossip) -> None:
        gossip.step(swim.LeaveAsked())
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.leave_s + 1):
                await self._over.wait()
        await self._close(gossip)

    async def _close(self, gossip: Gossip) -> None:
        self._end()
        await gossip.close()

    def _end(self) -> None:
        self._over.set()
        for ear in self._ears:
            ear.close()
        self._wake()

    def _wake(self) -> None:
        for bell in self._bells:
            bell.set()

    # -- what is told ----------------------------------------------------------------------------------

    def _tell(self, told: swim.Told) -> None:
        match told:
            case swim.Introduced():
                self._introduced.set()
            case swim.Departed():
                self._over.set()
            case swim.NameTaken(member):
                self._put_out(member)
            case _ if told.member.name != self.name:
                event = self._event(told)
                loud = isinstance(event, MemberFailed)
                what = type(event).__name__.removeprefix("Member").lower()
                log.log(logging.WARNING if loud else logging.INFO, "%s: %s %s", self.name, event.name, what)
                for ear in self._ears:
                    ear.hear(event)
                self._wake()
                emit(event)

    def _put_out(self, rival: swim.Member) -> None:
        self._out = f"another process{' at ' * bool(rival.address)}{rival.address} has the name {self.name}"
        log.error("%s is not a member any more: %s", self.name, self._out)
        self._introduced.set()
        self._end()

    def _event(self, told: swim.Told) -> MemberEvent:
        assert not isinstance(told, swim.Introduced | swim.Departed)
        peer = _peer(told.member)
        return _EVENTS[type(told)](
            at=clock.wall_now(),
            name=peer.name,
            seen_by=self.name,
            address=peer.address,
            metadata=peer.metadata,
        )

    def _present(self) -> list[MemberEvent]:
        """MemberJoined of each other one that is in, and MemberSuspected where it is."""
        found = []
        for member in self._machine().members():
            if member.name != self.name:
                found.append(self._event(swim.Joined(member)))
                if member.state is State.SUSPECT:
                    found.append(self._event(swim.Suspected(member)))
        return found

    # -- what is refused -------------------------------------------------------------------------------

    def _open(self) -> Gossip:
        if os.getpid() != self._pid:
            raise UsedAfterFork(
                f"{self.name} is a member in the parent process: join under another name here."
            )
        if self._gossip is None or not self.address:
            raise ConfigurationError(f"{self!r}: use it inside of `async with`.")
        return self._gossip

    def _machine(self) -> Swim:
        self._refuse_if_out()
        return self._open().machine

    def _refuse_if_out(self) -> None:
        if self._out is not None:
            raise Taken(f"{self._out}. Give each member a name of its own", owner=self.name)

    def _check_place(self, host: str) -> None:
        address = literal(host)
        if address is not None and address.is_unspecified and self._advertise is None:
            raise ConfigurationError(
                f"found listen={self._listen!r}, which is every address of this machine; expected "
                "advertise='10.0.0.7:7946' beside it: the one at which others reach it."
            )
        if not self._ring and (address is None or not address.is_loopback):
            raise ConfigurationError(
                f"found listen={self._listen!r} without a secret: anybody on that network could join, and "
                "say who has failed. Give secret=, the same to all members; without one it stays on loopback."
            )

    def _pack(self, metadata: Mapping[str, str]) -> bytes:
        if not all(isinstance(part, str) for pair in metadata.items() for part in pair):
            raise ConfigurationError(f"found metadata={dict(metadata)!r}; expected text to text")
        packed = msgspec.msgpack.encode(dict(metadata)) if metadata else b""
        most = self.settings.metadata_bytes_max
        if len(packed) > most:
            raise ConfigurationError(
                f"found {len(packed)} bytes of metadata; expected at most {most}: it travels with every word "
                "of this member. Keep what is long elsewhere, and its address here."
            )
        return packed


def _peer(member: swim.Member) -> Peer:
    try:
        metadata = _metadata.decode(member.metadata) if member.metadata else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        metadata = {}
    return Peer(member.name, member.address, metadata, _STATES[member.state])
