"""Refusal: what may be asked of a store at all, and the sentences for what may not.

The notice beside the counter. A wrong program hears it before anything is sent; a late holder hears
who holds the thing now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from atoll.engines.memory.knobs import StoreKnobs
from atoll.errors import ConfigurationError, LimitReached, Refused
from atoll.ports.register import Entry
from atoll.ports.store import Compare, Guard, Operation, Put


def check_key(key: str, knobs: StoreKnobs) -> None:
    """A key is text of UTF-8, not empty, and no longer than the limit."""
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"found the key {key!r}; expected text that is not empty.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"found the key {key!r}, which is not UTF-8. Percent-encode it.") from None
    if size > knobs.key_bytes_max:
        raise LimitReached(
            f"the key {key[:40]!r}... has {size} bytes; at most {knobs.key_bytes_max} "
            "(key_bytes_max). Shorten it."
        )


def check_transaction(
    then: Sequence[Operation], compare: Sequence[Compare], guard: Guard | None, knobs: StoreKnobs
) -> None:
    """Sizes, counts, each key once, at most one lease."""
    count = len(then) + len(compare) + (guard is not None)
    if count > knobs.operations_max:
        raise LimitReached(
            f"{count} compares and operations; at most {knobs.operations_max} in one transaction "
            "(operations_max). Split it."
        )
    written: set[str] = set()
    leases = {operation.lease for operation in then if isinstance(operation, Put) and operation.lease}
    for part in (*compare, *then):
        check_key(part.key, knobs)
    for operation in then:
        if operation.key in written:
            raise ConfigurationError(
                f"the key {operation.key!r} is written twice in one transaction. Keep one."
            )
        written.add(operation.key)
        if isinstance(operation, Put):
            check_value(operation, knobs)
    if len(leases) > 1:
        raise ConfigurationError(
            f"found {len(leases)} leases in one transaction; expected at most one. Use one lease for keys "
            "that are written together."
        )


def check_value(operation: Put, knobs: StoreKnobs) -> None:
    """A value is bytes, no longer than the limit."""
    if not isinstance(operation.value, bytes):
        raise ConfigurationError(
            f"the value for {operation.key!r} is {type(operation.value).__name__}; expected bytes. Encode it."
        )
    if len(operation.value) > knobs.value_bytes_max:
        raise LimitReached(
            f"the value for {operation.key!r} has {len(operation.value)} bytes; at most "
            f"{knobs.value_bytes_max} (value_bytes_max). Keep it elsewhere and put its name here."
        )


def check_guard(guard: Guard, owner: Entry | None, epoch: int, revision: int) -> None:
    """Raise Refused unless the guard's owner key is still the one its token was given with."""
    token = guard.token
    if owner is not None and (token.epoch, token.revision) == (epoch, owner.revision):
        return
    if owner is None:
        now = f"at revision {revision} nobody holds it"
    else:
        now = f"now {holder(owner.value)} with token {epoch}:{owner.revision}"
    raise Refused(
        f"the guard {guard.owner_key!r} has token {token}, but {now}. Nothing was written; acquire it again."
    )


def holder(value: bytes) -> str:
    """Who an owner key names, as words."""
    try:
        known = json.loads(value)
        return f"{known['owner']} holds it"
    except (ValueError, KeyError, TypeError):
        return "another owner holds it"
