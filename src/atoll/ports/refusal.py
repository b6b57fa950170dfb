"""Refusal: what may be asked of any store at all, and the sentences for what may not.

The notice beside every counter: how long a name may be, how big a parcel, how many at once. A wrong program
hears it before anything is sent; a late holder hears who holds the thing now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Protocol

from atoll.errors import ConfigurationError, LeaseOver, LimitReached, ReadOnly, Refused
from atoll.ports.register import Entry
from atoll.ports.store import Compare, Guard, Operation, Put


class Limits(Protocol):
    """What one store takes. Sizes in bytes; `operations_max`: compares and operations together."""

    @property
    def key_bytes_max(self) -> int: ...
    @property
    def value_bytes_max(self) -> int: ...
    @property
    def operations_max(self) -> int: ...


def check_key(key: str, limits: Limits) -> None:
    """A key is text that UTF-8 can write, not empty, not longer than the limit."""
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"found the key {key!r}; expected text with at least one character.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"found the key {key!r}, which UTF-8 cannot write; percent-encode what it is made from."
        ) from None
    if size > limits.key_bytes_max:
        raise LimitReached(
            f"found a key of {size} bytes, {key[:40]!r}...; expected at most {limits.key_bytes_max} "
            "(key_bytes_max). Shorten it, or put a digest of it in its place."
        )


def check_limit(limit: int) -> None:
    """A range answers one entry or more."""
    if limit < 1:
        raise ConfigurationError(f"found limit={limit}; expected 1 or more.")


def check_ttl(ttl_s: float) -> None:
    """A lease lasts some time, and not for ever."""
    if not 0 < ttl_s < math.inf:
        raise ConfigurationError(f"found ttl_s={ttl_s}; expected seconds greater than 0.")


def check_transaction(
    then: Sequence[Operation], compare: Sequence[Compare], guard: Guard | None, limits: Limits
) -> None:
    """How many, how large, each key written once, one lease at most."""
    count = len(then) + len(compare) + (guard is not None)
    if count > limits.operations_max:
        raise LimitReached(
            f"found {count} compares and operations; expected at most {limits.operations_max} in one "
            "transaction (operations_max). Split it, or put one larger value in place of many small ones."
        )
    written: set[str] = set()
    leases: set[str] = set()
    for comparison in compare:
        check_key(comparison.key, limits)
    for operation in then:
        check_key(operation.key, limits)
        if operation.key in written:
            raise ConfigurationError(
                f"found {operation.key!r} written twice in one transaction; expected once. Keep the last one."
            )
        written.add(operation.key)
        if isinstance(operation, Put):
            _check_value(operation, limits)
            if operation.lease is not None:
                leases.add(operation.lease)
    if len(leases) > 1:
        raise ConfigurationError(
            f"found {len(leases)} leases in one transaction; expected one at most. "
            "Write each lease's keys in a transaction of their own."
        )


def _check_value(operation: Put, limits: Limits) -> None:
    if not isinstance(operation.value, bytes):
        raise ConfigurationError(
            f"found {type(operation.value).__name__} as the value of {operation.key!r}; expected bytes. "
            "Encode it."
        )
    if len(operation.value) > limits.value_bytes_max:
        raise LimitReached(
            f"found {len(operation.value)} bytes as the value of {operation.key!r}; expected at most "
            f"{limits.value_bytes_max} (value_bytes_max). Keep it in a file or a database, and its name here."
        )


def check_guard(guard: Guard, owner: Entry | None, epoch: int, revision: int) -> None:
    """Raise Refused unless the guard's owner key is still the one its token was given with.

    `epoch` and `revision` are the store's, as of the moment in which `owner` was read.
    """
    token = guard.token
    if owner is not None and (token.epoch, token.revision) == (epoch, owner.revision):
        return
    if owner is None:
        now = f"at revision {revision} nobody holds it"
    else:
        now = f"{holder(owner.value)} holds it with token {epoch}:{owner.revision}"
    raise Refused(
        f"the guard on {guard.owner_key!r} has token {token}, but {now}. "
        "Nothing was written: leave the block and acquire it again."
    )


def frozen(url: str, note: str) -> ReadOnly:
    """What a store says of a write while it is frozen."""
    return ReadOnly(
        f"{url} takes no writes: {note}. Nothing was written. Use the place that this note names, or ask "
        "whoever froze it."
    )


def lease_over(lease: str) -> LeaseOver:
    """What a store says of a lease that it does not have."""
    return LeaseOver(
        f"found no living lease {lease}: it has expired, was revoked or was never granted here. "
        "It does not come back, and its keys are gone; grant a new one."
    )


def holder(value: bytes) -> str:
    """Who an owner key names."""
    try:
        return str(json.loads(value)["owner"])
    except (ValueError, KeyError, TypeError):
        return "another owner"


def span(prefix: str) -> tuple[str, str | None]:
    """The keys that begin with `prefix`, as low <= key < high in bytewise order; None: no upper end."""
    stem = prefix
    while stem:
        following = ord(stem[-1]) + 1
        if following <= 0x10FFFF:
            # The surrogates are no characters; UTF-8 goes on behind them.
            return prefix, stem[:-1] + chr(0xE000 if following == 0xD800 else following)
        stem = stem[:-1]
    return prefix, None


def bounds(prefix: str, start: str | None, end: str | None) -> tuple[str, str | None]:
    """What a range asks for as low <= key < high: below `prefix`, from `start`, before `end`."""
    low, high = span(prefix)
    if start is not None:
        low = max(low, start)
    if end is not None:
        high = end if high is None else min(high, end)
    return low, high
