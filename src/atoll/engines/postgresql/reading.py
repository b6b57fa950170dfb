"""Reading: the statements that only look. Each is one snapshot, and each refuses a standby by finding none.

Every look brings the counter with it, and how long until the next lease ends; a reader that finds one over
ends it first and looks again, so nobody is shown what should be gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.engines.postgresql.wires import Row
from atoll.ports.register import Entry

_DUE = (
    "extract(epoch FROM (SELECT l.expires FROM atoll.lease l ORDER BY l.expires LIMIT 1) "
    "- clock_timestamp())::float8"
)
_HEAD = f"c.epoch, c.revision, c.oldest, {_DUE}"
"""Due: seconds until the next lease ends; NULL where there is none."""
HEAD = 4
_LIFE = "(SELECT atoll.incarnation()), c.incarnation"
"""Which life of the data answers, and in which the epoch was noted."""
LOOK = HEAD + 2
_HERE = "WHERE c.one AND NOT pg_is_in_recovery()"

COUNTER = f"SELECT {_HEAD} FROM atoll.counter c {_HERE}"
EPOCH = f"SELECT c.epoch, c.incarnation, atoll.incarnation(), c.frozen FROM atoll.counter c {_HERE}"
GET = f"""SELECT {_HEAD}, e.value, e.revision, e.create_revision, e.lease
FROM atoll.counter c LEFT JOIN atoll.entry e ON e.key = $1::bytea {_HERE}"""


def between(column: str, at: int, high: bytes | None) -> str:
    """$at <= column, and < $(at+1) where there is an upper end; NULL stands for none."""
    upper = f"{column} < ${at + 1}::bytea" if high is not None else f"${at + 1}::bytea IS NULL"
    return f"{column} >= ${at}::bytea AND {upper}"


def range_(high: bytes | None) -> str:
    """Entries of $2 <= key < $3, at most $1."""
    return _entries_of(_HEAD, high)


def state(high: bytes | None) -> str:
    """The same for one who watches."""
    return _entries_of(f"{_HEAD}, {_LIFE}", high)


def _entries_of(head: str, high: bytes | None) -> str:
    return f"""SELECT {head}, e.key, e.value, e.revision, e.create_revision, e.lease
FROM atoll.counter c LEFT JOIN LATERAL (SELECT n.* FROM atoll.entry n
    WHERE {between("n.key", 2, high)} ORDER BY n.key LIMIT $1::bigint) e ON true
{_HERE} ORDER BY e.key"""


def events(high: bytes | None, *, all: bool) -> str:
    """Lines of the second book after revision $1, $2 revisions at most; of $3 <= key < $4 unless `all`."""
    where = "true" if all else between("n.key", 3, high)
    return f"""SELECT {_HEAD}, {_LIFE}, v.revision, v.key, v.value, v.create_revision, v.lease
FROM atoll.counter c LEFT JOIN LATERAL (SELECT n.* FROM atoll.event n
    WHERE n.revision > $1::bigint AND n.revision <= least(c.revision, $1::bigint + $2::bigint)
    AND {where}) v ON true
{_HERE} ORDER BY v.revision, v.place"""


def entry(key: str, row: Sequence[object]) -> Entry | None:
    """The entry that the last four columns are, None where there is none."""
    value, revision, created, lease = row
    return None if revision is None else Entry(key, value, revision, created, lease)  # type: ignore[arg-type]


def entries(rows: Sequence[Row], head: int = HEAD) -> tuple[Entry, ...]:
    """The entries of a range's rows."""
    return tuple(Entry(row[head].decode(), *row[head + 1 :]) for row in rows if row[head] is not None)
