"""Counter: one number that many add to, exactly.

A slate on the wall with the names of the last who wrote. Whoever was interrupted while writing looks
whether his name stands there: then it was counted, else not.

Promise: every `add` that returned is counted once; one that raised NotApplied is not counted; one whose
answer was lost finds out which, and says OutcomeUnknown only where even that is impossible.
What can break it: a store that loses acknowledged writes; somebody who writes the key by hand.
Proved by: tests/blocks/test_counter.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import quote

import msgspec

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.blocks.lock import checked_name
from atoll.blocks.session import again
from atoll.blocks.watching import states
from atoll.errors import ConfigurationError, Conflict, FormatRefused, NotApplied, OutcomeUnknown
from atoll.ports.register import Applied, Entry
from atoll.ports.store import Store, absent, put, unchanged

ATTEMPTS = 200
"""How often a change is tried anew when others were quicker."""
RECENT = 32
"""Changes that are remembered by name."""

Step = Callable[["Tally | None"], int | None]
"""From what stands to the new number; None: leave it as it is."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the key. `recent`: change -> the number after it, newest last. `of`: a latch's start."""

    value: int
    changes: int = 0
    recent: dict[str, int] = {}
    of: int = 0
    format: int = 1


def read_tally(entry: Entry | None) -> Tally | None:
    """The tally of an entry; None for none. FormatRefused for what is none."""
    if entry is None:
        return None
    try:
        tally = msgspec.json.decode(entry.value, type=Tally)
    except msgspec.DecodeError as error:
        raise FormatRefused(
            f"{entry.key} holds no number of Atoll's: {error}. Use another name, or remove the key."
        ) from None
    if tally.format > 1:
        raise FormatRefused(f"{entry.key} has format {tally.format}; this Atoll reads 1. Upgrade it.")
    return tally


class Change:
    """One change of one tally, tried until it is known to have happened once."""

    def __init__(self, store: Store, key: str, step: Step, of: int = 0) -> None:
        self._store, self._key, self._step, self._of = store, key, step, of
        self._name = clock.unique_id()[:16]
        self._unsure_at: int | None = None  # `changes` when one was sent whose answer is not known

    async def made(self) -> int:
        """The number after it. Raises Conflict when others were quicker each time."""
        try:
            for attempt in range(1, ATTEMPTS + 1):
                done = await self._once()
                if done is not None:
                    return done
                await asyncio.sleep(_pause_s(attempt))
        except NotApplied as error:
            if self._unsure_at is None:
                raise
            raise self._unknown() from error
        if self._unsure_at is not None:
            raise self._unknown()
        raise Conflict(
            f"{self._key} was changed by others {ATTEMPTS} times while we tried. Nothing of ours was "
            "counted: ask again, or add larger numbers less often."
        )

    async def _once(self) -> int | None:
        entry = (await again(lambda: self._store.get(self._key))).entry
        tally = read_tally(entry)
        if (known := self._settled(tally)) is not None:
            return known
        value = self._step(tally)
        if value is None:
            return tally.value if tally is not None else 0
        before = tally or Tally(value=0)
        recent = {**dict(list(before.recent.items())[1 - RECENT :]), self._name: value}
        after = Tally(value=value, changes=before.changes + 1, recent=recent, of=self._of or before.of)
        same = unchanged(self._key, entry.revision) if entry else absent(self._key)
        try:
            answer = await self._store.transact(put(self._key, msgspec.json.encode(after)), compare=[same])
        except OutcomeUnknown:
            self._unsure_at = before.changes
            return None
        if isinstance(answer, Applied):
            return value
        there = read_tally(answer.entries[self._key])  # ours, if the request had arrived twice
        return there.recent.get(self._name) if there is not None else None

    def _settled(self, tally: Tally | None) -> int | None:
        """The number after a change of ours whose answer was lost; None: it has not happened, nor will it.

        It compared a revision. While that one stands, the next try is the same change under the same name,
        and only one of them can be applied; when it has passed, the lost one never will be.
        """
        if self._unsure_at is None:
            return None
        if tally is not None and self._name in tally.recent:
            return tally.recent[self._name]
        since = (tally.changes if tally is not None else 0) - self._unsure_at
        if not 0 <= since < RECENT:
            raise self._unknown()
        if since:
            self._unsure_at = None
        return None

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"a change of {self._key} was sent, and cannot be found out about any more. Read it and decide.",
            id=self._name,
        )


def _pause_s(attempt: int) -> float:
    return full_jitter(attempt, clock.chance().random(), first_s=0.002, ceiling_s=0.1)


class Counter:
    """A whole number by name, which starts at 0. Any process may add to it."""

    def __init__(self, store: Store, name: str) -> None:
        checked_name("counter", name)
        self.store, self.name = store, name
        self._key = f"counter/{quote(name, safe='')}/value"

    def __repr__(self) -> str:
        return f"<Counter {self.name!r} on {self.store!r}>"

    async def add(self, number: int = 1) -> int:
        """Add it, and answer the number after that. One read and one write while nobody else writes.

        Raises Conflict when others were quicker too often, OutcomeUnknown when it may have been added.
        """
        if not isinstance(number, int):
            raise ConfigurationError(f"found {number!r}; expected a whole number to add.")
        return await Change(self.store, self._key, lambda t: (t.value if t else 0) + number).made()

    async def get(self) -> int:
        """The number now."""
        tally = read_tally((await again(lambda: self.store.get(self._key))).entry)
        return tally.value if tally is not None else 0

    async def watch(self) -> AsyncGenerator[int]:
        """The number, now and when it has changed; quick changes are told together."""
        told: int | None = None
        async with aclosing(states(self.store, self._key)) as news:
            async for state in news:
                tally = read_tally(state.get(self._key))
                now = tally.value if tally is not None else 0
                if now != told:
                    told = now
                    yield now
