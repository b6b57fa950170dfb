"""A promise to commit, for a database that has no PREPARE.

Write the cheque, put it in the safe, leave the money where it is, and reserve exactly that sum. What a branch
changed is recorded, taken back, and kept as redo beside locks on its rows, in one ordinary commit. From
then on carrying it out needs nothing but the file: no process, no memory, no luck.

Source: Mohan, Lindsay and Obermarck, Transaction Management in R* (1986), section 2; SQLite's session
extension. Departure: the changes of a prepared branch are not in the tables but beside them, so readers never
meet them. Before the promise is given the redo is rehearsed, and its rows are compared with the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw
import msgspec

from atoll.engines.sqlite import row_lock
from atoll.engines.sqlite.row_lock import Schema, Shape, quoted, shape_of
from atoll.errors import ConfigurationError, Conflict, LimitReached, NotApplied
from atoll.ports.participant import Finished, InDoubt, Outcome, Vote

FORMAT = 1
DDL = (
    *row_lock.DDL,
    """CREATE TABLE IF NOT EXISTS atoll_branch (
  id TEXT PRIMARY KEY NOT NULL,
  prepared_at REAL NOT NULL,
  shown TEXT NOT NULL,
  tables BLOB NOT NULL,
  redo BLOB NOT NULL
)""",
)
REDO_BYTES_MAX = 64 * 2**20
_OURS = ("atoll_branch", "atoll_row_lock", "atoll_format")
_DENIED = {
    apsw.SQLITE_ATTACH: "ATTACH",
    apsw.SQLITE_DETACH: "DETACH",
    apsw.SQLITE_TRANSACTION: "BEGIN, COMMIT or ROLLBACK",
    apsw.SQLITE_ALTER_TABLE: "ALTER TABLE",
    apsw.SQLITE_CREATE_TABLE: "CREATE TABLE",
    apsw.SQLITE_CREATE_INDEX: "CREATE INDEX",
    apsw.SQLITE_CREATE_TRIGGER: "CREATE TRIGGER",
    apsw.SQLITE_CREATE_VIEW: "CREATE VIEW",
    apsw.SQLITE_CREATE_VTABLE: "CREATE VIRTUAL TABLE",
    apsw.SQLITE_DROP_TABLE: "DROP TABLE",
    apsw.SQLITE_DROP_INDEX: "DROP INDEX",
    apsw.SQLITE_DROP_TRIGGER: "DROP TRIGGER",
    apsw.SQLITE_DROP_VIEW: "DROP VIEW",
    apsw.SQLITE_DROP_VTABLE: "DROP VIRTUAL TABLE",
    apsw.SQLITE_REINDEX: "REINDEX",
    apsw.SQLITE_ANALYZE: "ANALYZE",
}
_PRAGMAS = {"user_version", "application_id", "writable_schema", "foreign_keys", "schema_version"}


@dataclass
class Row:
    """One changed row: its table, its primary key, and what it looked like when the user was done."""

    shape: Shape
    key: tuple[Any, ...]
    image: tuple[Any, ...] | None


@dataclass
class Recording:
    """What a branch does to a database, while it does it. Used on the connection's own thread."""

    connection: apsw.Connection
    file: str
    touched: set[str] = field(default_factory=set)
    denied: list[str] = field(default_factory=list)
    rowids: dict[str, set[int]] = field(default_factory=dict)
    """Table -> rows written, by their place; only tables that have such places."""
    _session: apsw.Session | None = None

    def start(self) -> None:
        """Inside BEGIN IMMEDIATE: from here on everything is noted."""
        self.connection.execute("SAVEPOINT atoll_branch")
        self._session = apsw.Session(self.connection, "main")
        self._session.table_filter(self._note)
        self._session.attach()
        self.connection.authorizer = self._authorize
        self.connection.set_update_hook(self._place)

    def stop(self) -> bytes:
        """Note nothing more; the answer is the changes so far."""
        self.connection.authorizer = None
        self.connection.set_update_hook(None)
        session, self._session = self._session, None
        if session is None:
            return b""
        try:
            return bytes(session.changeset())
        finally:
            session.close()

    def _note(self, table: str) -> bool:
        self.touched.add(table)
        return table not in _OURS

    def _place(self, _action: int, _db: str, table: str, rowid: int) -> None:
        self.rowids.setdefault(table, set()).add(rowid)

    def _authorize(
        self, action: int, one: str | None, two: str | None, _db: str | None, _by: str | None
    ) -> int:
        what = _DENIED.get(action)
        if action == apsw.SQLITE_PRAGMA and two is not None and (one or "").lower() in _PRAGMAS:
            what = f"PRAGMA {one} = ..."
        if action == apsw.SQLITE_SAVEPOINT and two == "atoll_branch":
            what = "the savepoint atoll_branch"
        if what is None:
            return apsw.SQLITE_OK
        self.denied.append(what)
        return apsw.SQLITE_DENY


