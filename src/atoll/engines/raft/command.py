"""Commands: what a client wants done to the store, and what came of it, as bytes in the log.

Order slips and receipts. Several slips may be clipped together and go through the log as one; each gets a
receipt of its own. The leader stamps the hour on the clip; nobody else's clock is ever looked at.

The bytes: one for the format, eight for the hour, then msgpack. A clip that cannot be read has one receipt,
an `Error`, on every member alike.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from atoll.errors import AtollError, NotSent, OutcomeUnknown, Refused
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry
from atoll.ports.register import Unmet as UnmetAnswer
from atoll.ports.store import Compare, Field, Guard, Operation, Put

FORMAT = 1
_HEAD = struct.Struct("<Bd")
FIELDS = (Field.REVISION, Field.CREATE_REVISION, Field.VALUE)
TTL_MIN_S = 1.0
"""A shorter lease would not outlive the second in which a new leader is found."""
TTL_MAX_S = 30 * 86400.0

Row = tuple[str, bytes, int, int, str | None]
"""An entry: key, value, revision, create_revision, lease."""


class _Packed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


# -- what is asked -------------------------------------------------------------------------------------


class Transact(_Packed, frozen=True, tag=1):
    """See Store.transact. `then`: key, value or None to delete, lease. `compare`: key, number in
    FIELDS, expected."""

    then: tuple[tuple[str, bytes | None, str | None], ...]
    compare: tuple[tuple[str, int, int | bytes], ...] = ()
    guard: tuple[str, int, int] | None = None
    """The owner's key, and its token's epoch and revision."""
    request_id: str | None = None


class Grant(_Packed, frozen=True, tag=2):
    """A lease of this name; granted for at least TTL_MIN_S. `Granted`."""

    lease: str
    ttl_s: float


class Revoke(_Packed, frozen=True, tag=3):
    """End a lease and its keys, as one transaction. `Ended`."""

    lease: str


class Expire(_Packed, frozen=True, tag=4):
    """Their time is over: each ends as a transaction of its own. Only the leader asks this. `Ended`."""

    leases: tuple[str, ...]


class Bump(_Packed, frozen=True, tag=5):
    """Raise the epoch to one more than both its own and `above`. `Raised`."""

    above: int = 0


class Freeze(_Packed, frozen=True, tag=6):
    """Refuse writes from here on, quoting `note`; None: take them again. `Ended`."""

    note: str | None


Command = Transact | Grant | Revoke | Expire | Bump | Freeze


# -- what came of it -----------------------------------------------------------------------------------


class Done(_Packed, frozen=True, tag=1):
    """Applied. A put's create_revision, a delete's removed row or None, in order."""

    revision: int
    results: tuple[int | Row | None, ...] = ()


class Unmet(_Packed, frozen=True, tag=2):
    """A comparison did not hold: the rows of the compared keys that are there."""

    rows: tuple[Row, ...]
    revision: int


class Replayed(_Packed, frozen=True, tag=3):
    """A request_id seen before."""

    revision: int


class GuardRefused(_Packed, frozen=True, tag=4):
    """The guard's owner key is not its token's any more."""

    owner: Row | None
    epoch: int
    revision: int


class LeaseGone(_Packed, frozen=True, tag=5):
    """The lease of a put has ended."""

    lease: str


class Frozen(_Packed, frozen=True, tag=6):
    """The store takes no writes."""

    note: str


class Error(_Packed, frozen=True, tag=7):
    """It could not be applied, here or on any member; nothing of it was."""

    sentence: str


class Granted(_Packed, frozen=True, tag=8):
    """A lease stands, for this long."""

    ttl_s: float


class Raised(_Packed, frozen=True, tag=9):
    """The new epoch."""

    epoch: int


class Ended(_Packed, frozen=True, tag=10):
    """Done; there is nothing to say of it."""


class Late(_Packed, frozen=True, tag=11):
    """Asked again when its answer is not kept any more. This asking applied nothing; an earlier may have."""

    sentence: str


Result = Done | Unmet | Replayed | GuardRefused | LeaseGone | Frozen | Error | Granted | Raised | Ended | Late

_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(tuple[Command, ...])
_results = msgspec.msgpack.Decoder(tuple[Result, ...])


def pack(commands: Sequence[Command]) -> bytes:
    """Commands for one entry of the log, the hour left blank."""
    return _HEAD.pack(FORMAT, 0.0) + _encoder.encode(commands)


def stamp(data: bytes, at: float) -> bytes:
    """The same commands with the leader's hour, in Unix seconds. What is no command stays as it is."""
    return data if len(data) < _HEAD.size else data[:1] + struct.pack("<d", at) + data[_HEAD.size :]


