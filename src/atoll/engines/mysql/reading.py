"""Reading: the statements that only look. Each list is one snapshot, and each brings the counter with it.

A photograph of the whole counter: the number on the wall clock is in the picture too. Who sees on it that a
lease is over ends it first and looks again, so nobody is shown what should be gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atoll.engines.mysql.script import MICROSECOND, NOW, TAKES_NONE, hexed
from atoll.engines.mysql.wire import Row

_HEAD = (
    "c.epoch,c.revision,c.oldest,c.incarnation,@here,c.frozen,"
    f"(SELECT MIN(l.expires) FROM atoll_lease l)-{NOW},{TAKES_NONE}"
)
COUNTER = f"SELECT {_HEAD} FROM atoll_counter c WHERE c.one=1"
_MADE = (
    "(SELECT UNIX_TIMESTAMP(t.create_time) DIV 1 FROM information_schema.tables t "
    "WHERE t.table_schema=DATABASE() AND t.table_name='atoll_counter')"
)
EPOCH = COUNTER.replace(" FROM atoll_counter", f",{_MADE} FROM atoll_counter", 1)
"""With when the counter's table was made: a connection that outlived a restore would not know."""
_BEGIN = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    COUNTER,
)
SEEN = 3
"""Which statement of a look answers what was asked for; the one before it answers the head."""
_ENTRY = "k,value,revision,create_revision,lease"


class Head(NamedTuple):
    """The counter, as of the same moment as what was looked at. `due_s`: until the next lease ends."""

    epoch: int
    revision: int
    oldest: int
    noted: str
    here: str
    frozen: str | None
    due_s: float
    takes_none: bool


def head(row: Row) -> Head:
    """The head that a row of COUNTER is."""
    epoch, revision, oldest, noted, here, frozen, due, takes_none = row[:8]
    return Head(
        int(epoch),
        int(revision),
        int(oldest),
        noted.decode(),
        (here or b"").decode(),
        None if frozen is None else frozen.decode(),
        float("inf") if due is None else int(due) / MICROSECOND,
        int(takes_none) != 0,
    )


def snapshot(*questions: str) -> Sequence[str]:
    """The counter and what is asked for, as of one moment."""
    return (*_BEGIN, *questions, "COMMIT")


def get(key: str) -> str:
    """One entry, or none."""
    return f"SELECT {_ENTRY} FROM atoll_entry WHERE k={hexed(key)}"


def between(low: str, high: str | None) -> str:
    """low <= k < high in bytewise order; None: no upper end."""
    return f"k>={hexed(low)}" + ("" if high is None else f" AND k<{hexed(high)}")


def range_(low: str, high: str | None, limit: int | None) -> str:
    """Entries of low <= key < high in order, at most `limit`."""
    most = "" if limit is None else f" LIMIT {limit}"
    return f"SELECT {_ENTRY} FROM atoll_entry WHERE {between(low, high)} ORDER BY k{most}"


def events(after: int, count: int, low: str, high: str | None, *, all: bool) -> str:
    """Lines of the second book after revision `after`, of `count` revisions; of the span unless `all`."""
    where = "" if all else f" AND {between(low, high)}"
    return (
        "SELECT revision,k,value,create_revision,lease FROM atoll_event "
        f"WHERE revision>{after} AND revision<={after + count}{where} ORDER BY revision,place"
    )
