"""Where the plain services keep things: three shards, a queue, the statistics; one SQLite file each."""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from pathlib import Path

FOLDER = Path(os.environ.get("AIRLINE_FOLDER", ".atoll"))
SHARDS = [FOLDER / f"shard{n}.db" for n in range(3)]
QUEUE = FOLDER / "queue.db"
STATISTICS = FOLDER / "statistics.db"

SHARD_TABLES = """
CREATE TABLE IF NOT EXISTS plane (tail TEXT PRIMARY KEY, airport TEXT NOT NULL, odometer INTEGER NOT NULL,
    flights INTEGER NOT NULL, version INTEGER NOT NULL DEFAULT 1);
CREATE TABLE IF NOT EXISTS flight (id TEXT PRIMARY KEY, answer TEXT NOT NULL);
"""
QUEUE_TABLES = """
CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, body TEXT NOT NULL, taken REAL NOT NULL DEFAULT 0);
"""
STATISTICS_TABLES = """
CREATE TABLE IF NOT EXISTS tally (carrier TEXT, hour TEXT, flights INTEGER, distance INTEGER,
    delay_sum INTEGER, delay_count INTEGER, PRIMARY KEY (carrier, hour));
CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY);
"""

_mine = threading.local()


def shard_of(airport: str) -> int:
    """The same hash as the other column uses."""
    return zlib.crc32(airport.encode()) % len(SHARDS)


def connect(path: Path) -> sqlite3.Connection:
    """This thread's connection to a file; forced to disk at each commit."""
    known: dict[Path, sqlite3.Connection] = _mine.__dict__.setdefault("known", {})
    if path not in known:
        connection = sqlite3.connect(path, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        known[path] = connection
    return known[path]
