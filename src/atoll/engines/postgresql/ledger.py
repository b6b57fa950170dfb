"""Ledger: calls of `transact` as the arrays that the server's function takes, and its rows as answers.

A tray with one compartment for each kind of slip. Many callers' slips travel on one tray; how many are whose
is written at the edge (`..._ends`), so the answers find their way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from atoll.engines.postgresql import answers, functions
from atoll.engines.postgresql.options import StoreOptions
from atoll.engines.postgresql.wires import Row
from atoll.errors import ConfigurationError
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Field, Guard, Operation, Put

T = TypeVar("T")
_TYPES = (
    "int text float8 bigint float8 text[] bytea[] bigint[] bigint[] int[] bytea[] int[] bigint[] bytea[] "
    "int[] bytea[] bytea[] text[]"
).split()
TRANSACT = (
    "SELECT call, kind, value, revision, create_revision, lease FROM atoll.transact("
    f"{', '.join(f'${n}::{kind}' for n, kind in enumerate(_TYPES, 1))})"
)
_FIELDS = {Field.REVISION: 0, Field.CREATE_REVISION: 1, Field.VALUE: 2}


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
        return 200 + sum(
            len(one.key) + (len(one.value) if isinstance(one, Put) else 0) + 50 for one in self.then
        )

    @property
    def size(self) -> int:
        """Its compares and operations."""
        return 1 + len(self.then) + len(self.compare)


def checked(asked: Asked) -> Asked:
    """Refuse what PostgreSQL's text cannot hold, before it spoils the calls beside it."""
    for operation in asked.then:
        lease = operation.lease if isinstance(operation, Put) else None
        if lease is not None and not is_text(lease):
            raise refusal.lease_over(repr(lease))
    if asked.request_id is not None and not is_text(asked.request_id):
        raise ConfigurationError(
            f"found the request_id {asked.request_id!r:.60}; expected some text without NUL, such as a UUID."
        )
    return asked


def is_text(text: str) -> bool:
    try:
        return "\0" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False


class Terms(NamedTuple):
    """What every call of one handle is made with."""

    synchronous: str
    options: StoreOptions
    shown: str


def values(calls: Sequence[Asked], wait_s: float, terms: Terms) -> list[Any]:
    """The function's arguments. `wait_s`: how long it may wait for other writers."""
    options = terms.options
    compare_ends, operation_ends = [], []
    compares: list[Compare] = []
    operations: list[tuple[bytes | None, bytes | None, str | None]] = []
    for one in calls:
        compares += one.compare
        operations += [_operation(operation) for operation in one.then]
        if one.ends is not None:
            operations.append((None, None, one.ends))
        compare_ends.append(len(compares))
        operation_ends.append(len(operations))
    guards = [one.guard for one in calls]
    return [
        max(1, int(wait_s * 1000)),
        terms.synchronous,
        options.dedupe_window_s,
        options.history_max,
        options.history_s_max,
        _array(one.request_id for one in calls),
        _array(guard.owner_key.encode() if guard else None for guard in guards),
        _array(_number(guard.token.epoch) if guard else None for guard in guards),
        _array(_number(guard.token.revision) if guard else None for guard in guards),
        compare_ends,
        _array(compare.key.encode() for compare in compares),
        _array(_FIELDS[compare.field] for compare in compares),
        _array(_number(one.expected) if isinstance(one.expected, int) else None for one in compares),
        _array(one.expected if isinstance(one.expected, bytes) else None for one in compares),
        operation_ends,
        _array(key for key, _, _ in operations),
        _array(value for _, value, _ in operations),
        _array(lease for _, _, lease in operations),
    ]


def _array(items: Iterable[T | None]) -> list[T | None] | None:
    """The items; NULL in place of an array of nothing, which says the same and costs nothing to write."""
    found = list(items)
    return found if any(item is not None for item in found) else None


def _number(number: int) -> int:
    """A bigint; what is none equals no revision there is."""
    return number if -1 < number < 1 << 63 else -1


def _operation(operation: Operation) -> tuple[bytes | None, bytes | None, str | None]:
    if isinstance(operation, Put):
        return operation.key.encode(), operation.value, operation.lease
    return operation.key.encode(), None, None


def split(rows: Sequence[Row], count: int) -> list[list[Row]]:
    """The rows of each call."""
    found = {number: list(mine) for number, mine in groupby(rows, key=lambda row: int(row[0]))}
    return [found[number] for number in range(1, count + 1)]


def answer(asked: Asked, rows: Sequence[Row], terms: Terms) -> Applied | Unmet:
    """What the rows of one call say. Raises Refused, LeaseOver, ReadOnly, EpochUncertain where they do."""
    (_, kind, _, revision, epoch, said), further = rows[0], rows[1:]
    if kind == functions.APPLIED:
        pairs = zip(asked.then, further, strict=not asked.ends)
        return Applied(revision, tuple(_result(operation, row) for operation, row in pairs))
    if kind == functions.REPLAYED:
        return Applied(revision, replayed=True)
    if kind == functions.UNMET:
        pairs_seen = zip(asked.compare, further, strict=True)
        return Unmet({compare.key: _entry(compare.key, row) for compare, row in pairs_seen}, revision)
    if kind == functions.REFUSED:
        assert asked.guard is not None
        refusal.check_guard(asked.guard, _entry(asked.guard.owner_key, further[0]), epoch, revision)
        raise AssertionError(f"refused a guard that holds: {asked.guard!r}")
    if kind == functions.OVER:
        raise refusal.lease_over(said)
    if kind == functions.FROZEN:
        raise refusal.frozen(terms.shown, said)
    noted, here = str(said).split(" ")
    raise answers.uncertain(noted, here, terms.shown)


def _result(operation: Operation, row: Row) -> Entry | None:
    entry = _entry(operation.key, row)
    if entry is None or not isinstance(operation, Put):
        return entry
    return Entry(operation.key, operation.value, entry.revision, entry.create_revision, operation.lease)


def _entry(key: str, row: Row) -> Entry | None:
    _, _, value, revision, created, lease = row
    return None if revision is None else Entry(key, value or b"", revision, created, lease)
