"""Cluster: the servers of one product that belong together, one or several, and the URL that names them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from atoll.verify.servers.process import ServerProcess


async def _first() -> int:
    return 0


@dataclass(slots=True)
class Cluster:
    """`url`: what an application is given. `leader()` answers the index in `members` of who leads now.

    `peers`: for each member its client address, then its address for the other members, as host:port; what
    a proxy or a firewall rule stands between. `facts`: what tests of one product need beside.
    """

    product: str
    url: str
    members: list[ServerProcess]
    leader: Callable[[], Awaitable[int]] = _first
    addresses: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    async def close(self) -> None:
        """Kill them all; their folders are the caller's."""
        for member in self.members:
            member.kill()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
