"""Wire: what a client and a member say to each other once they have greeted.

Slips over a counter. Each has a number that the answer bears too, so many may lie there at once; a slip with
the number 0 was not asked for: news, for whoever wished to be told. What shall stand in the log travels as
the bytes that will stand there, so no member reads a write before it is agreed.

Members pass these on in newer releases too: fields are only ever added at the end.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec

from atoll.engines.raft.frames import LENGTH_BYTES

Unsigned = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""A number that the log and the state can keep; another would stop every member that has to write it."""
Row = tuple[str, bytes, int, int, str | None]
"""An entry: key, value, revision, create_revision, lease."""


LIMIT_MAX = 1 << 62
"""Entries that a range may ask for."""
NONSENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a slip raises where it is none."""


class _Slip(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


# -- what a client asks --------------------------------------------------------------------------------


class Write(_Slip, frozen=True, tag=1):
    """A command for the log, exactly once by (client, sequence). Answered by `Done`."""

    client: Unsigned
    sequence: Unsigned
    data: bytes


class Get(_Slip, frozen=True, tag=2):
    """The entry at `key`. Answered by `Rows`, empty where it is absent."""

    key: str


class Range(_Slip, frozen=True, tag=3):
    """At most `limit` entries of low <= key < high. Answered by `Rows`."""

    low: str
    high: str | None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)]


class Judge(_Slip, frozen=True, tag=4):
    """A transaction that writes nothing, as a command's bytes. Answered by `Done`."""

    data: bytes


class KeepAlive(_Slip, frozen=True, tag=5):
    """Renew a lease. Only the leader, once a majority has confirmed it after this came. `Seconds`."""

    lease: str


class Remaining(_Slip, frozen=True, tag=6):
    """Seconds that a lease has left, by the leader's clock. `Seconds`."""

    lease: str


class Look(_Slip, frozen=True, tag=7):
    """A page of history; see `parts/pages.py`. `fresh`: not older than this question. `Leaf`.

    `least`: a revision that another member has told of: the answer is as of that one or a later one.
    """

    prefix: str
    after: int | None
    all: bool
    fresh: bool
    least: int = 0


class Subscribe(_Slip, frozen=True, tag=8):
    """Tell me of each commit from now on. Answered by `News`, then `News` with the number 0."""


class Ask(_Slip, frozen=True, tag=9):
    """What the store is: `Card`. `fresh`: not older than this question."""

    fresh: bool


class AskStatus(_Slip, frozen=True, tag=10):
    """What this member knows of itself and of the others: `Status`."""


class Change(_Slip, frozen=True, tag=11):
    """Add, promote or remove a member: `act` is learner, voter or remove. `Status` when it is done."""

    act: str
    name: str
    place: str = ""


class Transfer(_Slip, frozen=True, tag=12):
    """Hand over to `target`, "" for whoever is furthest. `Status`."""

    target: str


class Save(_Slip, frozen=True, tag=13):
    """Make a snapshot here, now. `Status`."""


Verb = (
    Write
    | Get
    | Range
    | Judge
    | KeepAlive
    | Remaining
    | Look
    | Subscribe
    | Ask
    | AskStatus
    | Change
    | Transfer
    | Save
)


# -- what a member answers -----------------------------------------------------------------------------


class Said(IntEnum):
    """Why a member did not do it. All but UNKNOWN: it certainly was not done by this asking."""

    NOT_LEADER = 1
    NOT_SENT = 2
    UNKNOWN = 3
    OVERLOADED = 4
    WRONG = 5
    """The question cannot be right, whoever is asked."""
    REFUSED = 6
    """Not now, or not so: a change of members that is not possible."""
    LEASE_OVER = 7
    TOO_LARGE = 8
    NOT_READY = 9
    """Not yet: another change is under way, a member has not caught up."""


class Done(_Slip, frozen=True, tag=1):
    """The command's result, as the state packed it."""

    data: bytes


class Rows(_Slip, frozen=True, tag=2):
    """Entries in key order as of `revision`."""

    rows: list[Row]
    revision: int
    more: bool = False


class Seconds(_Slip, frozen=True, tag=3):
    """None: the lease is over."""

    seconds: float | None


class Leaf(_Slip, frozen=True, tag=4):
    """One page of history. A change: its revision, what it wrote, what it removed."""

    epoch: int
    revision: int
    oldest: int
    snapshot: list[Row] | None
    changes: list[tuple[int, list[Row], list[str]]]
    due_s: float | None
    full: bool


class News(_Slip, frozen=True, tag=5):
    """One or several commits: the revisions after `before` up to `newest`. `lines` None: look yourself.

    A line: its revision, the key, and the row as it stands; None where it is gone or dies with a lease.
    """

    before: int
    newest: int
    lines: list[tuple[int, bool, str, Row | None]] | None = None


class Card(_Slip, frozen=True, tag=6):
    """The store: its epoch and revision, its note while frozen, and which life of the cluster this is."""

    epoch: int
    revision: int
    frozen: str | None
    incarnation: str
    voters: int
    limits: dict[str, Any]


class Status(_Slip, frozen=True, tag=7):
    """What one member says of itself, and of the others as far as it knows; a newer one may say more."""

    facts: dict[str, Any]


class Refusal(_Slip, frozen=True, tag=8):
    """It was not done, or it is not known. `leader`: where who leads is reached, and its `name`; "" where
    nobody is known."""

    said: int
    sentence: str
    leader: str = ""
    name: str = ""


class Part(_Slip, frozen=True, tag=9):
    """Rows that come before those of the answer with the same number: it would be too large for a frame."""

    rows: list[Row]


class Piece(_Slip, frozen=True, tag=10):
    """Bytes that come before those of the `Done` with the same number, for the same reason."""

    data: bytes


Answer = Done | Rows | Seconds | Leaf | News | Card | Status | Refusal | Part | Piece


class Asked(_Slip, frozen=True):
    """A slip. `left_ms`: how long the client will wait."""

    number: int
    left_ms: int
    verb: Verb


class Told(_Slip, frozen=True):
    """The answer to slip `number`; 0: news."""

    number: int
    answer: Answer


_encoder = msgspec.msgpack.Encoder()
_asked = msgspec.msgpack.Decoder(Asked)
_told = msgspec.msgpack.Decoder(Told)
read_asked = _asked.decode
"""A client's slip; one of NONSENSE where it is none."""
read_told = _told.decode
"""A member's answer; one of NONSENSE where it is none."""


def pack(slip: Asked | Told) -> bytes:
    """A slip as one frame."""
    buffer = bytearray(LENGTH_BYTES)
    _encoder.encode_into(slip, buffer, LENGTH_BYTES)
    buffer[:LENGTH_BYTES] = (len(buffer) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return bytes(buffer)
