"""Backoff: how long to wait before asking again.

Everybody who was turned away together comes back together, unless each rolls a die. The range of the
die doubles with every refusal until it meets a ceiling.

Source: M. Brooker, "Exponential Backoff and Jitter" (2015), the variant called full jitter.
Departure: a floor keeps the first retry from being immediate.
"""

from __future__ import annotations


def full_jitter(
    attempt: int, chance: float, *, first_s: float, ceiling_s: float, floor_s: float = 0.0
) -> float:
    """Seconds to wait after failure number `attempt` (1, 2, ...).

    `chance`: a number of [0, 1) from the caller's die. The answer lies between `floor_s` and the
    smaller of `first_s` doubled `attempt - 1` times and `ceiling_s`.
    """
    assert attempt >= 1, attempt
    widest = min(ceiling_s, first_s * 2.0 ** min(attempt - 1, 60))
    return max(floor_s, chance * widest)
