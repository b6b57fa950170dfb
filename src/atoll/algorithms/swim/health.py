"""Local health: a member's doubt of itself, which makes it slower to doubt others.

Who misses appointments with everybody should look at his own watch first. Each sign that this member is
slow raises a small counter, each probe that went well lowers it, and all its patience grows with it.

Source: Dadgar, Phillips and Currey, Lifeguard (2018), its Local Health Aware Probe.
"""

from __future__ import annotations


class LocalHealth:
    """A saturating counter: 0 is well. `multiplier` is what waiting times are multiplied with."""

    def __init__(self, most: int) -> None:
        self.score = 0
        self._top = most - 1

    @property
    def multiplier(self) -> int:
        """1 to the most."""
        return self.score + 1

    def better(self) -> None:
        """A probe was answered."""
        self.score = max(0, self.score - 1)

    def worse(self, by: int = 1) -> None:
        """A sign of being slow: a probe that failed, a nack that did not come, being suspected."""
        self.score = min(self._top, self.score + by)
