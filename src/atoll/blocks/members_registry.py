"""A registry kept by the members themselves: who serves what stands in what each says of itself.

A name plate at each door, read out by the village gossip. Whoever moves away takes the plate along, and who
does not answer any more is not sent anybody.

Promise: an instance is listed on all members from its announcement until it is taken back or its member is
gone; one whose member is suspected is listed with weight 0. What was listed last stays where this member is
cut off.
What can break it: the plate is small: all that a member announces has room in 512 bytes of metadata.
Proved by: tests/blocks/test_members_registry.py
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

import msgspec

from atoll.algorithms.swim.suspicion import bounds
from atoll.blocks.members import Members, Peer
from atoll.errors import Taken
from atoll.ports.registry import Instance, RegistryClaims

PREFIX = "@"


class Plate(msgspec.Struct, frozen=True, array_like=True):
    """What stands in the metadata under "@service"."""

    id: str
    url: str
    weight: int = 1
    labels: dict[str, str] = {}


class MembersRegistry:
    """The port Registry over members that are open. One instance of each service a member."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def __repr__(self) -> str:
        return f"<MembersRegistry of {self._members!r}>"

    async def open(self) -> RegistryClaims:
        """How late news may be among as many members as there are now, where few packets are lost."""
        settings, living = self._members.settings, len(self._members.alive())
        told_s = settings.probe_interval_s + 2 * settings.gossip_interval_s * math.ceil(math.log2(living + 1))
        found_s = (2 * living - 1) * settings.probe_interval_s + bounds(settings, living)[1]
        return RegistryClaims(appears_max_s=told_s, disappears_max_s=found_s + told_s, announces=True)

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        """Listed for the length of the block. ConfigurationError where the metadata has no room for it."""
        key = PREFIX + instance.service
        if key in self._members.metadata:
            raise Taken(f"{self._members.name} announces {instance.service} already: one instance a member")
        plate = Plate(instance.id, instance.url, instance.weight, dict(instance.labels))
        self._members.describe({**self._members.metadata, key: msgspec.json.encode(plate).decode()})
        try:
            yield
        finally:
            rest = {name: value for name, value in self._members.metadata.items() if name != key}
            with suppress(Taken):  # put out: nobody hears it any more
                self._members.describe(rest)

    async def resolve(self, service: str) -> Sequence[Instance]:
        """Who serves it, by id."""
        return _serving(service, self._members.alive())

    async def observe(self, service: str) -> AsyncGenerator[Sequence[Instance]]:
        """Who serves it, now and whenever that has changed; ends with the members' block."""
        told: list[Instance] | None = None
        async with aclosing(self._members.watch()) as news:
            async for peers in news:
                now = _serving(service, peers)
                if now != told:
                    told = now
                    yield list(now)


def _serving(service: str, peers: Sequence[Peer]) -> list[Instance]:
    found = []
    for peer in peers:
        try:
            plate = msgspec.json.decode(peer.metadata.get(PREFIX + service, ""), type=Plate)
        except (msgspec.DecodeError, RecursionError):
            continue
        weight = plate.weight if peer.state == "alive" else 0
        found.append(
            Instance(service=service, id=plate.id, url=plate.url, weight=weight, labels=plate.labels)
        )
    return sorted(found, key=lambda instance: instance.id)
