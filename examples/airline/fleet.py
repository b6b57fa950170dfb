"""What the airline's services share. Importing it connects to nothing."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass

import atoll
from atoll import Outbox, Queue, Transactions
from atoll.ports.joined import Database

state = atoll.store(os.environ["ATOLL_STATE"])
broker = atoll.broker(os.environ["ATOLL_BROKER"])
shards = [atoll.database(os.environ[f"ATOLL_SHARD{n}"], name=f"shard{n}") for n in range(3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A flight has landed. `arrival_delay` in minutes, None where the record has none."""

    id: str
    carrier: str
    hour: str
    distance: int
    arrival_delay: int | None


moves = Transactions(state, *shards, app="airline", grace_s=2.0)
landed = Queue(broker, "flight-landed", Landed)
outboxes = [Outbox(shard) for shard in shards]

TABLES = """
CREATE TABLE IF NOT EXISTS plane (tail TEXT PRIMARY KEY, airport TEXT NOT NULL, odometer INTEGER NOT NULL,
    flights INTEGER NOT NULL, version INTEGER NOT NULL DEFAULT 1);
CREATE TABLE IF NOT EXISTS flight (id TEXT PRIMARY KEY, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS movement (flight TEXT, kind TEXT, tail TEXT NOT NULL, airport TEXT NOT NULL,
    PRIMARY KEY (flight, kind));
"""


def shard_of(airport: str) -> Database:
    """Airports are hashed over the shards."""
    return shards[zlib.crc32(airport.encode()) % len(shards)]
