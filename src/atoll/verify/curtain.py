"""Curtain: tells every worker process at once that the piece is over, however long it took to begin.

A file that is there or not: it needs no connection that a fault could take away.
"""

from __future__ import annotations

from pathlib import Path

from atoll import clock

LOOK_EVERY_S = 0.02


class Curtain:
    """`path`: the file whose being there ends the piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0.0
        self._down = False

    def fall(self) -> None:
        """End the piece."""
        self.path.touch()

    @property
    def down(self) -> bool:
        """Whether it has ended; as of the last LOOK_EVERY_S seconds."""
        now = clock.lease_now()
        if not self._down and now >= self._next:
            self._next = now + LOOK_EVERY_S
            self._down = self.path.exists()
        return self._down
