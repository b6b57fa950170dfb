"""LWW register: one value; of two that were written apart the one with the later stamp stays.

A note on the door, with the time on it. Whoever comes with a later one pastes it over. The other note is
lost, and nobody is told: that is the price of never asking, so it is for what may be overwritten.

Source: Shapiro and others (2011), specification 8 (state-based last-writer-wins register).
Departure: stamps of a hybrid clock, so a write made after reading another is always later; then the replica's
name, and then the bytes decide, so that any two differing values have a winner everywhere the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from atoll.algorithms.hybrid_clock import COUNTER_MAX, WALL_MAX_MS, Stamp
from atoll.errors import Conflict, FormatRefused

NIL = msgspec.msgpack.encode(None)
STRAIGHT = msgspec.msgpack.Encoder(order="deterministic")


class LWWRegister(msgspec.Struct, array_like=True, tag="lww-register"):
    """One value of plain data (None, numbers, text, bytes, lists, maps), and who wrote it when."""

    wall_ms: int = 0
    counter: int = 0
    replica: str = ""
    packed: bytes = NIL

    @property
    def value(self) -> Any:
        """The value; None before the first."""
        return msgspec.msgpack.decode(self.packed)

    @property
    def stamp(self) -> Stamp:
        """When it was written, by its writer's hybrid clock."""
        return Stamp(self.wall_ms, self.counter)

    def set(self, value: Any, stamp: Stamp, replica: str) -> LWWRegister:
        """Write, and answer the delta. Conflict if what stands here is as new: its stamp was not received."""
        if stamp <= self.stamp:
            raise Conflict(
                f"found a value stamped {self.stamp}; the new one is stamped {stamp} and would be lost. "
                f"Let the clock receive the stamps that are read, then take its stamp"
            )
        written = LWWRegister(*stamp, replica, STRAIGHT.encode(value))
        self.merge(written)
        return written

    def merge(self, other: LWWRegister) -> None:
        """Keep the later of both."""
        if self._rank() < other._rank():
            self.wall_ms, self.counter = other.wall_ms, other.counter
            self.replica, self.packed = other.replica, other.packed

    def copy(self) -> LWWRegister:
        """Another one, equal to this."""
        return LWWRegister(self.wall_ms, self.counter, self.replica, self.packed)

    def check(self) -> None:
        """FormatRefused for what no sequence of changes leads to."""
        if not (0 <= self.wall_ms <= WALL_MAX_MS and 0 <= self.counter <= COUNTER_MAX):
            raise FormatRefused(
                f"found the stamp {self.wall_ms}, {self.counter} in a register: out of bounds"
            )
        try:
            msgspec.msgpack.decode(self.packed)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise FormatRefused(f"found a register whose value is not msgpack: {error}") from None

    def _rank(self) -> tuple[int, int, str, bytes]:
        return self.wall_ms, self.counter, self.replica, self.packed
