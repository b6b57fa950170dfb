"""Leases: keys that die with their holder, judged by the server's clock, ended by whoever looks next.

A parking meter in the server's hall. The clock on the wall there is the only one that counts, and a janitor
who sets it forward ends a lease early: PostgreSQL has no other clock in SQL, so the claims say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.postgresql import answers, reading
from atoll.engines.postgresql.ledger import Asked, is_text
from atoll.errors import AtollError
from atoll.ports import refusal
from atoll.ports.store import Granted

if TYPE_CHECKING:
    from atoll.engines.postgresql.store import PostgresStore

_HERE = "c.one AND c.incarnation = atoll.incarnation()"
_SYNCHRONOUS = "set_config('synchronous_commit', $1::text, true)"
_GRANT = f"""INSERT INTO atoll.lease SELECT $2::text, $3::float8, clock_timestamp() +
make_interval(secs => $3::float8) FROM atoll.counter c, {_SYNCHRONOUS} WHERE {_HERE} RETURNING ttl_s"""
_KEEP_ALIVE = f"""UPDATE atoll.lease l SET expires = clock_timestamp() + make_interval(secs => l.ttl_s)
FROM atoll.counter c, {_SYNCHRONOUS}
WHERE l.id = $2::text AND l.expires > clock_timestamp() AND {_HERE} RETURNING l.ttl_s"""
_LEFT = """SELECT extract(epoch FROM l.expires - clock_timestamp())::float8
FROM atoll.counter c LEFT JOIN atoll.lease l ON l.id = $1::text WHERE c.one AND NOT pg_is_in_recovery()"""


class PostgresLeasing:
    """Leases in a table. One that was granted or renewed is as durable as any other write."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        id = f"{clock.chance().getrandbits(64):016x}"
        rows = await self._store.ask("a grant", _GRANT, await self._store.synchronous(), id, float(ttl_s))
        if not rows:
            raise await self._uncertain() or refusal.lease_over(id)
        return Granted(id, ttl_s)

    async def keep_alive(self, lease: str) -> float:
        if not is_text(lease):
            raise refusal.lease_over(repr(lease))
        rows = await self._store.ask("a renewal", _KEEP_ALIVE, await self._store.synchronous(), lease)
        if not rows:
            raise await self._uncertain() or refusal.lease_over(lease)
        return float(rows[0][0])

    async def revoke(self, lease: str) -> None:
        if is_text(lease):
            await self._store.write(Asked(ends=lease))

    async def remaining(self, lease: str) -> float | None:
        if not is_text(lease):
            return None
        rows = await self._store.look("a look at a lease", _LEFT, lease)
        left = rows[0][0]
        return float(left) if left is not None and left > 0 else None

    async def _uncertain(self) -> AtollError | None:
        """Why the server refuses leases at all, None where it does not."""
        _, noted, here, _ = (await self._store.look("a look at the epoch", reading.EPOCH))[0]
        return None if noted == here else answers.uncertain(noted, here, self._store.url)
