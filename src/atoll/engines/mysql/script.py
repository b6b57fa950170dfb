"""Script: calls of `transact` as one list of statements, sent at once, judged and written on the server.

A recipe read out over the telephone to a cook who does each step at once and never talks back: "look whether
there are eggs; if so, break two". Every step carries its own "if so" (`@k=0`), because the list goes on
whatever was found; each call's answer is read from what the cook saw before the first change.

The counter's row is locked first (FOR UPDATE) and written last, so revisions are committed in their order.
Never AUTO_INCREMENT: its numbers are handed out before the commit, and a reader who has seen 8 never learns
that 7 came later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from atoll.engines.mysql.wire import Row
from atoll.ports.store import Compare, Field, Guard, Operation, Put

APPLIED, REPLAYED, UNMET, REFUSED, OVER, FROZEN, UNCERTAIN, GONE, READ_ONLY, AGAIN = range(10)
"""What `@k` says of a call. AGAIN: a lease is over; send the list once more with the sweep in it."""

MICROSECOND = 1_000_000
NOW = "TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))"
TAKES_NONE = "@@global.read_only NOT IN ('0','OFF')"
_SHOWN = "k,IF({},value,NULL),revision,create_revision,lease"
_COLUMNS = "(revision,place,k,value,create_revision,lease,at)"


class Asked(NamedTuple):
    """One call: of `transact`, or with `ends` the revocation of that lease."""

    then: Sequence[Operation] = ()
    compare: Sequence[Compare] = ()
    guard: Guard | None = None
    request_id: str | None = None
    ends: str | None = None

    @property
    def weight(self) -> int:
        """Roughly its bytes on the wire."""
        written = sum(2 * len(one.value) for one in self.then if isinstance(one, Put))
        compared = sum(2 * len(one.expected) for one in self.compare if isinstance(one.expected, bytes))
        keys = [one.key for one in (*self.then, *self.compare)]
        return 1000 + written + compared + sum(12 * len(key) + 600 for key in keys)

    @property
    def size(self) -> int:
        """Its compares and operations."""
        return 1 + len(self.then) + len(self.compare)


class Terms(NamedTuple):
    """What every call of one handle is made with. `mariadb`: may be told how long to wait, in fractions."""

    dedupe_window_s: float
    mariadb: bool


class Part(NamedTuple):
    """Where a call's answers stand in the list: its head, and the keys seen before it (None: not asked)."""

    head: int
    seen: int | None


class Script(NamedTuple):
    """The list. `commits`: which statement makes it stand."""

    statements: list[str]
    parts: list[Part]
    commits: int


def hexed(data: bytes | str) -> str:
    """A literal of bytes: no quoting, no character set and no sql_mode can read it differently."""
    return f"x'{(data.encode() if isinstance(data, str) else data).hex()}'"


def named(request_id: str) -> str:
    """A request's id as a literal, however long it is."""
    data = request_id.encode()
    return hexed(data if len(data) <= 200 else b"sha256:" + hashlib.sha256(data).digest())


def write(calls: Sequence[Asked], wait_s: float, terms: Terms, *, sweeps: bool) -> Script:
    """The list for `calls`. `wait_s`: how long it may wait for other writers; `sweeps`: end what is over."""
    found = list(_head(wait_s, terms, sweeps))
    parts: list[Part] = []
    for asked in calls:
        mine = list(_ending(asked.ends) if asked.ends is not None else _call(asked, terms))
        head = next(n for n, one in enumerate(mine) if one.startswith("SELECT @k,"))
        seen = head + 1 if head + 1 < len(mine) and mine[head + 1].startswith("SELECT k,") else None
        parts.append(Part(len(found) + head, None if seen is None else len(found) + seen))
        found += mine
    found += ["UPDATE atoll_counter SET revision=@r WHERE one=1 AND revision<@r", "COMMIT"]
    return Script(found, parts, len(found) - 1)


def lock(wait_s: float, terms: Terms, columns: str) -> Iterator[str]:
    """Take the counter's row, waiting for other writers no longer than `wait_s`."""
    timed = f"SET STATEMENT max_statement_time={max(0.001, wait_s):.3f} FOR " if terms.mariadb else ""
    if not terms.mariadb:
        yield f"SET innodb_lock_wait_timeout={max(1, int(wait_s))}"
    yield "START TRANSACTION"
    yield f"{timed}SELECT {columns} FROM atoll_counter WHERE one=1 FOR UPDATE"


