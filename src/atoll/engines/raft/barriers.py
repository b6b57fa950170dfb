"""Barriers: reads that wait until a leader was confirmed, and until the state here is that far.

People at a stop who ask the time. One of them rings the town hall for all who stand there; who comes while
the telephone rings waits for the next call, because the answer may be older than his question.

Source: Ongaro, Consensus (2014), 6.4 (ReadIndex), 6.4.1.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from atoll import clock
from atoll.algorithms.raft.messages import Index
from atoll.errors import NotSent


class Barriers:
    """Reads that wait: one question for all that came together, then for the state to be that far."""

    def __init__(
        self, ask: Callable[[int], None], want: Callable[[Index], None], applied: Index, again_s: float
    ) -> None:
        self.applied = applied
        """How far the state is."""
        self._ask_machine = ask
        self._want = want
        self._again_s = again_s
        self._loop = asyncio.get_running_loop()
        self._next: list[asyncio.Future[None]] = []
        self._asked: list[asyncio.Future[None]] = []
        self._ids: set[int] = set()
        self._again: asyncio.TimerHandle | None = None
        self._soon = False
        self._behind: list[tuple[Index, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def wait(self) -> asyncio.Future[None]:
        """Done when what was acknowledged before is in the state; cancel it to leave."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._next.append(future)
        if not self._asked and not self._soon:
            self._soon = True
            self._loop.call_soon(self._ask)
        return future

    def _ask(self) -> None:
        """For all who wait and were not asked for: what is asked now is not older than their questions."""
        self._soon = False
        self._ids.clear()
        self._asked += [future for future in self._next if not future.done()]
        self._next = []
        self._ask_again()

    def _ask_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._asked = [future for future in self._asked if not future.done()]
        if not self._asked:
            self._ids.clear()
            if self._next:
                self._ask()
            return
        self._again = self._loop.call_later(self._again_s, self._ask_again)
        self._ids.add(id := clock.chance().getrandbits(62))
        self._ask_machine(id)

    def ready(self, id: int, index: Index) -> None:
        """The machine says that `index` is enough for those that were asked for by `id`."""
        if id not in self._ids:
            return
        self._ids.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        answered, self._asked = self._asked, []
        if index > self.applied:
            self._want(index)
        for future in answered:
            if future.done():
                continue
            if index <= self.applied:
                future.set_result(None)
            else:
                heapq.heappush(self._behind, (index, next(self._count), future))
        if self._next and not self._soon:
            self._soon = True
            self._loop.call_soon(self._ask)

    def refused(self, id: int) -> bool:
        """A refusal is asked again when the timer rings: by then somebody may lead."""
        if id not in self._ids:
            return False
        self._ids.discard(id)
        return True

    def advance(self, applied: Index) -> None:
        """The state is as far as `applied`."""
        self.applied = max(self.applied, applied)
        while self._behind and self._behind[0][0] <= self.applied:
            future = heapq.heappop(self._behind)[2]
            if not future.done():
                future.set_result(None)

    def ended(self, sentence: str) -> None:
        """Nobody is answered any more."""
        if self._again is not None:
            self._again.cancel()
        for future in [*self._next, *self._asked, *(f for _, _, f in self._behind)]:
            if not future.done():
                future.set_exception(NotSent(sentence))
        self._next, self._asked, self._behind = [], [], []
