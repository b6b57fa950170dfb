"""After PREPARED a commit never fails for a reason in the data, whoever writes the file meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from stranger import Refusal, Stranger

from atoll.engines.sqlite import changeset, row_lock
from atoll.engines.sqlite.changeset import DDL, Recording
from atoll.errors import ConfigurationError, Conflict, NotApplied
from atoll.ports.participant import Finished, Outcome, Vote

SCHEMA = """
CREATE TABLE plane(tail TEXT PRIMARY KEY, hours INTEGER NOT NULL);
CREATE TABLE seat(id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT UNIQUE, who TEXT);
CREATE TABLE pair(a INTEGER, b TEXT, v REAL, PRIMARY KEY(a, b)) WITHOUT ROWID;
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(
    id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE name(n TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v INTEGER);
CREATE TABLE ratio(r REAL PRIMARY KEY NOT NULL, v INTEGER);
CREATE TABLE loose(x);
CREATE TABLE tally(kind TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL);
CREATE TABLE event(
    size INTEGER GENERATED ALWAYS AS (length(kind)) STORED, id INTEGER PRIMARY KEY, kind TEXT NOT NULL);
CREATE TRIGGER counted AFTER INSERT ON event BEGIN UPDATE tally SET n = n + 1 WHERE kind = NEW.kind; END;
CREATE VIRTUAL TABLE words USING fts5(body);
INSERT INTO plane VALUES ('N1', 1), ('N2', 2), ('N3', 3);
INSERT INTO seat(place, who) VALUES ('1A', 'ann'), ('1B', 'bob');
INSERT INTO pair VALUES (1, 'x', 0.5);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1);
INSERT INTO name VALUES ('Ada', 1);
INSERT INTO ratio VALUES (0.5, 1);
INSERT INTO tally VALUES ('go', 0);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    connection = apsw.Connection(str(tmp_path / "shop.db"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(";\n".join((SCHEMA, *DDL)))
    connection.close()
    return tmp_path / "shop.db"


@pytest.fixture
def connection(path: Path) -> Iterator[apsw.Connection]:
    opened = apsw.Connection(str(path))
    opened.set_busy_timeout(5000)
    yield opened
    opened.close()


@pytest.fixture
def stranger(path: Path) -> Iterator[Stranger]:
    with Stranger(path) as found:
        yield found


def branch(connection: apsw.Connection, sql: str, id: str = "t/1") -> Vote:
    """One branch, as far as its promise; rolled back when it cannot be given."""
    connection.execute("BEGIN IMMEDIATE")
    recording = Recording(connection, "shop")
    try:
        recording.start()
        connection.execute(sql)
        vote = changeset.prepare(recording, id, 100.0)
    except BaseException:
        recording.stop()
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT" if vote is Vote.PREPARED else "ROLLBACK")
    return vote


def settle(connection: apsw.Connection, outcome: Outcome = Outcome.COMMIT, id: str = "t/1") -> Finished:
    connection.execute("BEGIN IMMEDIATE")
    try:
        answer = changeset.finish(connection, id, outcome, "shop")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return answer


def rows(connection: apsw.Connection, sql: str) -> list[tuple[object, ...]]:
    return list(connection.execute(sql))


def test_nobody_sees_a_prepared_change_before_its_commit(
    connection: apsw.Connection, stranger: Stranger
) -> None:
    assert branch(connection, "UPDATE plane SET hours = 10 WHERE tail = 'N1'") is Vote.PREPARED
    assert stranger.execute("SELECT hours FROM plane WHERE tail = 'N1'") == [[1]]
    assert [doubt.id for doubt in changeset.in_doubt(connection, "t/")] == ["t/1"]
    assert settle(connection) is Finished.DONE
    assert stranger.execute("SELECT hours FROM plane WHERE tail = 'N1'") == [[10]]
    assert changeset.in_doubt(connection, "") == []
    assert settle(connection) is Finished.ABSENT


def test_an_abort_leaves_everything_as_it_was(connection: apsw.Connection, stranger: Stranger) -> None:
    before = rows(connection, "SELECT * FROM plane")
    branch(connection, "DELETE FROM plane; INSERT INTO plane VALUES ('N9', 9)")
    assert settle(connection, Outcome.ABORT) is Finished.DONE
    assert rows(connection, "SELECT * FROM plane") == before
    stranger.execute("UPDATE plane SET hours = 7 WHERE tail = 'N1'")
    assert rows(connection, "SELECT count(*) FROM atoll_row_lock") == [(0,)]


def test_a_branch_that_wrote_nothing_is_over_at_once(connection: apsw.Connection) -> None:
    assert branch(connection, "SELECT * FROM plane") is Vote.READ_ONLY
    assert branch(connection, "UPDATE plane SET hours = hours") is Vote.READ_ONLY
    assert changeset.in_doubt(connection, "") == []


MEDDLING = [
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "UPDATE plane SET hours = 6 WHERE tail = 'N1'"),
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "DELETE FROM plane WHERE tail = 'N1'"),
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "DELETE FROM plane"),
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "REPLACE INTO plane VALUES ('N1', 6)"),
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "UPDATE plane SET tail = 'N7' WHERE tail = 'N1'"),
    (
        "UPDATE plane SET hours = 5 WHERE tail = 'N1'",
        "UPDATE OR REPLACE plane SET tail = 'N1' WHERE tail = 'N2'",
    ),
    (
        "UPDATE plane SET hours = 5 WHERE tail = 'N1'",
        "INSERT INTO plane VALUES ('N1', 0) ON CONFLICT DO UPDATE SET hours = 9",
    ),
    ("INSERT INTO plane VALUES ('N9', 1)", "INSERT INTO plane VALUES ('N9', 2)"),
    ("INSERT INTO plane VALUES ('N9', 1)", "INSERT OR IGNORE INTO plane VALUES ('N9', 2)"),
    ("INSERT INTO plane VALUES ('N9', 1)", "INSERT OR REPLACE INTO plane VALUES ('N9', 2)"),
    ("INSERT INTO plane VALUES ('N9', 1)", "UPDATE OR IGNORE plane SET tail = 'N9' WHERE tail = 'N1'"),
    ("DELETE FROM plane WHERE tail = 'N1'", "UPDATE plane SET hours = 6 WHERE tail = 'N1'"),
    ("UPDATE plane SET tail = 'N8' WHERE tail = 'N1'", "INSERT INTO plane VALUES ('N8', 2)"),
    ("UPDATE plane SET tail = 'N8' WHERE tail = 'N1'", "UPDATE plane SET hours = 4 WHERE tail = 'N1'"),
    ("INSERT INTO seat(place) VALUES ('2A')", "INSERT INTO seat(place) VALUES ('2A')"),
    ("INSERT INTO seat(place) VALUES ('2A')", "UPDATE seat SET place = '2A' WHERE place = '1A'"),
    ("INSERT INTO seat(place) VALUES ('2A')", "REPLACE INTO seat(id, place) VALUES (77, '2A')"),
    ("UPDATE seat SET who = 'eve' WHERE place = '1A'", "REPLACE INTO seat(id, place) VALUES (77, '1A')"),
    (
        "UPDATE seat SET who = 'eve' WHERE place = '1A'",
        "UPDATE OR REPLACE seat SET place = '1A' WHERE place = '1B'",
    ),
    ("UPDATE seat SET place = '3C' WHERE place = '1A'", "REPLACE INTO seat(id, place) VALUES (77, '1A')"),
    ("UPDATE pair SET v = 1.5", "UPDATE pair SET v = 2.5"),
    ("INSERT INTO pair VALUES (2, 'y', 1)", "INSERT INTO pair VALUES ('2', 'y', 3)"),
    ("DELETE FROM parent WHERE id = 2", "INSERT INTO child VALUES (5, 2)"),
    ("INSERT INTO child VALUES (5, 2)", "DELETE FROM parent WHERE id = 2"),
    ("INSERT INTO name VALUES ('Bea', 1)", "INSERT INTO name VALUES ('BEA', 2)"),
    ("INSERT INTO ratio VALUES (0.1, 1)", "INSERT INTO ratio VALUES (1e-1, 2)"),
    ("INSERT INTO event(kind) VALUES ('go')", "UPDATE tally SET n = 100"),
]


