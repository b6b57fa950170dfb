"""Leases: judged by the server's wall clock, in one table, ended by whichever script looks next.

A parking meter with the town clock above it. Everybody reads the same clock; when somebody sets it, leases
grow or shrink with it, and that is why the claims say that one may end early.
"""

from __future__ import annotations

from atoll import clock
from atoll.engines.redis.ledger import Ledger
from atoll.ports import refusal
from atoll.ports.store import Granted


class RedisLeasing:
    """See the port. One round trip each; a renewal is never asked again by itself."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        micros = max(1, round(ttl_s * 1e6))
        lease = f"{clock.chance().getrandbits(64):016x}.{micros}"
        await self._ledger.run("lease", "grant", lease)
        return Granted(lease, micros / 1e6)

    async def keep_alive(self, lease: str) -> float:
        micros = _micros(lease)
        head, rest = await self._ledger.run("lease", "keep", lease)
        if head.status == "over":
            self._ledger.refuse_lease(rest)
        return micros / 1e6

    async def revoke(self, lease: str) -> None:
        _micros(lease)
        await self._ledger.run("lease", "revoke", lease)

    async def remaining(self, lease: str) -> float | None:
        _, rest = await self._ledger.run("read", "remaining", lease)
        return int(rest[0]) / 1e6 if rest[0] else None


def _micros(lease: str) -> int:
    """How long a lease is granted for stands in its name."""
    _, dot, micros = lease.partition(".")
    if not dot or not micros.isdigit():
        raise refusal.lease_over(lease)
    return int(micros)
