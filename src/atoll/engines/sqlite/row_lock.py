"""Locks on rows that live in the file and bind everybody who writes it.

A "reserved" card on a restaurant table: it stands there whoever comes in, and also when the waiter who put
it there has gone home. The cards are rows of one table; triggers on the user's tables look at them, so a
program that never heard of Atoll is refused too.

Source: Gray and Reuter, Transaction Processing (1993), 7.8: locks of a prepared transaction survive.
Departure: a lock is on a *value* of the primary key or of a unique index, not on a place, so a row that is
not there yet can be locked. Where a value cannot be named safely (REAL, another collation than BINARY, a
partial index, a foreign key), the whole table is locked: key `*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import apsw

from atoll.errors import Conflict

WHOLE = "*"
LOCKED = "atoll: a prepared transaction holds this row; try again when it is decided"
"""What a writer's SQLite says. Strangers see it as a constraint error."""

DDL = (
    """CREATE TABLE IF NOT EXISTS atoll_row_lock (
  tbl TEXT NOT NULL,
  key TEXT NOT NULL,
  branch TEXT NOT NULL,
  PRIMARY KEY (tbl, key)
) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS atoll_row_lock_branch ON atoll_row_lock (branch)",
)


def quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string as SQL."""
    return "'" + value.replace("'", "''") + "'"


def refused(error: BaseException) -> bool:
    """Whether `error` is a lock's trigger refusing a write."""
    return isinstance(error, apsw.ConstraintError) and LOCKED in str(error)


def conflict(name: str) -> Conflict:
    """A lock's refusal in Atoll's words."""
    return Conflict(
        f"a row to be written in {name} is held by a prepared transaction of someone else. Nothing was "
        "written; begin again when that one is decided (atoll transactions shows it)."
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a table decides how its rows are named and locked."""

    name: str
    columns: tuple[str, ...]
    """Those that are stored as written; generated ones are not among them."""
    affinities: dict[str, str]
    key: tuple[str, ...]
    """The primary key's columns; empty: none."""
    nullable: bool
    """The primary key may hold NULL, which names no row."""
    autoincrement: bool
    unique: tuple[tuple[str, ...], ...]
    """Further unique indexes whose values can be named."""
    whole: bool
    relatives: tuple[str, ...]
    """Tables tied to it by foreign keys, either way."""
    kind: str

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Every list of columns by which a row of it can be named."""
        return (self.key, *self.unique)


@dataclass
class Schema:
    """What a connection has learnt of its file's tables, good for one committed edition of the schema."""

    version: int
    shapes: dict[str, Shape | None] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)
    """Tables whose triggers stand as they should."""

    def shape(self, connection: apsw.Connection, table: str) -> Shape | None:
        """The table, looked up once."""
        if table not in self.shapes:
            self.shapes[table] = shape_of(connection, table)
        return self.shapes[table]


_schemas: WeakKeyDictionary[apsw.Connection, Schema] = WeakKeyDictionary()


def schema_of(connection: apsw.Connection) -> Schema:
    """Ask before any DDL of one's own: an edition that is rolled back is never remembered."""
    version = connection.pragma("schema_version")
    known = _schemas.get(connection)
    if known is None or known.version != version:
        known = _schemas[connection] = Schema(version)
    return known


def shape_of(connection: apsw.Connection, table: str) -> Shape | None:
    """The table as it is now, None if there is none."""
    found = connection.execute(
        "SELECT name, type, wr, strict FROM pragma_table_list "
        "WHERE schema = 'main' AND lower(name) = lower(?)",
        (table,),
    ).fetchone()
    if found is None:
        return None
    name, kind, without_rowid, strict = found
    info = list(
        connection.execute('SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?)', (name,))
    )
    key = tuple(row[0] for row in sorted(info, key=lambda row: row[3]) if row[3])
    sql = connection.execute(
        "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?", (name,)
    ).get
    alias = len(key) == 1 and not without_rowid and any(r[3] and r[1].upper() == "INTEGER" for r in info)
    unique, whole = _unique(connection, name)
    relatives = _relatives(connection, name)
    return Shape(
        name=name,
        columns=tuple(row[0] for row in info if not row[4]),
        affinities={row[0]: _affinity(row[1], bool(strict)) for row in info},
        key=key,
        nullable=not without_rowid and not alias and not all(row[2] for row in info if row[3]),
        autoincrement=alias and bool(re.search(r"\bautoincrement\b", sql or "", re.IGNORECASE)),
        unique=unique,
        whole=whole or bool(relatives),
        relatives=relatives,
        kind=kind,
    )


def _unique(connection: apsw.Connection, table: str) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """The unique indexes beside the primary key; True when one of all cannot be locked by value."""
    found, whole = [], False
    for index, origin, partial in connection.execute(
        'SELECT name, origin, partial FROM pragma_index_list(?) WHERE "unique"', (table,)
    ):
        columns = list(
            connection.execute("SELECT name, cid, coll FROM pragma_index_xinfo(?) WHERE key", (index,))
        )
        whole |= bool(partial) or any(cid < 0 or coll != "BINARY" for _, cid, coll in columns)
        if origin != "pk":
            found.append(tuple(name for name, _, _ in columns))
    return (() if whole else tuple(sorted(found))), whole


def _relatives(connection: apsw.Connection, table: str) -> tuple[str, ...]:
    rows = connection.execute(
        'SELECT m.name, f."table" FROM main.sqlite_schema m, pragma_foreign_key_list(m.name) f '
        "WHERE m.type = 'table'"
    )
    low = table.lower()
    found = {
        child if parent.lower() == low else parent
        for child, parent in rows
        if low in (child.lower(), parent.lower())
    }
    return tuple(sorted(found))


def _affinity(declared: str, strict: bool) -> str:
    """How a column turns what is written to it; https://sqlite.org/datatype3.html 3.1."""
    upper = declared.upper()
    if strict and upper == "ANY":
        return "BLOB"
    if "INT" in upper:
        return "INTEGER"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not upper or "BLOB" in upper:
        return "BLOB"
    return "REAL" if any(word in upper for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def key_sql(columns: Sequence[str], row: str = "") -> str:
    """The SQL that names a row by `columns`: the same for us and in a stranger's trigger."""
    parts = " || ',' || ".join(f"quote({row}{quoted(column)})" for column in columns)
    return f"{text(','.join(columns) + '=')} || {parts}"


def triggers(shape: Shape) -> dict[str, str]:
    """The triggers that keep a table's locks: name -> SQL. They stand for good and cost one look-up a row."""
    new = [key_sql(columns, "NEW.") for columns in shape.names if columns]
    old = key_sql(shape.key, "OLD.")
    looks = {"INSERT": new, "UPDATE": [old, *new], "DELETE": [old]}
    answer = {}
    for verb, keys in looks.items():
        name = f"atoll_lock_{verb.lower()}_{shape.name}"
        answer[name] = (
            f"CREATE TRIGGER {quoted(name)} AFTER {verb} ON {quoted(shape.name)} "
            f"WHEN EXISTS (SELECT 1 FROM atoll_row_lock WHERE tbl = {text(shape.name)} "
            f"AND key IN ({', '.join([text(WHOLE), *keys])})) "
            f"BEGIN SELECT RAISE(ABORT, {text(LOCKED)}); END"
        )
    return answer


def ensure_triggers(connection: apsw.Connection, schema: Schema, shape: Shape) -> None:
    """Make a table's triggers, or make them anew after its keys have changed."""
    if shape.name in schema.guarded:
        return
    wanted = triggers(shape)
    standing = dict(
        connection.execute(
            "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ? "
            "AND name LIKE 'atoll\\_lock\\_%' ESCAPE '\\'",
            (shape.name,),
        )
    )
    if standing == wanted:
        schema.guarded.add(shape.name)
        return
    for name in standing.keys() - wanted.keys():
        connection.execute(f"DROP TRIGGER {quoted(name)}")
    for name, sql in wanted.items():
        if standing.get(name) != sql:
            connection.execute(f"DROP TRIGGER IF EXISTS {quoted(name)}")
            connection.execute(sql)


def row_keys(connection: apsw.Connection, shape: Shape, key: Sequence[object]) -> set[str]:
    """Every name of the row with primary key `key` as it stands; `*` where one cannot be told safely."""
    if shape.whole:
        return {WHOLE}
    where = " AND ".join(f"{quoted(column)} IS ?" for column in shape.key)
    asked = [f"{key_sql(columns)}, {_plain(shape, columns)}" for columns in shape.names]
    found = connection.execute(
        f"SELECT {', '.join(asked)} FROM {quoted(shape.name)} WHERE {where}", key
    ).fetchone()
    if found is None:
        return set()
    keys = set()
    for name, plain in zip(found[::2], found[1::2], strict=True):
        if plain is not None:  # NULL: a value of a unique index that equals no other
            keys.add(name if plain else WHOLE)
    return keys


def _plain(shape: Shape, columns: Sequence[str]) -> str:
    """SQL: 1 if each value's text names it exactly, 0 if not, NULL if one is NULL."""
    terms = []
    for column in columns:
        integers = shape.affinities[column] in ("INTEGER", "NUMERIC")
        exact = "'text', 'blob', 'integer'" if integers else "'text', 'blob'"
        terms.append(
            f"CASE WHEN {quoted(column)} IS NULL THEN NULL "
            f"WHEN typeof({quoted(column)}) IN ({exact}) THEN 1 ELSE 0 END"
        )
    return " * ".join(f"({term})" for term in terms)


def take(connection: apsw.Connection, branch: str, keys: Iterable[tuple[str, str]], file: str) -> None:
    """Lock (table, key) pairs for `branch`; Conflict where another branch stands in the way."""
    for table, key in keys:
        other = connection.execute(
            "SELECT 1 FROM atoll_row_lock WHERE tbl = ?1 AND branch <> ?3 "
            "AND (?2 = '*' OR key IN (?2, '*')) LIMIT 1",
            (table, key, branch),
        ).fetchone()
        if other is not None:
            raise conflict(f"{file}, table {table}")
        connection.execute(
            "INSERT OR IGNORE INTO atoll_row_lock(tbl, key, branch) VALUES (?, ?, ?)", (table, key, branch)
        )


def drop(connection: apsw.Connection, branch: str) -> None:
    """Give back every lock of `branch`."""
    connection.execute("DELETE FROM atoll_row_lock WHERE branch = ?", (branch,))