def _head(wait_s: float, terms: Terms, sweeps: bool) -> Iterator[str]:
    yield "SET @b=NULL,@r=NULL,@e=NULL,@i=NULL,@f=NULL,@k=NULL,@n=NULL"
    yield from lock(wait_s, terms, "revision,epoch,incarnation,frozen INTO @b,@e,@i,@f")
    yield f"SET @r=@b,@now={NOW},@ro={TAKES_NONE}"
    if not sweeps:
        yield "SET @again=EXISTS(SELECT 1 FROM atoll_lease WHERE expires<=@now)"
        return
    yield "SET @again=0"
    # A renewal may have been first: the rows are locked, and so looked at again, before their leases end.
    yield "SELECT id FROM atoll_lease WHERE expires<=@now FOR UPDATE"
    yield (
        f"INSERT INTO atoll_event {_COLUMNS} SELECT @r+DENSE_RANK() OVER (ORDER BY l.expires,l.id),"
        "ROW_NUMBER() OVER (PARTITION BY l.id ORDER BY e.k)-1,e.k,NULL,e.create_revision,NULL,@now "
        "FROM atoll_lease l JOIN atoll_entry e ON e.lease=l.id WHERE l.expires<=@now AND NOT @ro"
    )
    yield "SET @r=GREATEST(@r,COALESCE((SELECT MAX(revision) FROM atoll_event),0))"
    yield "DELETE e FROM atoll_entry e JOIN atoll_lease l ON e.lease=l.id WHERE l.expires<=@now AND NOT @ro"
    yield "DELETE FROM atoll_lease WHERE expires<=@now AND NOT @ro"


def _call(asked: Asked, terms: Terms) -> Iterator[str]:
    cases = [f"WHEN @b IS NULL THEN {GONE}", f"WHEN @ro THEN {READ_ONLY}", f"WHEN @again THEN {AGAIN}"]
    if asked.request_id is not None:
        since = int(terms.dedupe_window_s * MICROSECOND)
        yield (
            f"SET @known=(SELECT revision FROM atoll_request WHERE id={named(asked.request_id)} "
            f"AND at>@now-{since})"
        )
        cases.append(f"WHEN @known IS NOT NULL THEN {REPLAYED}")
    lease = next((one.lease for one in asked.then if isinstance(one, Put) and one.lease is not None), None)
    if asked.then:
        cases.append(f"WHEN @f IS NOT NULL THEN {FROZEN}")
    if asked.guard is not None or lease is not None:
        cases.append(f"WHEN @i<>@here THEN {UNCERTAIN}")
    if asked.guard is not None:
        token, key = asked.guard.token, hexed(asked.guard.owner_key)
        cases.append(
            f"WHEN @e<>{_bigint(token.epoch)} OR NOT EXISTS(SELECT 1 FROM atoll_entry WHERE k={key} "
            f"AND revision={_bigint(token.revision)}) THEN {REFUSED}"
        )
    cases += [f"WHEN NOT {condition} THEN {UNMET}" for condition in _conditions(asked.compare)]
    if lease is not None:
        cases.append(f"WHEN NOT EXISTS(SELECT 1 FROM atoll_lease WHERE id={hexed(lease)}) THEN {OVER}")
    yield f"SET @n=@r+1,@k=CASE {' '.join(cases)} ELSE {APPLIED} END"
    known = "@known" if asked.request_id is not None else "NULL"
    yield f"SELECT @k,@r,@e,{known},@f,@i"
    yield from _seen(asked)
    for place, operation in enumerate(asked.then):
        yield from _operation(operation, place)
    if not asked.then:
        return
    if not any(isinstance(operation, Put) for operation in asked.then):
        yield (
            f"INSERT INTO atoll_event {_COLUMNS} SELECT @n,0,NULL,NULL,NULL,NULL,@now FROM DUAL "
            "WHERE @k=0 AND NOT EXISTS(SELECT 1 FROM (SELECT revision FROM atoll_event WHERE revision=@n) t)"
        )
    if asked.request_id is not None:
        yield (
            f"INSERT INTO atoll_request SELECT {named(asked.request_id)},@n,@now FROM DUAL WHERE @k=0 "
            "ON DUPLICATE KEY UPDATE revision=VALUES(revision),at=VALUES(at)"
        )
    yield "SET @r=IF(@k=0,@n,@r)"


def _conditions(compare: Sequence[Compare]) -> Iterator[str]:
    """One for all keys that must be absent, one for all that must be as they were."""
    gone: list[str] = []
    there: dict[str, list[str]] = {}
    for one in compare:
        key = hexed(one.key)
        if isinstance(one.expected, bytes):
            there.setdefault(key, []).append(f"value={hexed(one.expected)}")
        elif one.expected == 0:
            gone.append(key)
        else:
            column = "revision" if one.field is Field.REVISION else "create_revision"
            there.setdefault(key, []).append(f"{column}={_bigint(one.expected)}")
    if gone:
        yield f"NOT EXISTS(SELECT 1 FROM atoll_entry WHERE k IN ({','.join(gone)}))"
    if there:
        rows = " OR ".join(f"k={key} AND {' AND '.join(words)}" for key, words in there.items())
        yield (f"(SELECT COUNT(*) FROM atoll_entry WHERE k IN ({','.join(there)}) AND ({rows}))={len(there)}")


