"""MemoryBroker: the Broker port in this process.

A handle on a counter. `memory://` is a counter of its own for each handle; `memory://name` is one for
every handle of that name in this process. A forked child has counters of its own, empty ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Self

from atoll import clock
from atoll.engines.memory.bell import Bell
from atoll.engines.memory.counter import Counter
from atoll.engines.memory.knobs import BrokerKnobs
from atoll.engines.memory.link import Link
from atoll.engines.memory.named import Named, Place
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.address import Address
from atoll.ports.broker import (
    Accepted,
    BrokerClaims,
    Dead,
    Depth,
    Inspecting,
    Leased,
    Message,
    Settled,
    Taken,
)
from atoll.ports.store import Durable, Reach

TICK_S = 0.001
HEADERS_MAX = 32
HEADER_BYTES_MAX = 4096


class MemoryBroker:
    """A broker that lives and dies with this process. Durable: NONE. Reach: PROCESS."""

    world_type: type[Counter] = Counter
    _named: Named[Counter] = Named()

    def __init__(self, *, name: str = "", knobs: BrokerKnobs | None = None) -> None:
        self._knobs = knobs or BrokerKnobs()
        self._link = Link(
            latency_s=self._knobs.latency_s,
            request_loss=self._knobs.request_loss,
            reply_loss=self._knobs.reply_loss,
            ceiling_s=self._knobs.ceiling_s,
        )
        self._url = str(Address(scheme="memory", host=name))
        self._place = Place(name, self._knobs, lambda: self.world_type(self._knobs), self._named)
        self._leased = MemoryLeased(self) if self._knobs.leased else None
        self._inspecting = MemoryInspecting(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The broker that `memory://name?knob=value` names."""
        name = address.host + (f"/{address.path}" if address.path else "")
        broker = cls(name=name, knobs=address.parse_options(BrokerKnobs))
        broker._url = str(address)
        return broker

    def __repr__(self) -> str:
        return f"<Broker {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leased(self) -> Leased | None:
        return self._leased

    @property
    def inspecting(self) -> Inspecting | None:
        return self._inspecting

    @property
    def delaying(self) -> bool:
        return True

    @property
    def world(self) -> Counter:
        """The state behind this handle, made at its first use in this process."""
        return self._place.world

    async def open(self) -> BrokerClaims:
        """Answer the claims; there is nothing to connect to."""
        knobs = self.world.knobs
        return BrokerClaims(
            durable=Durable.NONE,
            reach=Reach.PROCESS,
            body_bytes_max=knobs.body_bytes_max,
            messages_max=knobs.messages_max,
            dedupe_window_s=knobs.dedupe_window_s,
            uncounts=knobs.uncounts,
        )

    async def close(self) -> None:
        """Nothing to give back; what waits stays. A verb reopens."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        """All of them or none; see the port."""
        if len(messages) > self._knobs.messages_max:
            raise LimitReached(
                f"{len(messages)} messages in one put; at most {self._knobs.messages_max} "
                "(messages_max). Split it."
            )
        for message in messages:
            check(message, self._knobs)
        kept = tuple(messages)
        return await self._link.call(f"put into {queue!r}", lambda: self.world.put(queue, kept))

    async def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        """See the port. Waits for a put, a delay's or a lease's end; asks nothing in between."""
        if most < 1 or not lease_s > 0 or not wait_s >= 0:
            raise ConfigurationError(
                f"found most={most}, lease_s={lease_s}, wait_s={wait_s}; expected most of 1 or more, lease_s "
                "greater than 0, wait_s of 0 or more."
            )
        world = self.world
        until = clock.loop_now() + clock.remaining_s(wait_s)
        bell = Bell()
        world.listen(queue, bell)
        try:
            while True:
                bell.clear()
                sent = clock.lease_now()
                taken = await self._link.call(
                    f"take from {queue!r}", partial(world.take, queue, most, lease_s, sent)
                )
                left = until - clock.loop_now()
                if taken or left <= 0:
                    return taken
                await bell.wait(min(left, max(world.next_due_s(queue), TICK_S)))
        finally:
            world.leave(queue, bell)

    async def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        kept = tuple(receipts)
        return await self._link.call("acknowledge", lambda: self.world.acknowledge(queue, kept))

    async def give_back(
        self, queue: str, receipt: str, *, delay_s: float = 0.0, counted: bool = True
    ) -> Settled:
        if not delay_s >= 0:
            raise ConfigurationError(f"found delay_s={delay_s}; expected 0 or more.")
        return await self._link.call(
            "give_back", lambda: self.world.give_back(queue, receipt, delay_s, counted)
        )

    async def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        return await self._link.call("bury", lambda: self.world.bury(queue, receipt, reason))


class MemoryLeased:
    """A delivery is the taker's until its lease ends by the counter's own lease clock."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        if not lease_s > 0:
            raise ConfigurationError(f"found lease_s={lease_s}; expected seconds greater than 0.")
        work = lambda: self._broker.world.extend(queue, receipt, lease_s)
        return await self._broker._link.call("extend", work)


class MemoryInspecting:
    """What waits and what died."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def depths(self) -> Sequence[Depth]:
        return await self._broker._link.call("depths", lambda: self._broker.world.depths())

    async def dead(self, queue: str, limit: int = 100) -> Sequence[Dead]:
        return await self._broker._link.call("dead", lambda: self._broker.world.dead(queue, limit))

    async def revive(self, queue: str, ids: Sequence[str]) -> int:
        kept = tuple(ids)
        return await self._broker._link.call("revive", lambda: self._broker.world.revive(queue, kept))


def check(message: Message, knobs: BrokerKnobs) -> None:
    """Refuse what no broker would carry."""
    if not message.id:
        raise ConfigurationError("found a message without an id; expected a unique one. Use unique_id().")
    if not 0 <= message.delay_s < math.inf:
        raise ConfigurationError(f"message {message.id!r} has delay_s={message.delay_s}; expected 0 or more.")
    if len(message.body) > knobs.body_bytes_max:
        raise LimitReached(
            f"the body of message {message.id!r} has {len(message.body)} bytes; at most "
            f"{knobs.body_bytes_max} (body_bytes_max). Keep it elsewhere and send its name."
        )
    size = sum(len(name.encode()) + len(text.encode()) for name, text in message.headers.items())
    if len(message.headers) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise LimitReached(
            f"message {message.id!r} has {len(message.headers)} headers of {size} bytes; at most "
            f"{HEADERS_MAX} of {HEADER_BYTES_MAX} together. Put the rest into the body."
        )