@pytest.mark.parametrize(("ours", "theirs"), MEDDLING)
def test_a_stranger_cannot_write_what_a_prepared_branch_will_write(
    connection: apsw.Connection, stranger: Stranger, ours: str, theirs: str
) -> None:
    assert branch(connection, ours) is Vote.PREPARED
    with pytest.raises(Refusal, match="prepared transaction"):
        stranger.execute(theirs)
    with pytest.raises(apsw.ConstraintError) as refusal:
        branch(connection, theirs, "t/2")
    assert row_lock.refused(refusal.value)
    assert settle(connection) is Finished.DONE
    assert rows(connection, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(("ours", "theirs"), MEDDLING)
def test_without_the_triggers_the_same_meddling_goes_through(
    connection: apsw.Connection, stranger: Stranger, ours: str, theirs: str
) -> None:
    """The negative control: the refusals above are the triggers', not luck."""
    branch(connection, ours)
    for (name,) in rows(connection, "SELECT name FROM sqlite_schema WHERE name LIKE 'atoll_lock_%'"):
        connection.execute(f'DROP TRIGGER "{name}"')
    stranger.execute(theirs)


FREE = [
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "UPDATE plane SET hours = 6 WHERE tail = 'N2'"),
    ("UPDATE plane SET hours = 5 WHERE tail = 'N1'", "INSERT INTO plane VALUES ('N9', 1)"),
    ("INSERT INTO seat(place) VALUES ('2A')", "INSERT INTO seat(place) VALUES ('2B')"),
    ("INSERT INTO seat(place) VALUES (NULL)", "INSERT INTO seat(place) VALUES (NULL)"),
    ("UPDATE pair SET v = 1.5", "INSERT INTO pair VALUES (1, 'y', 2.5)"),
    ("INSERT INTO event(kind) VALUES ('other')", "UPDATE tally SET n = 100"),
]