def _bigint(number: int) -> int:
    """What is no BIGINT equals no revision there is."""
    return number if 0 <= number < 1 << 63 else -1


def _seen(asked: Asked) -> Iterator[str]:
    """Every key of the call as it stood before: results, and what was found in place of what was expected."""
    removed = [hexed(one.key) for one in asked.then if not isinstance(one, Put)]
    keys = {hexed(one.key): None for one in (*asked.compare, *asked.then)}
    if asked.guard is not None:
        keys[hexed(asked.guard.owner_key)] = None
    if not keys:
        return
    told = f"@k IN ({UNMET},{REFUSED})" + (f" OR k IN ({','.join(removed)})" if removed else "")
    yield (
        f"SELECT {_SHOWN.format(told)} FROM atoll_entry "
        f"WHERE @k IN ({APPLIED},{UNMET},{REFUSED}) AND k IN ({','.join(keys)})"
    )


def _operation(operation: Operation, place: int) -> Iterator[str]:
    key = hexed(operation.key)
    told = f"INSERT INTO atoll_event {_COLUMNS} SELECT @n,{place},k"
    if not isinstance(operation, Put):
        yield f"{told},NULL,create_revision,NULL,@now FROM atoll_entry WHERE k={key} AND @k=0"
        yield f"DELETE FROM atoll_entry WHERE k={key} AND @k=0"
        return
    lease = "NULL" if operation.lease is None else hexed(operation.lease)
    yield (
        "INSERT INTO atoll_entry (k,value,revision,create_revision,lease) "
        f"SELECT {key},{hexed(operation.value)},@n,@n,{lease} FROM DUAL WHERE @k=0 ON DUPLICATE KEY UPDATE "
        "value=VALUES(value),revision=VALUES(revision),lease=VALUES(lease)"
    )
    yield f"{told},value,create_revision,lease,@now FROM atoll_entry WHERE k={key} AND @k=0"


def _ending(lease: str) -> Iterator[str]:
    """Revoke: its keys go in one transaction; no revision where it had none."""
    which = hexed(lease)
    yield (
        f"SET @n=@r+1,@k=CASE WHEN @b IS NULL THEN {GONE} WHEN @ro THEN {READ_ONLY} WHEN @again THEN {AGAIN} "
        f"ELSE {APPLIED} END"
    )
    yield (
        f"INSERT INTO atoll_event {_COLUMNS} SELECT @n,ROW_NUMBER() OVER (ORDER BY k)-1,k,NULL,"
        f"create_revision,NULL,@now FROM atoll_entry WHERE lease={which} AND @k=0"
    )
    yield f"SET @r=IF(@k=0 AND EXISTS(SELECT 1 FROM atoll_entry WHERE lease={which}),@n,@r)"
    yield f"DELETE FROM atoll_entry WHERE lease={which} AND @k=0"
    yield f"DELETE FROM atoll_lease WHERE id={which} AND @k=0"
    yield "SELECT @k,@r,@e,NULL,@f,@i"


def trim(newest: int, history_max: int, history_s_max: float, dedupe_window_s: float) -> list[str]:
    """Forget the oldest lines of the second book, and requests that nobody may repeat any more."""
    old, since = int(history_s_max * MICROSECOND), int(dedupe_window_s * MICROSECOND)
    return [
        f"SET @now={NOW}",
        f"SET @kept=LEAST({newest},GREATEST({newest}-{history_max}+1,COALESCE("
        f"(SELECT MIN(revision) FROM atoll_event WHERE at>=@now-{old}),{newest})))",
        "START TRANSACTION",
        "SELECT one FROM atoll_counter WHERE one=1 FOR UPDATE",
        "UPDATE atoll_counter SET oldest=@kept WHERE one=1 AND oldest<@kept",
        "DELETE FROM atoll_event WHERE revision<@kept",
        f"DELETE FROM atoll_request WHERE at<=@now-{since}",
        "COMMIT",
    ]


def rows_of(script: Script, answered: Sequence[Sequence[Row]]) -> list[tuple[Row, Sequence[Row]]]:
    """Each call's head and what it saw."""
    return [
        (answered[part.head][0], () if part.seen is None else answered[part.seen]) for part in script.parts
    ]
