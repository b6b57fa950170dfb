"""Makes store-N.db, the store's present format N as a release writes it. Commit what it makes."""

from __future__ import annotations

import asyncio
import sys

import apsw

from atoll import clock
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.store import delete, put


class LongAgo(clock.RealClock):
    """A boot that is over on every machine."""

    @property
    def boot_id(self) -> str:
        return "a boot long ago"

    def wall_now(self) -> float:
        return 1_700_000_000.0


async def main(path: str) -> None:
    async with SqliteStore(path) as store:
        await store.transact(put("flight/1", b"first"), put("flight/2", b"second"))
        await store.transact(put("flight/2", b"changed"), request_id="request")
        await store.transact(delete("flight/1"))
        assert store.leasing
        lease, _ = await store.leasing.grant(15)
        await store.transact(put("owner", b"somebody", lease=lease))
        assert store.moving
        await store.moving.bump()
    connection = apsw.Connection(path)
    connection.execute("PRAGMA journal_mode = DELETE; VACUUM")
    connection.close()


with clock.use(LongAgo()):
    asyncio.run(main(sys.argv[1]))
