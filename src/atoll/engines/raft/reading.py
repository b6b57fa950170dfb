"""Reading: what a member reads from its own copy of the book, for clients and for those who watch.

A reading room with one reader's desk. Whatever is carried out is cut into parcels that fit through the door,
and what was cut off says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import apsw

from atoll.engines.raft.wire import Leaf, News, Row, Rows
from atoll.engines.sqlite import ledger
from atoll.ports import refusal

EVENTS_MAX = 1000
"""Lines of history read at once."""
HASTY_BYTES = 256 << 10
"""Values in one range that is read in the node's loop."""
BYTES_MAX = 512 << 10
"""Values in one page of history, beyond the first transaction's."""
RANGE_BYTES_MAX = 64 << 20
"""Values in one range; what is beyond is cut off, with `more`."""
PARCEL_BYTES = 1 << 20

_ENTRY = "SELECT key, value, revision, create_revision, lease FROM atoll_entry"


def get(connection: apsw.Connection, key: str) -> Rows:
    """What stands at `key`."""
    row = connection.execute(f"{_ENTRY} WHERE key = ?", (key,)).get
    return Rows([] if row is None else [row], ledger.revision(connection))


class TooMuch(Exception):
    """What was to be read in haste is more than the loop may stand still for."""


def span(connection: apsw.Connection, low: str, high: str | None, limit: int, *, hasty: bool = False) -> Rows:
    """At most `limit` entries in key order (-1: all). `hasty`: raises TooMuch beyond HASTY_BYTES."""
    where, values = ledger.bounds("key", low, high)
    rows: list[Row] = []
    size = 0
    asked = connection.execute(
        f"{_ENTRY} WHERE {where} ORDER BY key LIMIT ?", (*values, limit + (limit >= 0))
    )
    for row in asked:
        if limit >= 0 and (len(rows) >= limit or size > RANGE_BYTES_MAX):
            return Rows(rows, ledger.revision(connection), more=True)
        rows.append(row)
        size += len(row[1])
        if hasty and size > HASTY_BYTES:
            raise TooMuch
    return Rows(rows, ledger.revision(connection))


def look(connection: apsw.Connection, prefix: str, after: int | None, *, all: bool) -> Leaf:
    """The transactions after `after`, or where they are gone, or `after` is None, the present state."""
    epoch, newest = ledger.epoch(connection), ledger.revision(connection)
    oldest = int(connection.execute("SELECT min(revision) FROM atoll_event").get or 1)
    low, high = refusal.span(prefix)
    if after is None or after < oldest - 1 or after > newest:
        rows = span(connection, low, high, -1).rows
        return Leaf(epoch, newest, oldest, rows, [], None, full=False)
    if after == newest:
        return Leaf(epoch, newest, oldest, None, [], None, full=False)
    where, values = ledger.bounds("key", low, high)
    last = min(newest, after + EVENTS_MAX)
    lines = connection.execute(
        "SELECT revision, key, value, create_revision, lease FROM atoll_event WHERE revision > ? AND "
        f"revision <= ? AND {'1' if all else where} ORDER BY revision, place",
        (after, last, *(() if all else values)),
    )
    changes: list[tuple[int, list[Row], list[str]]] = []
    size = 0
    for number, touched in groupby(lines, key=lambda line: line[0]):
        if size > BYTES_MAX:
            last = number - 1
            break
        put, gone, weight = _change(number, touched, prefix)
        changes.append((number, put, gone))
        size += weight
    return Leaf(epoch, last, oldest, None, changes, None, full=last < newest)


def _change(number: int, touched: Iterator[Any], prefix: str) -> tuple[list[Row], list[str], int]:
    put: list[Row] = []
    gone: list[str] = []
    weight = 0
    for _, key, value, created, lease in touched:
        if key is None or not key.startswith(prefix):
            continue
        if value is None:
            gone.append(key)
        else:
            put.append((key, value, number, created, lease))
            weight += len(value)
        weight += 2 * len(key) + 64
    return put, gone, weight


def news(connection: apsw.Connection) -> News:
    """How far the book has come."""
    newest = ledger.revision(connection)
    return News(newest, newest, [])


def parcels(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows in lists that each fit into a frame."""
    parcel: list[Row] = []
    size = 0
    for row in rows:
        weight = len(row[1]) + 2 * len(row[0]) + 64
        if parcel and size + weight > PARCEL_BYTES:
            yield parcel
            parcel, size = [], 0
        parcel.append(row)
        size += weight
    yield parcel