@pytest.mark.parametrize(("ours", "theirs"), FREE)
def test_other_rows_stay_free(
    connection: apsw.Connection, stranger: Stranger, ours: str, theirs: str
) -> None:
    branch(connection, ours)
    stranger.execute(theirs)
    settle(connection)


def test_rows_that_wait_keep_their_automatic_numbers(connection: apsw.Connection, stranger: Stranger) -> None:
    branch(connection, "INSERT INTO seat(place) VALUES ('2A'), ('2B')")
    stranger.execute("INSERT INTO seat(place) VALUES ('9Z')")
    branch(connection, "INSERT INTO seat(place) VALUES ('3A')", "t/2")
    settle(connection)
    settle(connection, id="t/2")
    places = dict(rows(connection, "SELECT id, place FROM seat"))
    assert places == {1: "1A", 2: "1B", 3: "2A", 4: "2B", 5: "9Z", 6: "3A"}


def test_what_the_users_triggers_did_is_done_once(connection: apsw.Connection) -> None:
    branch(connection, "INSERT INTO event(kind) VALUES ('go'), ('go')")
    settle(connection)
    assert rows(connection, "SELECT n FROM tally") == [(2,)]
    assert rows(connection, "SELECT kind, size FROM event") == [("go", 2), ("go", 2)]


def test_unique_values_may_be_swapped(connection: apsw.Connection) -> None:
    branch(
        connection,
        "UPDATE seat SET place = 'tmp' WHERE id = 1; UPDATE seat SET place = '1A' WHERE id = 2;"
        "UPDATE seat SET place = '1B' WHERE id = 1",
    )
    settle(connection)
    assert dict(rows(connection, "SELECT place, who FROM seat")) == {"1B": "ann", "1A": "bob"}


