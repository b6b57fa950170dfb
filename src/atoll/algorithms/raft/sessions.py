"""Sessions: a command that is sent twice is done once, and both times gets the same answer.

A cloakroom that tears numbered tickets. A ticket shown again is given the coat that was given before, or is
told that it is too old; it never opens the door a second time. The book of tickets is part of the state:
every member tears them in the same order, and a snapshot carries the book.

Source: Ongaro (2014), 6.3 (implementing linearizable semantics).
Departure: a client begins to exist with sequence 1 and asks for one thing at a time, so its last result is
all that is kept. Sessions do not end by time: the one that was silent for the most commands goes first, and
what it asks afterwards is not done.
"""

from __future__ import annotations

from enum import Enum

import msgspec

CLIENTS_MAX = 10_000
RESULT_BYTES_MAX = 256 << 10
FORMAT = 1


class Verdict(Enum):
    """What a command of a client with a session is."""

    NEW = "new"
    """Do it, and remember its result."""
    REPEATED = "repeated"
    """It was done: give its first result again."""
    LATE = "late"
    """It was done, or will never be; its result is not known any more."""
    FORGOTTEN = "forgotten"
    """The client was silent for too long: whether it was done is not known, and it is not done now."""


def verdict(last: int, sequence: int) -> Verdict:
    """Of command `sequence` of a client whose newest was `last`; 0: the client is not known."""
    if sequence > last:
        return Verdict.NEW if last or sequence == 1 else Verdict.FORGOTTEN
    return Verdict.REPEATED if sequence == last else Verdict.LATE


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One client. `result` None: it was too long to be kept."""

    client: int
    sequence: int
    result: bytes | None


class Book(msgspec.Struct, frozen=True, array_like=True):
    """All clients, who was silent longest first."""

    format: int
    lines: list[Line]


class Sessions:
    """The last result of each client; the same commands in the same order make the same book everywhere."""

    def __init__(self, clients_max: int = CLIENTS_MAX, result_bytes_max: int = RESULT_BYTES_MAX) -> None:
        self._clients_max = clients_max
        self._result_bytes_max = result_bytes_max
        self._lines: dict[int, Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def judge(self, client: int, sequence: int) -> tuple[Verdict, bytes]:
        """What to do with a command, and its first result if it is REPEATED. `client` 0 asks for nothing."""
        if not client:
            return Verdict.NEW, b""
        line = self._lines.get(client)
        found = verdict(line.sequence if line else 0, sequence)
        if line is None or found is not Verdict.REPEATED:
            return found, b""
        return (Verdict.LATE, b"") if line.result is None else (found, line.result)

    def remember(self, client: int, sequence: int, result: bytes) -> None:
        """A NEW command was done."""
        if not client:
            return
        kept = result if len(result) <= self._result_bytes_max else None
        self._lines.pop(client, None)
        self._lines[client] = Line(client, sequence, kept)
        if len(self._lines) > self._clients_max:
            del self._lines[next(iter(self._lines))]

    def pack(self) -> bytes:
        """For a snapshot: equal books, equal bytes."""
        return msgspec.msgpack.encode(Book(FORMAT, list(self._lines.values())))

    def unpack(self, packed: bytes) -> None:
        """Be the book that was packed. ValueError: it is not one, or of a format that is not known here."""
        book = msgspec.msgpack.decode(packed, type=Book)
        if book.format != FORMAT:
            raise ValueError(
                f"found sessions of format {book.format}; expected {FORMAT}. A newer atoll wrote them."
            )
        self._lines = {line.client: line for line in book.lines}
