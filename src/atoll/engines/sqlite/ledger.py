"""Ledger: the store's tables, and what one transaction does to them. Plain SQL on a given connection.

Two books lie open. In one each key has its present line; in the other every transaction is entered
under the next number, one line per key it touched. The last number in the second book *is* the
store's revision, so there is no counter that could disagree with it.

Everything here runs inside a transaction that someone else begins and commits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import apsw

from atoll.engines.sqlite.limits import StoreOptions
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry, Got, Unmet
from atoll.ports.store import Compare, Guard, Operation, Put, Ranged

PART, FORMAT = "store", 2
UPGRADES: dict[int, tuple[str, ...]] = {1: ()}
"""Format 2 added no table: a frozen note may stand in atoll_store, and format 1 would not heed it."""
DDL = (
    """CREATE TABLE atoll_entry (
        key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL,
        create_revision INTEGER NOT NULL, lease TEXT
    ) WITHOUT ROWID""",
    "CREATE INDEX atoll_entry_lease ON atoll_entry (lease) WHERE lease IS NOT NULL",
    # One line per key that a transaction touched; key NULL: it touched none. value NULL: removed.
    """CREATE TABLE atoll_event (
        revision INTEGER NOT NULL, place INTEGER NOT NULL, key TEXT, value BLOB,
        create_revision INTEGER, lease TEXT, at REAL NOT NULL, PRIMARY KEY (revision, place)
    ) WITHOUT ROWID""",
    """CREATE TABLE atoll_lease (
        id TEXT PRIMARY KEY NOT NULL, ttl_s REAL NOT NULL, expires REAL NOT NULL,
        boot_id TEXT NOT NULL, wall REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX atoll_lease_expires ON atoll_lease (expires)",
    """CREATE TABLE atoll_request (
        id TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, at REAL NOT NULL, boot_id TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX atoll_request_at ON atoll_request (at)",
    "CREATE TABLE atoll_store (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO atoll_store VALUES ('epoch', 1)",
)
_ENTRY = "SELECT key, value, revision, create_revision, lease FROM atoll_entry"
_TRIM_EVERY = 64


class Times(NamedTuple):
    """The clocks as one piece of work saw them, on the writer's thread. Seconds."""

    boot_id: str
    lease_now: float
    wall_now: float


Clocks = Callable[[], Times]


class Asked(NamedTuple):
    """One call of `transact`."""

    then: Sequence[Operation]
    compare: Sequence[Compare]
    guard: Guard | None
    request_id: str | None


def revision(connection: apsw.Connection) -> int:
    """The number of the last transaction; 0 in a new store."""
    return int(connection.execute("SELECT max(revision) FROM atoll_event").get or 0)


def epoch(connection: apsw.Connection) -> int:
    """The first half of every token."""
    return int(connection.execute("SELECT value FROM atoll_store WHERE name = 'epoch'").get)


def bump(connection: apsw.Connection, above: int) -> int:
    """Raise the epoch to one more than both its own and `above`."""
    connection.execute("UPDATE atoll_store SET value = max(value, ?) + 1 WHERE name = 'epoch'", (above,))
    return epoch(connection)


def frozen(connection: apsw.Connection) -> str | None:
    """The note that the store was frozen with; kept as a BLOB, which no column makes a number of."""
    note = connection.execute("SELECT value FROM atoll_store WHERE name = 'frozen'").get
    return None if note is None else bytes(note).decode()


def freeze(connection: apsw.Connection, note: str | None) -> None:
    """Write the note, or take it down."""
    connection.execute("DELETE FROM atoll_store WHERE name = 'frozen'")
    if note is not None:
        connection.execute("INSERT INTO atoll_store VALUES ('frozen', ?)", (note.encode(),))


def entry(connection: apsw.Connection, key: str) -> Entry | None:
    """What stands at `key`."""
    row = connection.execute(f"{_ENTRY} WHERE key = ?", (key,)).get
    return None if row is None else Entry(*row)


def got(connection: apsw.Connection, key: str) -> Got:
    """What stands at `key`, and the revision."""
    return Got(entry(connection, key), revision(connection))


def ranged(
    connection: apsw.Connection, prefix: str, start: str | None, end: str | None, limit: int
) -> Ranged:
    """At most `limit` entries in key order (-1: all), and whether there are more."""
    where, values = bounds("key", *refusal.bounds(prefix, start, end))
    rows: list[tuple[Any, ...]] = connection.execute(
        f"{_ENTRY} WHERE {where} ORDER BY key LIMIT ?", (*values, limit + 1 if limit >= 0 else -1)
    ).fetchall()
    more = 0 <= limit < len(rows)
    entries = tuple(Entry(*row) for row in (rows[:limit] if more else rows))
    return Ranged(entries, revision(connection), more)


def bounds(column: str, low: str, high: str | None) -> tuple[str, tuple[str, ...]]:
    """The span as SQL and its values."""
    if high is None:
        return f"{column} >= ?", (low,)
    return f"{column} >= ? AND {column} < ?", (low, high)


def transact(
    connection: apsw.Connection, asked: Asked, times: Times, options: StoreOptions
) -> Applied | Unmet:
    """Judge and, if all holds, write. Expired leases must have been swept before."""
    if asked.request_id is not None:
        known = connection.execute(
            "SELECT revision FROM atoll_request WHERE id = ? AND boot_id = ? AND at > ?",
            (asked.request_id, times.boot_id, times.lease_now - options.dedupe_window_s),
        ).get
        if known is not None:
            return Applied(known, replayed=True)
    if asked.then and (note := frozen(connection)) is not None:
        raise refusal.frozen(f"sqlite:///{connection.filename}", note)
    if asked.guard is not None:
        owner = entry(connection, asked.guard.owner_key)
        refusal.check_guard(asked.guard, owner, epoch(connection), revision(connection))
    if asked.compare:
        seen = {comparison.key: entry(connection, comparison.key) for comparison in asked.compare}
        if not all(comparison.holds(seen[comparison.key]) for comparison in asked.compare):
            return Unmet(seen, revision(connection))
    for lease in {op.lease for op in asked.then if isinstance(op, Put) and op.lease is not None}:
        check_living(connection, lease)
    if not asked.then:
        return Applied(revision(connection))
    applied = apply(connection, asked.then, times)
    if asked.request_id is not None:
        _remember(connection, asked.request_id, applied.revision, times, options)
    if applied.revision % _TRIM_EVERY == 0:
        trim(connection, applied.revision, times, options)
    return applied


def apply(connection: apsw.Connection, then: Sequence[Operation], times: Times) -> Applied:
    """Write `then` as the next revision, in both books."""
    number = revision(connection) + 1
    results: list[Entry | None] = []
    events: list[tuple[Any, ...]] = []
    for operation in then:
        if isinstance(operation, Put):
            created = connection.execute(
                "INSERT INTO atoll_entry VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "value = excluded.value, revision = excluded.revision, lease = excluded.lease "
                "RETURNING create_revision",
                (operation.key, operation.value, number, number, operation.lease),
            ).get
            results.append(Entry(operation.key, operation.value, number, created, operation.lease))
            events.append((operation.key, operation.value, created, operation.lease))
        else:
            gone = entry(connection, operation.key)
            results.append(gone)
            if gone is not None:
                connection.execute("DELETE FROM atoll_entry WHERE key = ?", (operation.key,))
                events.append((operation.key, None, gone.create_revision, None))
    record(connection, number, events, times)
    return Applied(number, tuple(results))


def record(connection: apsw.Connection, number: int, events: list[tuple[Any, ...]], times: Times) -> None:
    """Enter transaction `number` in the second book; one that touched nothing is entered too."""
    for place, (key, value, created, lease) in enumerate(events or [(None, None, None, None)]):
        connection.execute(
            "INSERT INTO atoll_event VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, place, key, value, created, lease, times.wall_now),
        )


def check_living(connection: apsw.Connection, lease: str) -> None:
    """Raise LeaseOver unless `lease` stands."""
    if connection.execute("SELECT 1 FROM atoll_lease WHERE id = ?", (lease,)).get is None:
        raise refusal.lease_over(lease)


def trim(connection: apsw.Connection, newest: int, times: Times, options: StoreOptions) -> None:
    """Forget transactions beyond the count and the age kept; the newest always stays."""
    young = connection.execute(
        "SELECT revision FROM atoll_event WHERE at >= ? ORDER BY revision LIMIT 1",
        (times.wall_now - options.history_s_max,),
    ).get
    oldest = max(newest - options.history_max + 1, newest if young is None else young)
    connection.execute("DELETE FROM atoll_event WHERE revision < ?", (min(oldest, newest),))


def _remember(
    connection: apsw.Connection, request_id: str, number: int, times: Times, options: StoreOptions
) -> None:
    """Keep the request's answer; what is past its window goes, never anything younger."""
    connection.execute(
        "DELETE FROM atoll_request WHERE at <= ?", (times.lease_now - options.dedupe_window_s,)
    )
    connection.execute(
        "INSERT INTO atoll_request VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "revision = excluded.revision, at = excluded.at, boot_id = excluded.boot_id",
        (request_id, number, times.lease_now, times.boot_id),
    )
