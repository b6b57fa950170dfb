"""Writing: a client's writes as the commands that go into the log, and their receipts as its answers.

The letter writer at the gate. He knows the forms, weighs the letter before it is sent, and reads the receipt
out when it comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from atoll.engines.raft import command
from atoll.engines.raft.command import Command, Late, Result, Transact
from atoll.errors import ConfigurationError, OutcomeUnknown
from atoll.ports.register import Applied, Unmet
from atoll.ports.store import Compare, Guard, Operation

_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, eq=False)
class Asked:
    """One command that waits to leave. `raw`: as it will stand in the log; `size`: its compares and
    operations."""

    command: Command
    raw: msgspec.Raw
    size: int = 1
    request_id: str | None = None

    @property
    def weight(self) -> int:
        """Its bytes."""
        return len(self.raw)


def plain(asked: Command) -> Asked:
    """A command that is no transaction."""
    return Asked(asked, _packed(asked))


def transaction(
    then: Sequence[Operation], compare: Sequence[Compare], guard: Guard | None, request_id: str | None
) -> Asked:
    """A call of Store.transact."""
    asked = command.transact(then, compare, guard, request_id)
    return Asked(asked, _packed(asked), len(then) + len(compare) + 1, request_id)


def _packed(asked: Command) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encode(asked))
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"found the text {error.object[:40]!r}, which UTF-8 cannot write; expected plain text for a "
            "lease, a request_id or a note."
        ) from None


def packed(batch: Sequence[Asked]) -> bytes:
    """One entry of the log for all of them."""
    return command.pack(cast("list[Command]", [one.raw for one in batch]))


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
