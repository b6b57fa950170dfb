"""Leases: keys that die with their holder, in a file that has no clock of its own.

A parking meter. Nobody stands beside it; whoever looks at it next, and sees that the time is over,
writes the end into the book. So an end is a transaction like any other, made by the first who looks.

Time is the lease clock together with the boot id: a lease of another boot is over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import apsw

from atoll import clock
from atoll.engines.sqlite import ledger
from atoll.engines.sqlite.ledger import Times
from atoll.ports import refusal
from atoll.ports.store import Granted

if TYPE_CHECKING:
    from atoll.engines.sqlite.store import SqliteStore


def next_due(connection: apsw.Connection) -> float:
    """When the next lease ends, by the lease clock; infinity where there is none."""
    due = connection.execute("SELECT expires FROM atoll_lease ORDER BY expires LIMIT 1").get
    return math.inf if due is None else float(due)


def sweep(connection: apsw.Connection, times: Times) -> None:
    """End every lease whose time is over, the earliest first, each as one transaction."""
    over: list[tuple[Any, ...]] = connection.execute(
        "SELECT id FROM atoll_lease WHERE expires <= ? ORDER BY expires", (times.lease_now,)
    ).fetchall()
    for (id,) in over:
        end(connection, id, times)


def end(connection: apsw.Connection, id: str, times: Times) -> None:
    """Remove a lease and its keys; nothing happens if it is over."""
    connection.execute("DELETE FROM atoll_lease WHERE id = ?", (id,))
    gone = connection.execute(
        "DELETE FROM atoll_entry WHERE lease = ? RETURNING key, create_revision", (id,)
    ).fetchall()
    if gone:
        events = [(key, None, created, None) for key, created in sorted(gone)]
        ledger.record(connection, ledger.revision(connection) + 1, events, times)


def end_other_boots(connection: apsw.Connection, times: Times) -> None:
    """End what an earlier boot of this machine left, and let its request ids live on in this one."""
    over: list[tuple[Any, ...]] = connection.execute(
        "SELECT id FROM atoll_lease WHERE boot_id <> ?", (times.boot_id,)
    ).fetchall()
    for (id,) in over:
        end(connection, id, times)
    connection.execute(
        "UPDATE atoll_request SET boot_id = ?, at = ? WHERE boot_id <> ?",
        (times.boot_id, times.lease_now, times.boot_id),
    )


def foreign(connection: apsw.Connection, times: Times) -> dict[str, tuple[float, float]]:
    """Leases of another boot that the wall clock calls young: their last renewal, and seconds left."""
    return {
        id: (wall, wall + ttl_s - times.wall_now)
        for id, wall, ttl_s in connection.execute(
            "SELECT id, wall, ttl_s FROM atoll_lease WHERE boot_id <> ?", (times.boot_id,)
        )
        if wall + ttl_s > times.wall_now
    }


class SqliteLeasing:
    """Leases of a store in a file. Granting and renewing need no forced write.

    What a power cut could lose of them is over anyway, because the next boot has another boot id.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        id = f"{clock.chance().getrandbits(64):016x}"
        clocks = self._store.clocks()

        def work(connection: apsw.Connection) -> Granted:
            times = clocks()
            connection.execute(
                "INSERT INTO atoll_lease VALUES (?, ?, ?, ?, ?)",
                (id, ttl_s, times.lease_now + ttl_s, times.boot_id, times.wall_now),
            )
            return Granted(id, ttl_s)

        return await self._store.write(work, forced=False)

    async def keep_alive(self, lease: str) -> float:
        clocks = self._store.clocks()

        def work(connection: apsw.Connection) -> float | None:
            times = clocks()
            ttl_s = connection.execute(
                "UPDATE atoll_lease SET expires = ? + ttl_s, wall = ? WHERE id = ? AND expires > ? "
                "RETURNING ttl_s",
                (times.lease_now, times.wall_now, lease, times.lease_now),
            ).get
            return None if ttl_s is None else float(ttl_s)

        ttl_s = await self._store.write(work, forced=False)
        if ttl_s is None:
            raise refusal.lease_over(lease)
        return ttl_s

    async def revoke(self, lease: str) -> None:
        clocks = self._store.clocks()

        def work(connection: apsw.Connection) -> None:
            times = clocks()
            sweep(connection, times)
            end(connection, lease, times)

        await self._store.write(work)

    async def remaining(self, lease: str) -> float | None:
        clocks = self._store.clocks()

        def work(connection: apsw.Connection) -> float | None:
            due = connection.execute("SELECT expires FROM atoll_lease WHERE id = ?", (lease,)).get
            return None if due is None else float(due) - clocks().lease_now

        return await self._store.read(work)