def prepare(recording: Recording, id: str, prepared_at: float) -> Vote:
    """Turn what was recorded into redo and locks, in the open transaction; the caller commits it, forced.

    READ_ONLY: nothing was changed, and the caller rolls back. NotApplied when the promise cannot be given.
    """
    connection, file = recording.connection, recording.file
    if connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0] > 0:
        raise NotApplied(
            f"a foreign key of {file} is not satisfied, so {id} cannot be committed. Nothing was written."
        )
    redo = recording.stop()
    schema = row_lock.schema_of(connection)
    tables = sorted(recording.touched - set(_OURS))
    shapes = {name: _usable(schema.shape(connection, name), name, file) for name in tables}
    _refuse_null_keys(recording, shapes)
    if not redo:
        return Vote.READ_ONLY
    if len(redo) > REDO_BYTES_MAX:
        raise LimitReached(
            f"the changes to {file} are {len(redo)} bytes, at most {REDO_BYTES_MAX}. Make it smaller."
        )
    locks: set[tuple[str, str]] = set()
    rows = [_changed(connection, shapes, change) for change in apsw.Changeset.iter(redo)]
    for row in rows:
        _name(connection, row, locks)
    counters = _counters(connection, shapes)
    connection.execute("ROLLBACK TO atoll_branch")
    for row in rows:
        _name(connection, row, locks)
    _refuse_null_keys(recording, shapes)
    _rehearse(connection, rows, redo, file)
    _Promise(id, prepared_at, file, redo, rows, locks).write(connection, schema)
    _raise_counters(connection, counters)
    return Vote.PREPARED


def _usable(shape: Shape | None, table: str, file: str) -> Shape:
    if shape is None or shape.kind != "table":
        raise ConfigurationError(
            f"{table} in {file} is a {shape.kind if shape else 'vanished'} table; a transaction over several "
            "databases can write ordinary tables only. Write it in a transaction of its own."
        )
    if not shape.key:
        raise ConfigurationError(
            f"the table {table} in {file} has no primary key, so its rows cannot be named. Give it one."
        )
    return shape


def _refuse_null_keys(recording: Recording, shapes: dict[str, Shape]) -> None:
    """A row whose key is NULL leaves no trace in a changeset, so its change would be lost."""
    for shape in shapes.values():
        if not shape.nullable:
            continue
        place = next((n for n in ("rowid", "oid", "_rowid_") if n not in map(str.lower, shape.columns)), None)
        absent = " OR ".join(f"{quoted(column)} IS NULL" for column in shape.key)
        asked = f"SELECT 1 FROM {quoted(shape.name)} WHERE ({absent})" + (
            f" AND {place} = ?" if place else ""
        )
        rows = [(row,) for row in recording.rowids.get(shape.name, ())] if place else [()]
        if any(recording.connection.execute(asked, row).fetchone() for row in rows):
            raise ConfigurationError(
                f"a row of {shape.name} in {recording.file} has NULL in its primary key, which names no row. "
                f"Declare {', '.join(shape.key)} NOT NULL."
            )


def _changed(connection: apsw.Connection, shapes: dict[str, Shape], change: Any) -> Row:
    shape = shapes[change.name]
    values = change.new if change.op == "INSERT" else change.old
    by_column = {shape.columns[place]: values[place] for place in change.pk_columns}
    key = tuple(by_column[column] for column in shape.key)
    return Row(shape, key, _image(connection, shape, key))


def _image(connection: apsw.Connection, shape: Shape, key: tuple[Any, ...]) -> tuple[Any, ...] | None:
    where = " AND ".join(f"{quoted(column)} IS ?" for column in shape.key)
    columns = ", ".join(map(quoted, shape.columns))
    found: tuple[Any, ...] | None = connection.execute(
        f"SELECT {columns} FROM {quoted(shape.name)} WHERE {where}", key
    ).fetchone()
    return found


def _name(connection: apsw.Connection, row: Row, locks: set[tuple[str, str]]) -> None:
    locks.update((row.shape.name, key) for key in row_lock.row_keys(connection, row.shape, row.key))
    locks.update((relative, row_lock.WHOLE) for relative in row.shape.relatives)


def _counters(connection: apsw.Connection, shapes: dict[str, Shape]) -> dict[str, int]:
    """Where AUTOINCREMENT stands, so that nobody is given the numbers of rows that wait."""
    answer = {}
    for shape in shapes.values():
        if shape.autoincrement:
            answer[shape.name] = connection.execute(
                "SELECT seq FROM main.sqlite_sequence WHERE name = ?", (shape.name,)
            ).get
    return {name: seq for name, seq in answer.items() if seq is not None}


def _raise_counters(connection: apsw.Connection, counters: dict[str, int]) -> None:
    for name, seq in counters.items():
        connection.execute("UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", (name, seq))
        if not connection.changes():
            connection.execute("INSERT INTO main.sqlite_sequence(name, seq) VALUES (?, ?)", (name, seq))


