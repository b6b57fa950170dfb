"""Writing: a client's writes as the commands that go into the log, and their receipts as its answers.

The letter writer at the gate. He knows the forms, weighs the letter before it is sent, and reads the receipt
out when it comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.engines.raft import command
from atoll.engines.raft.command import Command, Late, Result, Transact
from atoll.errors import OutcomeUnknown
from atoll.ports.register import Applied, Unmet
from atoll.ports.store import Compare, Guard, Operation, Put

_WORDS = 24
"""Bytes of msgpack around an operation or a comparison, at most."""


@dataclass(slots=True, eq=False)
class Asked:
    """One command that waits to leave. `weight`: its bytes, roughly; `size`: its compares and operations."""

    command: Command
    weight: int = 256
    size: int = 1
    request_id: str | None = None


def transaction(
    then: Sequence[Operation], compare: Sequence[Compare], guard: Guard | None, request_id: str | None
) -> Asked:
    """A call of Store.transact."""
    weight = 64 + (_WORDS + 2 * len(guard.owner_key) if guard is not None else 0)
    for one in then:
        weight += _WORDS + 2 * len(one.key) + (len(one.value) if isinstance(one, Put) else 0)
    for other in compare:
        expected = other.expected
        weight += _WORDS + 2 * len(other.key) + (len(expected) if isinstance(expected, bytes) else 0)
    asked = command.transact(then, compare, guard, request_id)
    return Asked(asked, weight, len(then) + len(compare) + 1, request_id)


def packed(batch: Sequence[Asked]) -> bytes:
    """One entry of the log for all of them."""
    return command.pack([one.command for one in batch])


def unpacked(data: bytes, count: int) -> Sequence[Result] | None:
    """A receipt for each of `count` commands; None: the members no longer know this client's numbers."""
    results = command.unpack_results(data)
    if len(results) == 1 and isinstance(results[0], Late):
        return None
    return results if len(results) == count else results * count


def answer(asked: Asked, result: Result, url: str) -> Applied | Unmet:
    """What Store.transact answers, or its error."""
    assert isinstance(asked.command, Transact)
    return command.applied(result, asked.command, url)


def forgotten(url: str) -> OutcomeUnknown:
    """The members no longer remember this client, and it had asked more than once."""
    return OutcomeUnknown(
        f"the transaction was sent to {url} more than once, and its members no longer remember this client. "
        "It may have happened: read before you ask again."
    )
