"""Leases: keys that die with their holder, judged by the server's clock, ended by whoever looks next.

A parking meter in the server's hall. The clock on the wall there is the only one that counts (in UTC, so no
time zone moves it), and a janitor who sets it forward ends a lease early: the claims say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.mysql import answers
from atoll.engines.mysql.script import MICROSECOND, NOW, TAKES_NONE, Asked, hexed
from atoll.engines.mysql.wire import Row
from atoll.errors import ConfigurationError
from atoll.ports import refusal
from atoll.ports.store import Granted

if TYPE_CHECKING:
    from atoll.engines.mysql.store import MysqlStore

_LOOK = (
    f"SET @now={NOW},@ro={TAKES_NONE},@i=NULL",
    "SELECT incarnation INTO @i FROM atoll_counter WHERE one=1",
)
_MAY = "@i=@here AND NOT @ro"


class MysqlLeasing:
    """Leases in a table. One that was granted or renewed is as durable as any other write."""

    def __init__(self, store: MysqlStore) -> None:
        self._store = store

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        id = f"{clock.chance().getrandbits(64):016x}"
        lasts = max(1, round(float(ttl_s) * MICROSECOND))
        if lasts >= 1 << 61:
            raise ConfigurationError(f"found ttl_s={ttl_s}; expected at most {(1 << 61) // MICROSECOND}.")
        await self._asked(
            "a grant",
            f"INSERT INTO atoll_lease SELECT {hexed(id)},{float(ttl_s)!r},@now+{lasts} "
            f"FROM DUAL WHERE {_MAY}",
            id,
        )
        return Granted(id, ttl_s)

    async def keep_alive(self, lease: str) -> float:
        if not lease or not lease.isascii():
            raise refusal.lease_over(repr(lease))
        which = hexed(lease)
        row = await self._asked(
            "a renewal",
            f"UPDATE atoll_lease SET expires=@now+CAST(ROUND(ttl_s*{MICROSECOND}) AS SIGNED) "
            f"WHERE id={which} AND expires>@now AND {_MAY}",
            lease,
        )
        return float(row[0])

    async def revoke(self, lease: str) -> None:
        if lease and lease.isascii():
            await self._store.write(Asked(ends=lease))

    async def remaining(self, lease: str) -> float | None:
        if not lease or not lease.isascii():
            return None
        _, rows = await self._store.look(
            "a look at a lease", f"SELECT expires-{NOW} FROM atoll_lease WHERE id={hexed(lease)}"
        )
        left = int(rows[0][0]) / MICROSECOND if rows else 0.0
        return left if left > 0 else None

    async def _asked(self, what: str, statement: str, lease: str) -> Row:
        """The lease's ttl_s, once `statement` stands; else why it does not."""
        answered = await self._store.ask(
            what,
            (
                *_LOOK,
                statement,
                "SELECT @ro,@i,@here",
                f"SELECT ttl_s FROM atoll_lease WHERE id={hexed(lease)} AND expires>@now AND {_MAY}",
            ),
            commits=3,
        )
        [(takes_none, noted, here)], rows = answered[3], answered[4]
        if rows:
            return rows[0]
        if int(takes_none):
            raise answers.replica(self._store.url)
        if noted is not None and noted != here:
            raise answers.uncertain(noted.decode(), (here or b"").decode(), self._store.url)
        raise refusal.lease_over(lease)
