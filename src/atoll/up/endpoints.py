"""Where a service can be reached now: the ready instances, and how many requests each has.

The board at a taxi rank. A car that does not answer is taken off the board at once, and comes back
when somebody has seen it run; a car about to stop is taken off first and finishes its ride.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from atoll.algorithms.balancer import LeastConnections
from atoll.up.bell import Bell


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One life of one instance: a restarted instance is another endpoint."""

    key: str
    instance: str
    port: int
    suspected: asyncio.Event = field(default_factory=asyncio.Event, compare=False, repr=False)


class Pool:
    """The endpoints of one service, chosen by least connections."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.bell = Bell()
        self._ready: dict[str, Endpoint] = {}
        self._balancer = LeastConnections()

    def put(self, endpoint: Endpoint) -> None:
        """It is ready: send it requests."""
        if endpoint.key not in self._ready:
            self._ready[endpoint.key] = endpoint
            self.bell.ring()

    def remove(self, endpoint: Endpoint) -> None:
        """Send it no more; what it has goes on."""
        if self._ready.pop(endpoint.key, None) is not None:
            self.bell.ring()

    def suspect(self, endpoint: Endpoint) -> None:
        """A connection failed: set it aside until its probe answers."""
        self.remove(endpoint)
        endpoint.suspected.set()

    def has(self, endpoint: Endpoint) -> bool:
        return endpoint.key in self._ready

    async def choose(self, without: Collection[str], wait_s: float) -> Endpoint | None:
        """The endpoint with the fewest requests, waiting for one to become ready; None if none did.

        One in `without` is taken only when its service has no other and the wait is over.
        """
        if not self._pick(without) and not await self.bell.until(lambda: bool(self._pick(without)), wait_s):
            return self._pick(())
        return self._pick(without)

    def _pick(self, without: Collection[str]) -> Endpoint | None:
        key = self._balancer.choose(self._ready, without)
        return self._ready[key] if key is not None else None

    def started(self, endpoint: Endpoint) -> None:
        self._balancer.started(endpoint.key)

    def finished(self, endpoint: Endpoint) -> None:
        self._balancer.finished(endpoint.key)
        if not self._balancer.serving(endpoint.key):
            self.bell.ring()

    def serving(self, endpoint: Endpoint) -> int:
        return self._balancer.serving(endpoint.key)

    async def idle(self, endpoint: Endpoint, timeout_s: float) -> bool:
        """Wait until its last request is over, at most `timeout_s`."""
        return await self.bell.until(lambda: not self._balancer.serving(endpoint.key), timeout_s)

    def forget(self, endpoint: Endpoint) -> None:
        """This life is over."""
        self.remove(endpoint)
        self._balancer.forget(endpoint.key)

    def __len__(self) -> int:
        return len(self._ready)
