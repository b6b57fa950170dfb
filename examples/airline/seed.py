"""seed: makes the tables and puts every plane into the hangar, once; doing it again changes nothing."""

from __future__ import annotations

import asyncio
import json

from airline.fleet import TABLES, shard_of, shards, state
from airline.flights import HANGAR, read_flights
from airline.statistics import TABLES as TALLY
from airline.statistics import figures

from atoll.ports.store import absent, put


async def main() -> None:
    tails = sorted({f.tail for f in read_flights() if f.tail})
    for database, tables in [*((shard, TABLES) for shard in shards), (figures, TALLY)]:
        async with database, database.begin() as db:
            for statement in filter(str.strip, tables.split(";")):
                await db.execute(statement)
            if database is shard_of(HANGAR):
                await db.executemany(
                    "INSERT OR IGNORE INTO plane VALUES (?, ?, 0, 0, 1)", [(t, HANGAR) for t in tails]
                )
    async with state:
        await state.transact(put("fleet", json.dumps(tails).encode()), compare=[absent("fleet")])
    print(f"{len(tails):,} planes stand at {HANGAR}")


if __name__ == "__main__":
    asyncio.run(main())
