"""Restart budget: how often something may fall before we stop picking it up.

A child learning to walk is set on its feet at once; one that falls every second step needs a doctor,
not another push. Each fall waits twice as long as the one before, and too many in a short time end it.

Source: the restart intensity of Erlang/OTP supervisors (Armstrong, thesis, 2003, section 5.4).
Departure: between two restarts there is an exponentially growing wait, forgotten after a calm time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartLimits:
    """At most `most` restarts within `within_s`; waits from `first_s`, doubling, at most `longest_s`."""

    most: int = 5
    within_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 10.0
    calm_s: float = 10.0
    """A life this long makes the next wait `first_s` again."""


class RestartBudget:
    """One per restarted thing. `now` is any clock that does not jump."""

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._restarts: deque[float] = deque()
        self._in_a_row = 0

    def ended(self, now: float, lived_s: float) -> float | None:
        """It has ended after `lived_s`: seconds to wait before the restart, None to give up."""
        self._drop_old(now)
        if len(self._restarts) >= self._limits.most:
            return None
        if lived_s >= self._limits.calm_s:
            self._in_a_row = 0
        wait = self._limits.first_s
        for _ in range(self._in_a_row):
            wait = min(wait * 2, self._limits.longest_s)
        self._in_a_row += 1
        self._restarts.append(now)
        return wait

    def left(self, now: float) -> int:
        """How many more restarts the budget has now."""
        self._drop_old(now)
        return max(0, self._limits.most - len(self._restarts))

    def forgive(self) -> None:
        """Start afresh: somebody restarted it on purpose."""
        self._restarts.clear()
        self._in_a_row = 0

    def _drop_old(self, now: float) -> None:
        while self._restarts and now - self._restarts[0] >= self._limits.within_s:
            self._restarts.popleft()
