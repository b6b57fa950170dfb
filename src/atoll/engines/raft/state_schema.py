"""Schema of the state: the tables of a store in a file, and those that make it a member's.

The same drawers as in a desk for one, and one more for the minutes: how far they were copied, who sits at the
table, and the last receipt of each client.
"""

from __future__ import annotations

import hashlib

import apsw
import msgspec

from atoll.algorithms.raft.messages import Index
from atoll.engines.sqlite import format, ledger
from atoll.errors import ConfigurationError

PART, FORMAT = "raft", 1
DDL = (
    """CREATE TABLE atoll_raft (
        only INTEGER PRIMARY KEY CHECK (only = 1), applied INTEGER NOT NULL, term INTEGER NOT NULL,
        at REAL NOT NULL, membership BLOB
    )""",
    "INSERT INTO atoll_raft VALUES (1, 0, 0, 0.0, NULL)",
    """CREATE TABLE atoll_session (
        client INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, used INTEGER NOT NULL, result BLOB
    )""",
    "CREATE INDEX atoll_session_used ON atoll_session (used)",
)
_DIGESTED = (
    "SELECT applied, term, at, membership FROM atoll_raft",
    "SELECT name, value FROM atoll_store ORDER BY name",
    "SELECT key, value, revision, create_revision, lease FROM atoll_entry ORDER BY key",
    "SELECT * FROM atoll_event ORDER BY revision, place",
    "SELECT id, ttl_s FROM atoll_lease ORDER BY id",
    "SELECT id, revision, at FROM atoll_request ORDER BY id",
    "SELECT client, sequence, used, result FROM atoll_session ORDER BY client",
)


def ensure(connection: apsw.Connection) -> None:
    """Make the tables, or check that they are of a format that is read here."""
    format.ensure(connection, PART, FORMAT, DDL)
    format.ensure(connection, ledger.PART, ledger.FORMAT, ledger.DDL, ledger.UPGRADES)


def set_up(connection: apsw.Connection, path: str) -> None:
    """WAL, and no forced write at a commit; a checkpoint forces the log before it copies from it."""
    if connection.pragma("journal_mode") != "wal" and connection.pragma("journal_mode", "wal") != "wal":
        raise ConfigurationError(
            f"found that {path} cannot be put into journal mode wal; expected a folder on a local disk. "
            "Name another data folder."
        )
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # see checkpoints.py
    connection.execute(
        "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-65536; "
        "PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0"
    )


def digest(connection: apsw.Connection) -> tuple[Index, str]:
    """The newest entry applied, and a digest of all rows in order."""
    encode = msgspec.msgpack.Encoder().encode
    sum = hashlib.blake2b(digest_size=16)
    for select in _DIGESTED:
        sum.update(select.encode())
        for row in connection.execute(select):
            sum.update(encode(row))
    applied = connection.execute("SELECT applied FROM atoll_raft").get
    return int(applied), sum.hexdigest()
