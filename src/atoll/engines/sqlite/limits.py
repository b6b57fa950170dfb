"""Limits: what may be asked of the store at all, said before anything is sent.

The notice beside the counter: how long a name may be, how big a parcel, how many at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from atoll.engines.sqlite.file import SqliteOptions
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.store import Compare, Guard, Operation, Put


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions(SqliteOptions):
    """What a `sqlite:///` URL may say of a store. Times in seconds, sizes in bytes."""

    key_bytes_max: int = 1024
    value_bytes_max: int = 1 << 20
    operations_max: int = 1000
    """Compares and operations together, in one transaction."""
    dedupe_window_s: float = 600.0
    """How long a request_id is remembered."""
    history_max: int = 10_000
    """Transactions kept for those who resume; an older bookmark is Compacted."""
    history_s_max: float = 3600.0
    """And not longer than this."""

    def __post_init__(self) -> None:
        check_numbers(self)


def check_numbers(options: Any, *, or_zero: Sequence[str] = ("wait_s",)) -> None:
    """Every number among the options counts, weighs or lasts something, so it is above 0."""
    for one in fields(options):
        value = getattr(options, one.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        least = 0 if one.name in or_zero else 1 if isinstance(value, int) else None
        if least is not None and not value >= least:
            raise ConfigurationError(f"found {one.name}={value}; expected {least} or more.")
        if least is None and not value > 0:
            raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")


def check_key(key: str, options: StoreOptions) -> None:
    """A key is text that UTF-8 can write, not empty, not longer than the limit."""
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"found the key {key!r}; expected text with at least one character.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"found the key {key!r}, which UTF-8 cannot write; percent-encode what it is made from."
        ) from None
    if size > options.key_bytes_max:
        raise LimitReached(
            f"found a key of {size} bytes, {key[:40]!r}...; expected at most {options.key_bytes_max}. "
            "Shorten it, or put a digest of it in its place."
        )


def check_transaction(
    then: Sequence[Operation], compare: Sequence[Compare], guard: Guard | None, options: StoreOptions
) -> None:
    """How many, how large, each key written once, one lease at most."""
    count = len(then) + len(compare) + (guard is not None)
    if count > options.operations_max:
        raise LimitReached(
            f"found {count} compares and operations; expected at most {options.operations_max} in one "
            "transaction. Split it, or put one larger value in place of many small ones."
        )
    written: set[str] = set()
    leases: set[str] = set()
    for comparison in compare:
        check_key(comparison.key, options)
    for operation in then:
        check_key(operation.key, options)
        if operation.key in written:
            raise ConfigurationError(
                f"found {operation.key!r} written twice in one transaction; expected once. Keep the last one."
            )
        written.add(operation.key)
        if isinstance(operation, Put):
            _check_value(operation, options)
            if operation.lease is not None:
                leases.add(operation.lease)
    if len(leases) > 1:
        raise ConfigurationError(
            f"found {len(leases)} leases in one transaction; expected one at most. "
            "Write each lease's keys in a transaction of their own."
        )


def _check_value(operation: Put, options: StoreOptions) -> None:
    if not isinstance(operation.value, bytes):
        raise ConfigurationError(
            f"found {type(operation.value).__name__} as the value of {operation.key!r}; expected bytes. "
            "Encode it."
        )
    if len(operation.value) > options.value_bytes_max:
        raise LimitReached(
            f"found {len(operation.value)} bytes as the value of {operation.key!r}; expected at most "
            f"{options.value_bytes_max}. Keep it in a file or a database, and its name here."
        )