def unpack(data: bytes) -> tuple[float, tuple[Command, ...]]:
    """The hour and the commands. Raises ValueError with a sentence where they cannot be read."""
    if len(data) < _HEAD.size:
        raise ValueError(f"found a command of {len(data)} bytes, too short to be one.")
    number, at = _HEAD.unpack_from(data)
    if number != FORMAT:
        raise ValueError(f"found a command in format {number}; expected {FORMAT}.")
    try:
        return at, _commands.decode(memoryview(data)[_HEAD.size :])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError(f"found {len(data)} bytes that are no command.") from None


def pack_results(results: Sequence[Result]) -> bytes:
    """The receipts of one entry."""
    return _encoder.encode(results)


def unpack_results(data: bytes) -> tuple[Result, ...]:
    """The receipts, one for each command; a single `Error` or `Late` where all share it."""
    return _results.decode(data)


# -- between these and the Store port ------------------------------------------------------------------


def transact(
    then: Sequence[Operation], compare: Sequence[Compare], guard: Guard | None, request_id: str | None
) -> Transact:
    """The command for a call of Store.transact."""
    return Transact(
        tuple((op.key, op.value, op.lease) if isinstance(op, Put) else (op.key, None, None) for op in then),
        tuple((one.key, FIELDS.index(one.field), one.expected) for one in compare),
        None if guard is None else (guard.owner_key, *guard.token),
        request_id,
    )


def applied(result: Result, asked: Transact, url: str) -> Applied | UnmetAnswer:
    """The answer of Store.transact that `result` stands for, or the error."""
    if isinstance(result, Done):
        rows = zip(asked.then, result.results, strict=True)
        return Applied(result.revision, tuple(_entry(op, row, result.revision) for op, row in rows))
    if isinstance(result, Unmet):
        found = {row[0]: Entry(*row) for row in result.rows}
        return UnmetAnswer({key: found.get(key) for key, _, _ in asked.compare}, result.revision)
    if isinstance(result, Replayed):
        return Applied(result.revision, replayed=True)
    if isinstance(result, GuardRefused) and asked.guard is not None:
        owner = None if result.owner is None else Entry(*result.owner)
        raise guard_refused(asked.guard, owner, result.epoch, result.revision)
    refuse(result, url)


def guard_refused(guard: tuple[str, int, int], owner: Entry | None, epoch: int, revision: int) -> Refused:
    """What a late holder hears."""
    key, mine, number = guard
    now = f"at revision {revision} nobody holds it"
    if owner is not None:
        now = f"{refusal.holder(owner.value)} holds it with token {epoch}:{owner.revision}"
    return Refused(
        f"the guard on {key!r} has token {mine}:{number}, but {now}. "
        "Nothing was written: leave the block and acquire it again."
    )


def refuse(result: Result, url: str) -> NoReturn:
    """Raise what `result` stands for, where it is no answer to what was asked."""
    raise error_of(result, url)


def error_of(result: Result, url: str) -> AtollError:
    """`result` as one of our errors."""
    match result:
        case LeaseGone(lease):
            return refusal.lease_over(lease)
        case Frozen(note):
            return refusal.frozen(url, note)
        case Error(sentence):
            return NotSent(f"{url} could not apply it: {sentence} Nothing of it was applied.")
        case Late(sentence):
            return OutcomeUnknown(f"{url} cannot say whether it was applied: {sentence}")
    return OutcomeUnknown(f"{url} answered with {type(result).__name__}, which belongs to another question.")


def _entry(
    asked: tuple[str, bytes | None, str | None], found: int | Row | None, revision: int
) -> Entry | None:
    key, value, lease = asked
    if value is not None and isinstance(found, int):
        return Entry(key, value, revision, found, lease)
    return Entry(*found) if isinstance(found, tuple) else None
