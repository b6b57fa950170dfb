"""MemoryTier: the Tier port in this process, within a number of bytes.

A shelf with a fixed width. What nobody asked for the longest falls off when something new is put on;
a claim slip is only good while its line in the book stands, and an invalidation strikes that line.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from atoll import clock
from atoll.engines.memory.knobs import TierKnobs
from atoll.engines.memory.link import Link
from atoll.engines.memory.named import Named, Place
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.address import Address
from atoll.ports.store import Reach
from atoll.ports.tier import Hit, Miss, TierClaims


@dataclass(slots=True)
class Copy:
    """A value on the shelf, until `ends` by the lease clock."""

    value: bytes
    version: int
    filled_at: float
    ends: float


class Shelf:
    """Copies, open slips and counters, by the lease clock. Safe to call from any thread."""

    def __init__(self, knobs: TierKnobs) -> None:
        self.knobs = knobs
        self.clock = clock.current()
        self.guarding = threading.RLock()
        self.version = 0
        self.bytes = 0
        self.copies: OrderedDict[str, Copy] = OrderedDict()
        self.slips: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.counters: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Hit | Miss]:
        with self.guarding:
            return {key: self._get(key) for key in keys}

    def _get(self, key: str) -> Hit | Miss:
        now = self.clock.lease_now()
        copy = self.copies.get(key)
        if copy is not None and (copy.ends <= now or self._forgets()):
            self._drop(key)
            copy = None
        if copy is None:
            return Miss(self._slip(key))
        self.copies.move_to_end(key)
        return Hit(copy.value, copy.version, now - copy.filled_at)

    def _forgets(self) -> bool:
        return self.knobs.forget > 0 and self.clock.chance.random() < self.knobs.forget

    def _slip(self, key: str) -> str:
        open_slip = self._open_slip(key)
        token = open_slip or f"{self.clock.chance.getrandbits(64):016x}"
        self.slips[key] = (token, self.clock.lease_now() + self.knobs.token_ttl_s)
        self.slips.move_to_end(key)
        while len(self.slips) > self.knobs.tokens_max:
            self.slips.popitem(last=False)
        return token

    def _open_slip(self, key: str) -> str | None:
        token, ends = self.slips.get(key, ("", 0.0))
        return token if token and ends > self.clock.lease_now() else None

    def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        with self.guarding:
            if self._open_slip(key) != token:
                return False
            self._drop(key)
            now = self.clock.lease_now()
            self.version += 1
            self.copies[key] = Copy(value, self.version, now, now + ttl_s)
            self.bytes += len(key.encode()) + len(value)
            while self.bytes > self.knobs.bytes_max:
                self._drop(next(iter(self.copies)))
            return True

    def _drop(self, key: str) -> None:
        copy = self.copies.pop(key, None)
        if copy is not None:
            self.bytes -= len(key.encode()) + len(copy.value)

    def invalidate_many(self, keys: Sequence[str]) -> None:
        with self.guarding:
            for key in keys:
                self._drop(key)
                self.slips.pop(key, None)

    def increment(self, key: str, by: int, ttl_s: float) -> int:
        with self.guarding:
            now = self.clock.lease_now()
            total, ends = self.counters.get(key, (0, 0.0))
            if ends <= now:
                total, ends = 0, now + ttl_s
            self.counters[key] = (total + by, ends)
            if len(self.counters) > self.knobs.counters_max:
                del self.counters[min(self.counters, key=lambda name: self.counters[name][1])]
            return total + by


class MemoryTier:
    """A tier that lives and dies with this process. Reach: PROCESS."""

    world_type: type[Shelf] = Shelf
    _named: Named[Shelf] = Named()

    def __init__(self, *, name: str = "", knobs: TierKnobs | None = None) -> None:
        self._knobs = knobs or TierKnobs()
        self._link = Link(
            latency_s=self._knobs.latency_s,
            request_loss=self._knobs.request_loss,
            reply_loss=self._knobs.reply_loss,
            ceiling_s=self._knobs.ceiling_s,
        )
        self._url = str(Address(scheme="memory", host=name))
        self._place = Place(name, self._knobs, lambda: self.world_type(self._knobs), self._named)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The tier that `memory://name?bytes_max=64MB` names."""
        name = address.host + (f"/{address.path}" if address.path else "")
        tier = cls(name=name, knobs=address.parse_options(TierKnobs))
        tier._url = str(address)
        return tier

    def __repr__(self) -> str:
        return f"<Tier {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def world(self) -> Shelf:
        """The state behind this handle, made at its first use in this process."""
        return self._place.world

    @property
    def _value_bytes_max(self) -> int:
        return min(self._knobs.value_bytes_max, self._knobs.bytes_max)

    async def open(self) -> TierClaims:
        """Answer the claims; there is nothing to connect to."""
        return TierClaims(
            reach=Reach.PROCESS, value_bytes_max=self._value_bytes_max, bytes_max=self._knobs.bytes_max
        )

    async def close(self) -> None:
        """Nothing to give back; the copies stay. A verb reopens."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Hit | Miss]:
        kept = tuple(keys)
        return await self._link.call("get_many", lambda: self.world.get_many(kept))

    async def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        """See the port. A value that is too long raises LimitReached."""
        _check_ttl(ttl_s)
        if len(value) > self._value_bytes_max:
            raise LimitReached(
                f"the copy for {key!r} has {len(value)} bytes; at most {self._value_bytes_max} "
                "(value_bytes_max). Do without a copy, or raise the limit."
            )
        return await self._link.call("fill", lambda: self.world.fill(key, token, bytes(value), ttl_s))

    async def invalidate_many(self, keys: Sequence[str]) -> None:
        kept = tuple(keys)
        await self._link.call("invalidate_many", lambda: self.world.invalidate_many(kept))

    async def increment(self, key: str, by: int, ttl_s: float) -> int:
        _check_ttl(ttl_s)
        return await self._link.call("increment", lambda: self.world.increment(key, by, ttl_s))


def _check_ttl(ttl_s: float) -> None:
    if not ttl_s > 0:
        raise ConfigurationError(f"found ttl_s={ttl_s}; expected seconds greater than 0.")
