"""Least connections: the next request goes where the fewest are being served.

The shortest line at the supermarket. Nobody measures how fast a cashier is: a slow one simply keeps
a longer line, and so is chosen less. Equal lines are taken in turn.

Source: the least-connections discipline of L4 balancers (Zhang, "Linux Virtual Server", 2000).
Departure: ties go to the one that was chosen longest ago, not to the first listed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class LeastConnections:
    """Counts what each endpoint is serving. `started` and `finished` come in pairs."""

    def __init__(self) -> None:
        self._serving: dict[str, int] = {}
        self._chosen: dict[str, int] = {}
        self._turn = 0

    def choose(self, among: Iterable[str], without: Collection[str] = ()) -> str | None:
        """The endpoint with the fewest requests, None when all are in `without`."""
        candidates = [name for name in among if name not in without]
        if not candidates:
            return None
        return min(candidates, key=lambda n: (self._serving.get(n, 0), self._chosen.get(n, 0)))

    def started(self, name: str) -> None:
        """A request was sent to `name`."""
        self._turn += 1
        self._chosen[name] = self._turn
        self._serving[name] = self._serving.get(name, 0) + 1

    def finished(self, name: str) -> None:
        """A request to `name` is over, however it ended."""
        left = self._serving.get(name, 0) - 1
        if left > 0:
            self._serving[name] = left
        else:
            self._serving.pop(name, None)

    def serving(self, name: str) -> int:
        """How many requests are with `name`."""
        return self._serving.get(name, 0)

    def forget(self, name: str) -> None:
        """`name` is gone for good; its count goes with it."""
        self._serving.pop(name, None)
        self._chosen.pop(name, None)
