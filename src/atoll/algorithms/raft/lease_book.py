"""Lease book: how long each lease still stands, in the head of whoever leads.

A landlord's pocket book, never shown to anybody. He starts it when he takes over, giving every tenant a full
term, for he cannot know when they paid last; he writes a payment down only when he knows that he was still
the landlord after it came. When he is replaced he throws it away.

Source: Gray and Cheriton, Leases (1989); Burrows, The Chubby Lock Service (2006), section 2.8, for the new
master that gives every session its whole time again.
Departure: renewals stand in no log. So a lease may end late, by one election and one time to live; never
early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush


class LeaseBook:
    """Times are seconds of one clock that never jumps. It holds and answers nothing unless it leads."""

    def __init__(self) -> None:
        self.leading = False
        self._ttl: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._ending: set[str] = set()
        self._queue: list[tuple[float, str]] = []

    def lead(self, now: float, leases: Mapping[str, float]) -> None:
        """Begin: every lease of the state gets its whole time to live from `now` on.

        After the first entry of the leader's own term was applied: `leases` is what stands then.
        """
        self.leading = True
        self._ttl = dict(leases)
        self._due = {lease: now + ttl_s for lease, ttl_s in leases.items()}
        self._ending = set()
        self._queue = [(due, lease) for lease, due in self._due.items()]
        heapify(self._queue)

    def depose(self) -> None:
        """End: no lease is known here any more."""
        self.leading = False
        self._ttl, self._due, self._ending, self._queue = {}, {}, set(), []

    def granted(self, lease: str, ttl_s: float, now: float) -> None:
        """A grant was applied at `now`. One that is in the book already keeps its time."""
        if self.leading and lease not in self._ttl:
            self._ttl[lease] = ttl_s
            self._set(lease, now + ttl_s)

    def ended(self, lease: str) -> None:
        """Its end was applied."""
        self._ttl.pop(lease, None)
        self._due.pop(lease, None)
        self._ending.discard(lease)

    def renew(self, lease: str, now: float) -> float | None:
        """A keep-alive came, and leadership was confirmed after that, by `now`: its time to live, or None.

        None where it is over, where its end was proposed, and where nobody leads here: the last is not the
        client's business to believe, so ask `leading` before.
        """
        if not self.leading or lease in self._ending or lease not in self._ttl:
            return None
        due = now + self._ttl[lease]
        if due > self._due[lease]:
            self._due[lease] = due  # the queue finds out when the old time comes
        return self._ttl[lease]

    def ending(self, lease: str) -> bool:
        """Whether its end was proposed and is not decided yet."""
        return lease in self._ending

    def remaining(self, lease: str, now: float) -> float | None:
        """Seconds it has left; 0 while its end is being decided, None where it is not known."""
        due = self._due.get(lease)
        if due is None:
            return None
        return 0.0 if lease in self._ending else max(due - now, 0.0)

    @property
    def next_due(self) -> float:
        """When to ask `due` again; infinity where nothing runs. Early for a lease that was renewed."""
        return self._queue[0][0] if self._queue else float("inf")

    def due(self, now: float) -> list[str]:
        """Leases whose time is over, the earliest first, each told once: propose their end."""
        found = []
        while self._queue and self._queue[0][0] <= now:
            noted, lease = heappop(self._queue)
            due = self._due.get(lease)
            if due is None or lease in self._ending:
                continue
            if due <= now:
                self._ending.add(lease)
                found.append(lease)
            elif due > noted:
                heappush(self._queue, (due, lease))
        return found

    def withdraw(self, leases: Iterable[str]) -> None:
        """Their end was proposed and certainly not taken: `due` tells them again, unless they are renewed."""
        for lease in leases:
            if lease in self._ending:
                self._ending.discard(lease)
                heappush(self._queue, (self._due[lease], lease))

    def _set(self, lease: str, due: float) -> None:
        self._due[lease] = due
        heappush(self._queue, (due, lease))
