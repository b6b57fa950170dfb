"""SqliteTier: the Tier port on one SQLite file, shared by the processes of one machine.

A shelf with a tally of crossings-out. A claim slip carries the tally's number at the time of the miss; each
crossing-out raises the number and notes it beside the key, so a slip with a smaller number is worthless.
Nothing
is forced to the disk, and so nothing of another boot is believed: after one the shelf starts empty.

Departure: slips are not kept anywhere. Old crossings-out are forgotten together with every slip as old as
they
are, which may lose a copy and never keeps a stale one.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import apsw

from atoll import clock
from atoll.engines.sqlite import place
from atoll.engines.sqlite.file import SqliteFile, SqliteOptions
from atoll.engines.sqlite.format import ensure
from atoll.engines.sqlite.limits import check_numbers
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.address import Address
from atoll.ports.store import Reach
from atoll.ports.tier import Hit, Miss, TierClaims

T = TypeVar("T")

PART = "tier"
FORMAT = 1
TOUCHED_MAX = 1000
EVICT_ROWS = 32

TABLES = (
    """CREATE TABLE atoll_tier (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  epoch TEXT NOT NULL,
  boot TEXT NOT NULL,
  tally INTEGER NOT NULL,
  oldest INTEGER NOT NULL,
  bytes INTEGER NOT NULL
)""",
    """CREATE TABLE atoll_tier_copy (
  key TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  filled_at REAL NOT NULL,
  ends REAL NOT NULL,
  used INTEGER NOT NULL,
  value BLOB NOT NULL
)""",
    "CREATE INDEX atoll_tier_copy_used ON atoll_tier_copy (used)",
    "CREATE INDEX atoll_tier_copy_ends ON atoll_tier_copy (ends)",
    "CREATE TABLE atoll_tier_invalid (key TEXT PRIMARY KEY, tally INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX atoll_tier_invalid_tally ON atoll_tier_invalid (tally)",
    "CREATE TABLE atoll_tier_counter (key TEXT PRIMARY KEY, value INTEGER NOT NULL, ends REAL NOT NULL)",
    "CREATE INDEX atoll_tier_counter_ends ON atoll_tier_counter (ends)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOptions:
    """Options of a `sqlite:///` tier. Sizes in bytes, times in seconds."""

    bytes_max: int = 256 << 20
    """Of keys and values together, before the longest unused are evicted."""
    value_bytes_max: int = 1 << 20
    entries_max: int = 1_000_000
    """Of crossings-out, and of counters; the oldest are forgotten."""
    ceiling_s: float = 10.0
    shared_kernel: bool = False
    """The folder looks like a network's, but only this kernel ever opens the file."""
    vfs: str | None = None
    """A VFS registered with apsw; None: the system's."""
    create: bool = True
    """False: only a file and tables that are there already; nothing is made by asking."""

    def __post_init__(self) -> None:
        check_numbers(self)


