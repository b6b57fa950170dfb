"""Retry budget: retries may be a share of the traffic, never a multiple of it.

Pocket money earned by work: each first try earns a fifth of a coin, each retry costs a whole one.
When everything fails, the purse is soon empty and the failing side is left in peace.

Source: the retry budgets of Finagle (Twitter, 2016) and the Google SRE book, chapter 22.
Departure: coins do not rot with time; the purse is bounded instead.
"""

from __future__ import annotations


class RetryBudget:
    """`share` of a coin for each first try; begins with `reserve` coins and holds `reserve + most`."""

    def __init__(self, *, share: float = 0.2, reserve: int = 10, most: int = 100) -> None:
        self._share = share
        self._purse_max = float(reserve + most)
        self._coins = float(reserve)

    def tried(self) -> None:
        """A request was sent for the first time."""
        self._coins = min(self._purse_max, self._coins + self._share)

    def take(self) -> bool:
        """Whether one retry may be made; it is paid for when the answer is yes."""
        if self._coins < 1:
            return False
        self._coins -= 1
        return True

    @property
    def left(self) -> int:
        """How many retries could be made now."""
        return int(self._coins)
