"""Ledger: what the server found for one call of `transact`, as the port's answer.

The cook's notes, read back: what stood on the shelf before, and whether the recipe was followed. What stands
there now follows from the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.engines.mysql import answers, script
from atoll.engines.mysql.script import Asked
from atoll.engines.mysql.wire import Row
from atoll.errors import ConfigurationError
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Operation, Put

Found = tuple[Row, Sequence[Row]]
"""A call's head, and the rows of its keys as they stood before it."""


def checked(asked: Asked) -> Asked:
    """Refuse a lease that cannot be one and a request without an id, before they spoil the calls beside."""
    for operation in asked.then:
        lease = operation.lease if isinstance(operation, Put) else None
        if lease is not None and not _is_text(lease):
            raise refusal.lease_over(repr(lease))
    if asked.request_id is not None and not _is_text(asked.request_id):
        raise ConfigurationError(
            f"found the request_id {asked.request_id!r:.60}; expected some text, such as a UUID."
        )
    return asked


def _is_text(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def kind(found: Found) -> int:
    """What became of the call: one of script's words."""
    return int(found[0][0])


def answer(asked: Asked, found: Found, shown: str) -> Applied | Unmet:
    """What was found, as the port says it. Raises Refused, LeaseOver, ReadOnly, EpochUncertain."""
    said, rows = kind(found), found[1]
    _, newest, epoch, known, note, noted = found[0]
    if said == script.GONE:
        raise answers.no_counter(shown)
    if said == script.READ_ONLY:
        raise answers.replica(shown)
    revision = int(newest)
    if said == script.REPLAYED:
        return Applied(int(known), replayed=True)
    if said == script.FROZEN:
        raise refusal.frozen(shown, note.decode())
    if said == script.UNCERTAIN:
        raise answers.uncertain(noted.decode(), "another server, or tables made anew", shown)
    if said == script.OVER:
        lease = next(one.lease for one in asked.then if isinstance(one, Put) and one.lease is not None)
        raise refusal.lease_over(lease)
    before = {entry.key: entry for entry in map(entry_of, rows)}
    if said == script.REFUSED:
        assert asked.guard is not None
        refusal.check_guard(asked.guard, before.get(asked.guard.owner_key), int(epoch), revision)
        raise AssertionError(f"refused a guard that holds: {asked.guard!r}")
    if said == script.UNMET:
        return Unmet({one.key: before.get(one.key) for one in asked.compare}, revision)
    if not asked.then:
        return Applied(revision)
    number = revision + 1
    return Applied(number, tuple(_result(one, before.get(one.key), number) for one in asked.then))


def entry_of(row: Row) -> Entry:
    """The entry of a row k, value, revision, create_revision, lease."""
    key, value, revision, created, lease = row
    text = None if lease is None else lease.decode()
    return Entry(key.decode(), value or b"", int(revision), int(created), text)


def _result(operation: Operation, before: Entry | None, number: int) -> Entry | None:
    if not isinstance(operation, Put):
        return before
    created = number if before is None else before.create_revision
    return Entry(operation.key, operation.value, number, created, operation.lease)
