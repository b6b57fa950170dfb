"""Hybrid logical clock: time stamps near the wall clock's that never contradict who heard of what.

A diary in which no entry may be dated before one that its writer had already read. Usually the date is
today's. If somebody else's calendar runs a little ahead, one dates like him and numbers the entries of that
day; if it runs far ahead, one does not believe it.

Source: Kulkarni, Demirbas, Madappa, Avva and Leone, Logical Physical Clocks and Consistent Snapshots in
Globally Distributed Databases (2014), figure 5; section 6 for the bound and the 64 bits.
Departure: milliseconds of Unix time in 48 bits and a counter in 16. A counter that is full borrows the next
millisecond. A stamp too far ahead is refused, and the clock not moved, where the paper leaves it to its
reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from atoll.errors import ConfigurationError, FormatRefused, LimitReached

WALL_MAX_MS = 2**48 - 1
"""The year 10889."""
COUNTER_MAX = 2**16 - 1


class Stamp(NamedTuple):
    """A time: Unix milliseconds, and which of that millisecond. Compares as written."""

    wall_ms: int
    counter: int = 0

    def pack(self) -> int:
        """As one number of 64 bits, in the same order."""
        return self.wall_ms << 16 | self.counter

    def to_bytes(self) -> bytes:
        """As eight bytes, in the same order."""
        return self.pack().to_bytes(8)


ZERO = Stamp(0)


def unpack(packed: int | bytes) -> Stamp:
    """The stamp that `pack` or `to_bytes` made this of; FormatRefused for what cannot be one."""
    if isinstance(packed, bytes):
        if len(packed) != 8:
            raise FormatRefused(f"found {len(packed)} bytes; expected the 8 of a hybrid time stamp")
        packed = int.from_bytes(packed)
    if not 0 <= packed < 2**64:
        raise FormatRefused(f"found {packed}; expected a hybrid time stamp, a number of 64 bits")
    return Stamp(packed >> 16, packed & COUNTER_MAX)


@dataclass(slots=True)
class HybridClock:
    """One replica's clock. Each stamp is greater than every one that it gave or took in before.

    `drift_max_ms`: how far ahead of this machine's wall clock a stamp from elsewhere may be. `last`: where a
    clock of this replica stood when it was stopped, so that it goes on from there.
    """

    drift_max_ms: int = 500
    last: Stamp = ZERO

    def __post_init__(self) -> None:
        if self.drift_max_ms < 0:
            raise ConfigurationError(f"found drift_max_ms={self.drift_max_ms}; expected 0 or more")

    def now(self, wall_ms: int) -> Stamp:
        """The stamp of an event here, or of a message about to be sent. `wall_ms`: Unix milliseconds."""
        return self._move(_checked(wall_ms), self.last)

    def receive(self, stamp: Stamp, wall_ms: int) -> Stamp:
        """The stamp of receiving what was stamped elsewhere; LimitReached if that is too far ahead."""
        ahead_ms = stamp.wall_ms - _checked(wall_ms)
        if ahead_ms > self.drift_max_ms:
            raise LimitReached(
                f"found a time stamp {ahead_ms} ms ahead of the clock here; at most {self.drift_max_ms} ms "
                f"are believed (drift_max_ms). Theirs is fast or ours is slow: ask a time server for both"
            )
        return self._move(wall_ms, max(self.last, stamp))

    def ahead_ms(self, wall_ms: int) -> int:
        """How far the stamps run ahead of this machine's wall clock: 0 when all clocks agree."""
        return max(0, self.last.wall_ms - wall_ms)

    def _move(self, wall_ms: int, newest: Stamp) -> Stamp:
        if wall_ms > newest.wall_ms:
            moved = Stamp(wall_ms)
        elif newest.counter < COUNTER_MAX:
            moved = Stamp(newest.wall_ms, newest.counter + 1)
        else:
            moved = Stamp(_checked(newest.wall_ms + 1))
        self.last = moved
        return moved


def _checked(wall_ms: int) -> int:
    if not 0 <= wall_ms <= WALL_MAX_MS:
        raise LimitReached(f"found the time {wall_ms} ms; expected Unix milliseconds, 0 to {WALL_MAX_MS}")
    return wall_ms
