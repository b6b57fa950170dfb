"""What passes the gateway, counted: requests, answers, retries, and how long they took.

A turnstile with a clock. It remembers totals for ever and single passages only for the last minute,
so the figures of now are of now, and the memory it needs has a bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from itertools import takewhile

from atoll import clock

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WINDOW_S, RATE_S, KEPT = 60.0, 10.0, 20_000


class Traffic:
    """Of one service."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0
        self.retries = 0
        self.in_flight = 0
        self._recent: deque[tuple[float, float]] = deque(maxlen=KEPT)

    def ended(self, status: int, took_s: float) -> None:
        """A request was answered."""
        self.answers[status] += 1
        self.buckets[bisect_left(BUCKETS_S, took_s)] += 1
        self.seconds += took_s
        self._recent.append((clock.loop_now(), took_s))

    @property
    def requests(self) -> int:
        return sum(self.answers.values())

    def row(self) -> dict[str, float | int | None]:
        """Requests a second over the last ten, and the median and 99th percentile of the last minute."""
        now = clock.loop_now()
        recent = list(takewhile(lambda pair: now - pair[0] <= WINDOW_S, reversed(self._recent)))
        times = sorted(took for _, took in recent)
        return {
            "requests": self.requests,
            "errors": sum(n for status, n in self.answers.items() if status >= 500),
            "retries": self.retries,
            "in_flight": self.in_flight,
            "req_s": round(sum(now - at <= RATE_S for at, _ in recent) / RATE_S, 1),
            "p50_ms": _percentile(times, 0.50),
            "p99_ms": _percentile(times, 0.99),
        }


def _percentile(times: list[float], share: float) -> float | None:
    return round(times[min(len(times) - 1, int(len(times) * share))] * 1000, 1) if times else None