@pytest.mark.parametrize(
    ("sql", "error", "word"),
    [
        ("INSERT INTO loose VALUES (1)", ConfigurationError, "no primary key"),
        ("INSERT INTO words VALUES ('a')", ConfigurationError, "ordinary tables"),
        ("INSERT INTO plane VALUES (NULL, 1)", ConfigurationError, "NULL"),
        ("CREATE TABLE other(x)", apsw.AuthError, "not authorized"),
        ("ALTER TABLE plane ADD COLUMN x", apsw.AuthError, "not authorized"),
        ("COMMIT", apsw.AuthError, "not authorized"),
        ("PRAGMA user_version = 7", apsw.AuthError, "not authorized"),
        ("PRAGMA foreign_keys = 1; SELECT 1", apsw.AuthError, "not authorized"),
    ],
)
def test_what_cannot_be_promised_is_refused_before_the_vote(
    connection: apsw.Connection, sql: str, error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        branch(connection, sql)
    assert changeset.in_doubt(connection, "") == []
    assert not connection.in_transaction


def test_a_row_whose_null_key_is_deleted_is_refused_too(
    connection: apsw.Connection, stranger: Stranger
) -> None:
    stranger.execute("INSERT INTO plane VALUES (NULL, 1)")
    with pytest.raises(ConfigurationError, match="NULL"):
        branch(
            connection, "DELETE FROM plane WHERE tail IS NULL; UPDATE plane SET hours = 0 WHERE tail = 'N1'"
        )
    with pytest.raises(ConfigurationError, match="NULL"):
        branch(connection, "DELETE FROM plane")
    assert branch(connection, "UPDATE plane SET hours = 0 WHERE tail = 'N1'") is Vote.PREPARED


def test_a_deferred_foreign_key_is_judged_at_prepare(connection: apsw.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(NotApplied, match="foreign key"):
        branch(connection, "INSERT INTO child VALUES (9, 99)")
    assert (
        branch(connection, "INSERT INTO child VALUES (9, 99); INSERT INTO parent VALUES (99)")
        is Vote.PREPARED
    )
    assert settle(connection) is Finished.DONE
    assert rows(connection, "PRAGMA foreign_keys") == [(1,)]


@pytest.mark.parametrize(
    "ddl",
    [
        "DROP TABLE plane",
        "ALTER TABLE plane RENAME TO aircraft",
        "ALTER TABLE plane DROP COLUMN hours",
        "ALTER TABLE plane RENAME COLUMN hours TO h",
    ],
)
def test_a_table_altered_under_a_promise_keeps_the_branch_and_says_so(
    connection: apsw.Connection, stranger: Stranger, ddl: str
) -> None:
    branch(connection, "INSERT INTO plane VALUES ('N9', 9); INSERT INTO seat(place) VALUES ('2A')")
    stranger.execute(ddl)
    with pytest.raises(Conflict, match=r"plane .* was altered"):
        settle(connection)
    assert rows(connection, "SELECT count(*) FROM seat WHERE place = '2A'") == [(0,)]
    assert len(changeset.in_doubt(connection, "")) == 1


def test_a_column_added_under_a_promise_does_no_harm(connection: apsw.Connection, stranger: Stranger) -> None:
    branch(connection, "INSERT INTO plane VALUES ('N9', 9)")
    stranger.execute("ALTER TABLE plane ADD COLUMN seats INTEGER DEFAULT 3")
    assert settle(connection) is Finished.DONE
    assert rows(connection, "SELECT * FROM plane WHERE tail = 'N9'") == [("N9", 9, 3)]


def test_a_unique_index_made_later_is_locked_by_the_next_branch(
    connection: apsw.Connection, stranger: Stranger
) -> None:
    branch(connection, "UPDATE plane SET hours = 4 WHERE tail = 'N1'")
    settle(connection)
    stranger.execute("CREATE UNIQUE INDEX hours_once ON plane(hours)")
    branch(connection, "UPDATE plane SET hours = 40 WHERE tail = 'N1'")
    with pytest.raises(Refusal, match="prepared transaction"):
        stranger.execute("UPDATE plane SET hours = 40 WHERE tail = 'N2'")
    assert settle(connection) is Finished.DONE


def test_two_branches_meet_at_a_whole_table(connection: apsw.Connection) -> None:
    branch(connection, "INSERT INTO name VALUES ('Bea', 1)")
    with pytest.raises(apsw.ConstraintError) as refusal:
        branch(connection, "INSERT INTO name VALUES ('Zoe', 1)", "t/2")
    assert row_lock.refused(refusal.value)


def test_a_promise_outlives_a_backup_by_vacuum_into(connection: apsw.Connection, tmp_path: Path) -> None:
    branch(connection, "INSERT INTO plane VALUES ('N9', 9)")
    connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    copy = apsw.Connection(str(tmp_path / "copy.db"))
    assert settle(copy) is Finished.DONE
    assert rows(copy, "SELECT hours FROM plane WHERE tail = 'N9'") == [(9,)]
    copy.close()


@pytest.mark.parametrize("break_it", [lambda image: None, lambda image: (*image[:-1], "other")])
def test_a_redo_that_makes_other_rows_is_caught_before_the_vote(
    connection: apsw.Connection,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[tuple[object, ...]], object],
) -> None:
    """The negative control of the rehearsal: images that differ from what the user made."""
    true_image, calls = changeset._image, []

    def broken(*words: object) -> object:
        calls.append(1)
        found = true_image(*words)  # type: ignore[arg-type]
        return break_it(found) if len(calls) == 1 and found else found

    monkeypatch.setattr(changeset, "_image", broken)
    with pytest.raises(NotApplied, match="second time"):
        branch(connection, "UPDATE plane SET hours = 8 WHERE tail = 'N1'")