@contextmanager
def _bare(connection: apsw.Connection) -> Iterator[None]:
    """No triggers and no foreign keys: what they did is in the redo already, and must not happen twice."""
    before = {
        switch: connection.config(switch, -1)
        for switch in (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, apsw.SQLITE_DBCONFIG_ENABLE_FKEY)
    }
    for switch in before:
        connection.config(switch, 0)
    try:
        yield
    finally:
        for switch, was in before.items():
            connection.config(switch, was)


def _apply(connection: apsw.Connection, redo: bytes) -> None:
    with _bare(connection):
        apsw.Changeset.apply(redo, connection)


def _rehearse(connection: apsw.Connection, rows: list[Row], redo: bytes, file: str) -> None:
    connection.execute("SAVEPOINT atoll_rehearsal")
    try:
        _apply(connection, redo)
        wrong = [row for row in rows if _image(connection, row.shape, row.key) != row.image]
    except (apsw.AbortError, apsw.ConstraintError) as error:
        raise NotApplied(
            f"the changes to {file} cannot be made again: {error}. Nothing was written."
        ) from error
    finally:
        connection.execute("ROLLBACK TO atoll_rehearsal; RELEASE atoll_rehearsal")
    if wrong:
        raise NotApplied(
            f"a row of {wrong[0].shape.name} in {file} cannot be made a second time as it was made. "
            "Nothing was written; write this table in a transaction of its own."
        )


@dataclass(frozen=True)
class _Promise:
    id: str
    prepared_at: float
    file: str
    redo: bytes
    rows: list[Row]
    locks: set[tuple[str, str]]

    def write(self, connection: apsw.Connection, schema: Schema) -> None:
        """The locks, the triggers that keep them, the redo."""
        shapes = {row.shape.name: row.shape for row in self.rows}
        for name in {table for table, _ in self.locks} - shapes.keys():
            if (relative := schema.shape(connection, name)) is not None:
                shapes[relative.name] = relative
        for shape in shapes.values():
            row_lock.ensure_triggers(connection, schema, shape)
        row_lock.take(connection, self.id, sorted(self.locks), self.file)
        edition = connection.pragma("schema_version")  # after our triggers
        tables = msgspec.json.encode(
            [edition, {name: [shape.columns, shape.key] for name, shape in shapes.items()}]
        )
        try:
            connection.execute(
                "INSERT INTO atoll_branch(id, prepared_at, shown, tables, redo) VALUES (?, ?, ?, ?, ?)",
                (self.id, self.prepared_at, _shown(self.locks), tables, self.redo),
            )
        except apsw.ConstraintError:
            raise Conflict(f"{self.id} is prepared in {self.file} already. Begin anew.") from None


def _shown(locks: set[tuple[str, str]]) -> str:
    names = [f"{table}({key})" for table, key in sorted(locks)]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def finish(connection: apsw.Connection, id: str, outcome: Outcome, file: str) -> Finished:
    """Carry out or drop a prepared branch, in the open transaction; the caller commits it."""
    if not _standing(connection):
        return Finished.ABSENT
    found = connection.execute("SELECT tables, redo FROM atoll_branch WHERE id = ?", (id,)).fetchone()
    if found is None:
        return Finished.ABSENT
    if outcome is Outcome.COMMIT:
        _refuse_altered(connection, id, found[0], file)
        try:
            _apply(connection, found[1])
        except (apsw.AbortError, apsw.ConstraintError) as error:
            raise Conflict(
                f"the promised changes of {id} to {file} cannot be made: {error}. Someone changed locked "
                "rows past the triggers. The branch is kept; restore the rows and it goes through."
            ) from error
    row_lock.drop(connection, id)
    connection.execute("DELETE FROM atoll_branch WHERE id = ?", (id,))
    return Finished.DONE


def _refuse_altered(connection: apsw.Connection, id: str, tables: bytes, file: str) -> None:
    """SQLite skips a table that does not fit its changes; a promise may not be skipped."""
    edition, promised = msgspec.json.decode(tables)
    if edition == connection.pragma("schema_version"):
        return
    for name, (columns, key) in promised.items():
        shape = shape_of(connection, name)
        if shape is None or list(shape.columns[: len(columns)]) != columns or list(shape.key) != key:
            raise Conflict(
                f"the table {name} in {file} was altered or dropped while {id} was prepared. The branch "
                f"is kept; give the table its columns again ({', '.join(columns)}) and it goes through."
            )


def in_doubt(connection: apsw.Connection, prefix: str) -> list[InDoubt]:
    """The prepared branches whose ids start with `prefix`, the oldest first."""
    if not _standing(connection):
        return []
    return [
        InDoubt(id=id, prepared_at=at, locks=shown)
        for id, at, shown in connection.execute(
            "SELECT id, prepared_at, shown FROM atoll_branch WHERE substr(id, 1, length(?1)) = ?1 "
            "ORDER BY prepared_at, id",
            (prefix,),
        )
    ]


def _standing(connection: apsw.Connection) -> bool:
    return connection.execute("SELECT 1 FROM main.sqlite_schema WHERE name = 'atoll_branch'").get is not None
