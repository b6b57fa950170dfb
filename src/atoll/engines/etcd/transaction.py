"""Transaction: ours, said in etcd's words, and etcd's answer said in ours. One question, one answer.

A registrar's form. On the left what must be true, on the right what is to be entered; and on the back, filled
in only if something was not true, how things really stood at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.engines.etcd import card as cards
from atoll.engines.etcd import wire
from atoll.engines.etcd.card import Card
from atoll.engines.etcd.keys import Keys
from atoll.errors import ReadOnly
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Field, Guard, Operation, Put

_TxnRequest = wire.MESSAGES["TxnRequest"]
_NEVER = -1
"""No key has this revision: a comparison that fails, so that the back of the form is filled in."""


@dataclass(slots=True)
class Asked:
    """What the caller wants. `keys`: where our keys lie; `url`: for sentences."""

    then: Sequence[Operation]
    compare: Sequence[Compare]
    guard: Guard | None
    request_id: str | None
    keys: Keys
    url: str

    @property
    def request_key(self) -> bytes:
        return self.keys.requests + (self.request_id or "").encode()


def request(asked: Asked, card: Card, memory_lease: int = 0) -> bytes:
    """The form. One that writes also compares the card, so that whoever froze the store is obeyed."""
    keys, message = asked.keys, _TxnRequest()
    compare, failure = message.compare, message.failure
    guard = asked.guard
    if asked.then or guard is not None:
        closed = card.frozen is not None and asked.then
        other_epoch = guard is not None and guard.token.epoch != card.epoch
        compare.add(
            target=wire.MOD, key=keys.meta, mod_revision=_NEVER if closed or other_epoch else card.revision
        )
        failure.add().request_range.key = keys.meta
    if asked.request_id is not None:
        compare.add(target=wire.CREATE, key=asked.request_key, create_revision=0)
        failure.add().request_range.key = asked.request_key
    if guard is not None:
        owner = keys.inside(guard.owner_key)
        compare.add(target=wire.MOD, key=owner, mod_revision=guard.token.revision)
        failure.add().request_range.key = owner
    for one in asked.compare:
        _compare(compare, keys.inside(one.key), one)
    for key in dict.fromkeys(one.key for one in asked.compare):
        failure.add().request_range.key = keys.inside(key)
    fresh = {one.key for one in asked.compare if one.expected == 0 and one.field is not Field.VALUE}
    success = message.success
    for operation in asked.then:
        if isinstance(operation, Put):
            put = success.add().request_put
            put.key, put.value = keys.inside(operation.key), operation.value
            if operation.lease is not None:
                put.lease = lease_id(operation.lease)
            if operation.key not in fresh:
                put.prev_kv = True
        else:
            gone = success.add().request_delete_range
            gone.key, gone.prev_kv = keys.inside(operation.key), True
    if asked.request_id is not None:
        put = success.add().request_put
        put.key, put.lease = asked.request_key, memory_lease
    return message.SerializeToString()  # type: ignore[no-any-return]


def _compare(compare: Any, key: bytes, one: Compare) -> None:
    match one.field:
        case Field.REVISION:
            compare.add(target=wire.MOD, key=key, mod_revision=one.expected)
        case Field.CREATE_REVISION:
            compare.add(target=wire.CREATE, key=key, create_revision=one.expected)
        case Field.VALUE:
            compare.add(target=wire.VALUE, key=key, value=one.expected)


def applied(asked: Asked, answer: Any) -> Applied:
    """What was done. The revision is the cluster's after it: the entries' own, if any was written."""
    revision = answer.header.revision
    results: list[Entry | None] = []
    for operation, response in zip(asked.then, answer.responses, strict=False):
        if isinstance(operation, Put):
            put = response.response_put
            created = put.prev_kv.create_revision if put.HasField("prev_kv") else revision
            results.append(Entry(operation.key, operation.value, revision, created, operation.lease))
        else:
            gone = response.response_delete_range.prev_kvs
            results.append(entry(gone[0], asked.keys) if gone else None)
    return Applied(revision, tuple(results))


def refused(asked: Asked, answer: Any, card: Card) -> Applied | Unmet | Card | None:
    """Why not: a replay, a newer card, an Unmet; raises Refused and ReadOnly. None: the card is gone."""
    backs = iter(answer.responses)
    newer: Card | None = None
    revision = answer.header.revision
    carded = bool(asked.then) or asked.guard is not None
    if carded:
        found = next(backs).response_range.kvs
        newer = cards.read(found[0], asked.url) if found else None
    if asked.request_id is not None:
        known = next(backs).response_range.kvs
        if known:
            return Applied(known[0].mod_revision, replayed=True)
    if carded and (newer is None or newer.revision != card.revision):
        return newer
    if asked.then and card.frozen is not None:
        raise ReadOnly(
            f"{asked.url} is frozen and takes no writes: {card.frozen}. Nothing was written; "
            "write where the note says, or thaw it with moving.freeze(None)."
        )
    if asked.guard is not None:
        owner = _only(next(backs), asked.keys)
        refusal.check_guard(asked.guard, owner, card.epoch, revision)
    seen = {key: _only(next(backs), asked.keys) for key in dict.fromkeys(one.key for one in asked.compare)}
    return Unmet({one.key: seen[one.key] for one in asked.compare}, revision)


def _only(response: Any, keys: Keys) -> Entry | None:
    found = response.response_range.kvs
    return entry(found[0], keys) if found else None


def entry(found: Any, keys: Keys) -> Entry:
    """etcd's entry as ours."""
    lease = found.lease
    return Entry(
        keys.outside(found.key),
        found.value,
        found.mod_revision,
        found.create_revision,
        f"{lease:016x}" if lease else None,
    )


def lease_id(lease: str) -> int:
    """etcd's number of a lease; LeaseOver for what no lease of etcd is called."""
    try:
        number = int(lease, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 63:
        raise refusal.lease_over(lease)
    return number