class SqliteTier:
    """Copies in one file; `sqlite:///cache.db?bytes_max=64MB`. Reach: HOST. Forgets at a reboot."""

    def __init__(self, path: str | Path, *, options: TierOptions | None = None) -> None:
        self.path = str(path)
        self.options = options or TierOptions()
        self._url = f"sqlite:///{self.path}"
        self._file: SqliteFile | None = None
        self._pid = os.getpid()
        self._ready = False
        self._touched: set[str] = set()

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """What `atoll.tier("sqlite:///cache.db")` makes."""
        tier = cls(place.path_of(address), options=address.parse_options(TierOptions))
        tier._url = str(address)
        return tier

    def __repr__(self) -> str:
        return f"<Tier {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    async def open(self) -> TierClaims:
        """Open the file, make or check its tables; forget everything of another boot."""
        if self._pid != os.getpid():
            self._file, self._ready, self._pid = None, False, os.getpid()
        options = self.options
        if self._file is None:
            self._file = SqliteFile.shared(
                self.path,
                SqliteOptions(
                    shared_kernel=options.shared_kernel,
                    ceiling_s=options.ceiling_s,
                    vfs=options.vfs,
                    create=options.create,
                ),
            )
        if not self._ready:
            epoch, boot = f"{clock.chance().getrandbits(64):016x}", clock.boot_id()

            def prepare(connection: apsw.Connection) -> None:
                ensure(connection, PART, FORMAT, TABLES, create=options.create)
                if connection.execute("SELECT boot FROM atoll_tier").get != boot:
                    _clear(connection, epoch, boot)

            await self._file.write(prepare, forced=False)
            self._ready = True
        return TierClaims(
            reach=Reach.HOST, value_bytes_max=options.value_bytes_max, bytes_max=options.bytes_max
        )

    async def close(self) -> None:
        """Give the file back. A verb opens it again."""
        file, self._file, self._ready = self._file, None, False
        if file is not None and self._pid == os.getpid():
            await file.release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Hit | Miss]:
        """Copies, and slips for what is missing; a read of one snapshot, which waits for no writer."""
        kept, now = tuple(keys), clock.lease_now()
        found = await (await self.file()).read(lambda connection: _get_many(connection, kept, now))
        if len(self._touched) < TOUCHED_MAX:
            self._touched.update(key for key, what in found.items() if isinstance(what, Hit))
        return found

    async def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        """Keep a copy, unless the key was invalidated since the token's miss, or the token is forgotten."""
        _check_ttl(ttl_s)
        if len(value) > self.options.value_bytes_max:
            raise LimitReached(
                f"a copy of {len(value)} bytes for {key!r}; at most {self.options.value_bytes_max} "
                "(value_bytes_max). Keep less of it, or raise the limit."
            )
        now, options = clock.lease_now(), self.options
        touched, self._touched = tuple(self._touched), set()

        def work(connection: apsw.Connection) -> bool:
            if not _is_good(connection, key, token):
                return False
            _keep(connection, key, value, now, now + ttl_s)
            _touch(connection, touched)
            _evict(connection, options.bytes_max, now)
            return True

        return await self.write(work)

    async def invalidate_many(self, keys: Sequence[str]) -> None:
        """Drop the copies; every slip written before is worthless when it returns."""
        kept, most = tuple(keys), self.options.entries_max
        await self.write(lambda connection: _invalidate(connection, kept, most))

    async def increment(self, key: str, by: int, ttl_s: float) -> int:
        """Add to a counter that ends `ttl_s` after it was made; answers the sum."""
        _check_ttl(ttl_s)
        now, most = clock.lease_now(), self.options.entries_max
        return await self.write(lambda connection: _increment(connection, key, by, (now, now + ttl_s), most))

    async def write(self, work: Callable[[apsw.Connection], T]) -> T:
        """A write that is not forced: a power cut may forget it, and ends what it wrote anyway."""
        return await (await self.file()).write(work, forced=False)

    async def file(self) -> SqliteFile:
        """The file, open and of a format this tier reads."""
        if not self._ready or self._file is None or self._pid != os.getpid():
            await self.open()
        assert self._file is not None
        return self._file


def _check_ttl(ttl_s: float) -> None:
    if not 0 < ttl_s < math.inf:
        raise ConfigurationError(f"found ttl_s={ttl_s}; expected seconds greater than 0.")


