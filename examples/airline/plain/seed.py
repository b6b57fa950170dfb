"""Makes the tables and puts every plane into the hangar, once."""

from __future__ import annotations

from airline.flights import HANGAR, read_flights
from airline.plain.tables import (
    FOLDER,
    QUEUE,
    QUEUE_TABLES,
    SHARD_TABLES,
    SHARDS,
    STATISTICS,
    STATISTICS_TABLES,
    connect,
    shard_of,
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in SHARDS:
        connect(path).executescript(SHARD_TABLES)
    connect(QUEUE).executescript(QUEUE_TABLES)
    connect(STATISTICS).executescript(STATISTICS_TABLES)
    tails = sorted({f.tail for f in read_flights() if f.tail})
    with connect(SHARDS[shard_of(HANGAR)]) as shard:
        shard.executemany("INSERT OR IGNORE INTO plane VALUES (?, ?, 0, 0, 1)", [(t, HANGAR) for t in tails])
    print(f"{len(tails):,} planes stand at {HANGAR}")


if __name__ == "__main__":
    main()
