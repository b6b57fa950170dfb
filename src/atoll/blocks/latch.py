"""Latch: a door that opens once, when so many have knocked.

The start of a race with three stewards: when each has raised his flag, everybody runs, and whoever comes late
finds the way open.

Promise: it opens when it was counted down `count` times, each counted once, and stays open until `reset`; a
count outlives who counted.
What can break it: a store that loses acknowledged writes.
Proved by: tests/blocks/test_latch.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import math
from urllib.parse import quote

from atoll import clock
from atoll.blocks.counter import Change, Tally, read_tally
from atoll.blocks.lock import checked_name, checked_times
from atoll.blocks.session import again
from atoll.blocks.watching import State, first_of, until
from atoll.errors import ConfigurationError, NotReady
from atoll.ports.store import Store, delete


class Latch:
    """A latch by name. All who name it must mean the same `count`: else ConfigurationError."""

    def __init__(self, store: Store, name: str, *, count: int) -> None:
        checked_name("latch", name)
        if count < 1:
            raise ConfigurationError(f"found count={count}; expected 1 or more.")
        self.store, self.name, self.count = store, name, count
        self._key = f"latch/{quote(name, safe='')}/left"

    def __repr__(self) -> str:
        return f"<Latch {self.name!r} of {self.count} on {self.store!r}>"

    async def count_down(self, number: int = 1) -> int:
        """Count, and answer how many are left; an open latch stays at 0.

        Raises as `Counter.add`: what was answered is counted once, also when a reply was lost on the way.
        """
        if number < 1:
            raise ConfigurationError(f"found {number}; a latch is counted down by 1 or more.")

        def step(tally: Tally | None) -> int | None:
            left = self._left(tally)
            return max(0, left - number) if left else None

        return await Change(self.store, self._key, step, of=self.count).made()

    async def left(self) -> int:
        """How many are missing; 0: it is open."""
        return self._left(read_tally((await again(lambda: self.store.get(self._key))).entry))

    async def wait(self, wait_s: float | None = None) -> None:
        """Until it is open, at most `wait_s` and the deadline in force; then NotReady. 0: only look."""
        checked_times(1, wait_s)
        due = clock.call_deadline(math.inf if wait_s is None else wait_s)

        def is_open(state: State) -> bool:
            return self._left(read_tally(state.get(self._key))) == 0

        left = await self.left()
        if left and clock.loop_now() < due:
            left = 0 if await first_of(due, until(self.store, self._key, is_open)) else await self.left()
        if left:
            raise NotReady(
                f"{left} of {self.count} are missing before {self.name} opens. Wait longer (wait_s), or look "
                "who has not counted down."
            )

    async def reset(self) -> None:
        """Close it again, with nothing counted. A count whose answer is awaited still may count after it."""
        await again(lambda: self.store.transact(delete(self._key)))

    def _left(self, tally: Tally | None) -> int:
        if tally is None:
            return self.count
        if tally.of != self.count:
            raise ConfigurationError(
                f"the latch {self.name} was begun with count={tally.of}, found count={self.count} here. Name "
                "it with the same count everywhere, or reset() it first."
            )
        return tally.value