def _clear(connection: apsw.Connection, epoch: str, boot: str) -> None:
    for table in ("atoll_tier_copy", "atoll_tier_invalid", "atoll_tier_counter"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute(
        "INSERT OR REPLACE INTO atoll_tier VALUES "
        "(1, ?, ?, (SELECT coalesce(max(tally), 0) + 1 FROM atoll_tier), 0, 0)",
        (epoch, boot),
    )


def _slip(epoch: str, tally: int, key: str) -> str:
    """A slip is bound to its key, so that one key's slip fills no other."""
    mark = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    return f"{epoch}.{tally}.{mark}"


def _get_many(connection: apsw.Connection, keys: Sequence[str], now: float) -> dict[str, Hit | Miss]:
    header: tuple[Any, ...] | None = connection.execute("SELECT epoch, tally FROM atoll_tier").fetchone()
    assert header is not None
    found: dict[str, Hit | Miss] = {}
    for key in keys:
        row: tuple[Any, ...] | None = connection.execute(
            "SELECT value, version, filled_at FROM atoll_tier_copy WHERE key = ? AND ends > ?", (key, now)
        ).fetchone()
        found[key] = (
            Hit(row[0], row[1], max(0.0, now - row[2])) if row else Miss(_slip(header[0], header[1], key))
        )
    return found


def _is_good(connection: apsw.Connection, key: str, token: str) -> bool:
    header: tuple[Any, ...] | None = connection.execute("SELECT epoch, oldest FROM atoll_tier").fetchone()
    assert header is not None
    number = token.split(".")[1] if token.count(".") == 2 else ""
    if not (number.isdecimal() and len(number) < 19) or token != _slip(header[0], int(number), key):
        return False
    crossed = connection.execute("SELECT tally FROM atoll_tier_invalid WHERE key = ?", (key,)).get
    return int(number) >= header[1] and (crossed is None or int(number) >= int(crossed))


def _next(connection: apsw.Connection, by: int = 1) -> int:
    row: tuple[Any, ...] | None = connection.execute(
        "UPDATE atoll_tier SET tally = tally + ? RETURNING tally", (by,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def _keep(connection: apsw.Connection, key: str, value: bytes, now: float, ends: float) -> None:
    _drop(connection, "key = ?", key)
    number = _next(connection)
    connection.execute(
        "INSERT INTO atoll_tier_copy VALUES (?, ?, ?, ?, ?, ?)", (key, number, now, ends, number, value)
    )
    connection.execute("UPDATE atoll_tier SET bytes = bytes + ?", (_weight(key, value),))


def _weight(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value)


def _drop(connection: apsw.Connection, which: str, *parameters: Any) -> int:
    """Remove copies and their weight; answers how many bytes went."""
    rows: list[tuple[Any, ...]] = connection.execute(
        f"DELETE FROM atoll_tier_copy WHERE {which} RETURNING length(CAST(key AS BLOB)) + length(value)",
        parameters,
    ).fetchall()
    freed = sum(int(row[0]) for row in rows)
    if freed:
        connection.execute("UPDATE atoll_tier SET bytes = bytes - ?", (freed,))
    return freed


def _touch(connection: apsw.Connection, keys: Sequence[str]) -> None:
    """What was read since the last fill counts as used now, so reads write nothing."""
    if keys:
        number = _next(connection)
        connection.executemany(
            "UPDATE atoll_tier_copy SET used = ? WHERE key = ?", [(number, key) for key in keys]
        )


def _evict(connection: apsw.Connection, bytes_max: int, now: float) -> None:
    ended = "key IN (SELECT key FROM atoll_tier_copy WHERE ends <= ? LIMIT ?)"
    _drop(connection, ended, now, EVICT_ROWS)
    unused = "key IN (SELECT key FROM atoll_tier_copy ORDER BY used LIMIT ?)"
    rows = 1
    while int(connection.execute("SELECT bytes FROM atoll_tier").get) > bytes_max:
        if not _drop(connection, unused, rows):
            return
        rows = min(rows * 2, EVICT_ROWS)


def _invalidate(connection: apsw.Connection, keys: Sequence[str], most: int) -> None:
    number = _next(connection, max(1, len(keys)))
    for key in keys:
        _drop(connection, "key = ?", key)
        connection.execute("INSERT OR REPLACE INTO atoll_tier_invalid VALUES (?, ?)", (key, number))
    # Crossings-out are told by their number, so their count is bounded by the span of the numbers kept.
    oldest = number - most
    forgotten: list[tuple[Any, ...]] = connection.execute(
        "DELETE FROM atoll_tier_invalid WHERE key IN (SELECT key FROM atoll_tier_invalid WHERE tally < ? "
        "LIMIT ?) RETURNING tally",
        (oldest, 256 + len(keys)),
    ).fetchall()
    if forgotten:
        connection.execute(
            "UPDATE atoll_tier SET oldest = max(oldest, ?)", (max(int(row[0]) for row in forgotten),)
        )


def _increment(connection: apsw.Connection, key: str, by: int, span: tuple[float, float], most: int) -> int:
    now, ends = span
    connection.execute(
        "DELETE FROM atoll_tier_counter WHERE key IN "
        "(SELECT key FROM atoll_tier_counter WHERE ends <= ? ORDER BY ends LIMIT 32)",
        (now,),
    )
    connection.execute("DELETE FROM atoll_tier_counter WHERE key = ? AND ends <= ?", (key, now))
    total = connection.execute(
        "INSERT INTO atoll_tier_counter VALUES (?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = value + excluded.value RETURNING value, rowid",
        (key, by, ends),
    ).fetchone()
    assert total is not None
    if int(total[1]) > most and int(connection.execute("SELECT count(*) FROM atoll_tier_counter").get) > most:
        connection.execute(
            "DELETE FROM atoll_tier_counter WHERE key IN (SELECT key FROM atoll_tier_counter "
            "WHERE key <> ? ORDER BY ends LIMIT 1)",
            (key,),
        )
    return int(total[0])
