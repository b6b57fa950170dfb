"""The phi accrual failure detector: how surprising is this silence, as one number.

Somebody who phones every evening at eight, give or take a minute, worries you at half past eight. Of
somebody who phones when he likes, you think nothing for days. Phi is that surprise: 1 means that a living
member would be silent so long once in ten times, 3 once in a thousand. What to do at which number is for
each listener to say.

Source: Hayashibara, Defago, Yared and Katayama, The phi Accrual Failure Detector (2004), sections 3 and 4.
Departure: the deviation has a floor, for a network that is regular for a while is not so for ever, and
without it phi leaps at the first hiccup. Before two heartbeats came, the interval that was promised stands
for them, with a quarter of it as deviation. Beyond what a float can hold of the tail, its logarithm is
approximated, so that phi goes on growing.
"""

from __future__ import annotations

import math
from collections import deque

from atoll.errors import ConfigurationError

_TAIL = 26.0
"""Beyond this many deviations over the root of two, the tail is smaller than a float can hold."""
_NANO = 1_000_000_000
"""Intervals are kept in whole nanoseconds: sums of integers do not drift, however long it runs."""


class PhiAccrual:
    """One listener's opinion of one sender of heartbeats. Times in seconds, of a clock that never goes back.

    `window`: so many of the last intervals count. `interval_s`: what the sender promised.
    """

    def __init__(
        self, interval_s: float, now: float, *, window: int = 1000, deviation_min_s: float | None = None
    ) -> None:
        if interval_s <= 0 or window < 2:
            raise ConfigurationError(
                f"found interval_s={interval_s} and window={window}; expected an interval above 0 and a "
                "window of at least 2, for there is no deviation in one interval."
            )
        self._floor = interval_s / 10 if deviation_min_s is None else deviation_min_s
        if self._floor <= 0:
            raise ConfigurationError(
                f"found deviation_min_s={self._floor}; expected above 0: with none, a heartbeat that is a "
                "microsecond late is an impossible event."
            )
        self._intervals: deque[int] = deque(maxlen=window)
        self._sum = self._squares = 0
        self._last = now
        self._mean = interval_s
        self._deviation = max(self._floor, interval_s / 4)

    @property
    def mean_s(self) -> float:
        """Of the intervals in the window."""
        return self._mean

    @property
    def deviation_s(self) -> float:
        """Of the intervals in the window, with its floor."""
        return self._deviation

    def heartbeat(self, now: float) -> None:
        """One arrived."""
        if len(self._intervals) == self._intervals.maxlen:
            oldest = self._intervals.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest
        newest = max(0, round((now - self._last) * _NANO))
        self._intervals.append(newest)
        self._sum += newest
        self._squares += newest * newest
        self._last = max(now, self._last)
        if (count := len(self._intervals)) >= 2:
            self._mean = self._sum / count / _NANO
            variance = (count * self._squares - self._sum * self._sum) / (count * count)
            self._deviation = max(self._floor, math.sqrt(variance) / _NANO)

    def phi(self, now: float) -> float:
        """Minus log10 of the chance that a living sender is still silent at `now`; never falls in silence."""
        return _surprise((now - self._last - self._mean) / self._deviation)

    def due(self, phi: float) -> float:
        """When `phi` will be reached if no heartbeat comes: the deadline of a listener at that threshold."""
        low, high = -40.0, 40.0
        while _surprise(high) < phi:
            high *= 2
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if _surprise(middle) < phi else (low, middle)
        return max(self._last, self._last + self._mean + high * self._deviation)


def _surprise(deviations: float) -> float:
    """Minus log10 of the normal distribution's tail beyond so many deviations."""
    x = deviations / math.sqrt(2)
    if x < _TAIL:
        return max(0.0, -math.log10(0.5 * math.erfc(x)))
    return (x * x + math.log(2 * x * math.sqrt(math.pi))) / math.log(10)
