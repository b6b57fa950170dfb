"""Makes broker-1.db: broker, tier and joined tables in format 1, as the first release wrote them."""

from __future__ import annotations

import asyncio
import sys

import apsw

from atoll import clock
from atoll.engines.sqlite.broker import SqliteBroker
from atoll.engines.sqlite.database import SqliteDatabase
from atoll.engines.sqlite.tier import SqliteTier
from atoll.ports.broker import Message
from atoll.ports.store import Token
from atoll.ports.tier import Miss


class LongAgo(clock.RealClock):
    """A boot that is over on every machine."""

    @property
    def boot_id(self) -> str:
        return "a boot long ago"

    def wall_now(self) -> float:
        return 1_700_000_000.0


async def main(path: str) -> None:
    async with SqliteBroker(path) as broker:
        await broker.put("work", [Message(id=id, body=id.encode(), headers={"h": "1"}) for id in "abcd"])
        _held, done, bad = await broker.take("work", 3, lease_s=3600)
        await broker.acknowledge("work", [done.receipt])
        await broker.bury("work", bad.receipt, "cannot be read")
    async with SqliteTier(path) as tier:
        miss = (await tier.get_many(["key"]))["key"]
        assert isinstance(miss, Miss) and await tier.fill("key", miss.token, b"copy", 3600)
    async with SqliteDatabase(path) as database, database.begin() as tx:
        await database.joined.put(tx, "sold", [Message(id="s", body=b"staged", key="k")])
        await database.joined.fence(tx, "lock/a", Token(2, 7))
        await database.joined.once(tx, "scope", "seen")
    connection = apsw.Connection(path)
    connection.execute("PRAGMA journal_mode = DELETE; VACUUM")
    connection.close()


with clock.use(LongAgo()):
    asyncio.run(main(sys.argv[1]))
