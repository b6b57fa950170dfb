"""Watching: what a majority of the acceptors shows below a prefix, put together from watches on each.

Three windows onto three boards. What hangs on two of them was agreed on; where they differ, somebody is just
going round, or died on the way: then one look is taken by asking, which also puts the boards right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING

from atoll import clock
from atoll.algorithms.paxos import Cell
from atoll.engines.caspaxos.acceptor import Acceptor
from atoll.engines.caspaxos.records import NEVER, NUMBERS, State, cell_of
from atoll.errors import AtollError, NotApplied, OutcomeUnknown, WatchLost
from atoll.ports.register import Entry, Observation

if TYPE_CHECKING:
    from atoll.engines.caspaxos.driver import Driver

RETRY_S = 0.1
GRACE_S = 0.1
"""A change under way gets this long, and a random time up to as long again, before it is asked after."""


class News:
    """What the views of one watch have shown and nobody has looked at yet."""

    def __init__(self) -> None:
        self.bell = asyncio.Event()
        self.dirty: set[str] = set()
        self.said: dict[str, str] = {}


class View:
    """What one acceptor shows below a prefix. `cells` is None while it shows nothing."""

    def __init__(self, acceptor: Acceptor, prefix: str, news: News, look_s: float) -> None:
        self.cells: dict[str, Cell[State]] | None = None
        self._acceptor, self._prefix, self._news, self._look_s = acceptor, prefix, news, look_s

    async def look(self) -> None:
        """Follow it for ever."""
        while True:
            try:
                async with asyncio.timeout(self._look_s):
                    self._acceptor.itself(await self._acceptor.meet())
                await first_of(self._follow(), self._look_after())
            except TimeoutError:
                self._news.said[self._acceptor.url] = f"no answer for {self._look_s:g} s"
            except AtollError as error:
                self._news.said[self._acceptor.url] = str(error)
            self.cells = None
            self._news.bell.set()
            await asyncio.sleep(RETRY_S)

    async def _look_after(self) -> None:
        """Whether it still answers, and is still an acceptor of this register."""
        while True:
            await asyncio.sleep(self._look_s)
            async with asyncio.timeout(self._look_s):
                self._acceptor.itself(await self._acceptor.meet())

    async def _follow(self) -> None:
        head, url = self._acceptor.cells, self._acceptor.url
        async for item in self._acceptor.place.observe(head + self._prefix):
            found = {one.key.removeprefix(head): cell_of(one, url) for one in item.changed}
            found.pop(NUMBERS, None)
            gone = [key.removeprefix(head) for key in item.removed]
            old = self.cells or {}
            if item.reset:
                gone, old = [key for key in old if key not in found], {}
            self.cells = {key: cell for key, cell in old.items() if key not in gone} | found
            self._news.dirty.update(found, gone)
            self._news.said.pop(url, None)
            self._news.bell.set()


class Watch:
    """One observation, put together."""

    def __init__(self, driver: Driver, prefix: str, url: str, liveness_s: float) -> None:
        self._driver, self._prefix, self._url, self._liveness_s = driver, prefix, url, liveness_s
        self._news = News()
        self._views = [
            View(one, prefix, self._news, liveness_s / 4) for one in self._driver.acceptors.values()
        ]
        self._shown: dict[str, State] = {}
        self._due: dict[str, float] = {}
        self._revision = 0
        self._heard = clock.loop_now()

    async def items(self) -> AsyncIterator[Observation]:
        """A reset, then what changes."""
        self._revision = (await self._ask(NUMBERS)).seen
        tasks = [asyncio.create_task(view.look()) for view in self._views]
        self._driver.bells.add(self._news.bell)
        reset = True
        try:
            while True:
                await self._wait()
                living = [view.cells for view in self._views if view.cells is not None]
                if len(living) < self._driver.quorums.prepare_needs:
                    self._expect_life()
                    continue
                self._heard = clock.loop_now()
                item = self._item(await self._states(living, reset), reset)
                if item is not None and not (reset and self._due):
                    reset = False
                    yield item
        finally:
            self._driver.bells.discard(self._news.bell)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self) -> None:
        """Until there is news, or a change has been under way for too long, or a majority may be gone."""
        now = clock.loop_now()
        until = min([*self._due.values(), now + self._liveness_s / 4])
        try:
            async with asyncio.timeout_at(until):
                await self._news.bell.wait()
        except TimeoutError:
            pass
        self._news.bell.clear()
        if self._driver.closed:
            raise WatchLost(f"{self._url} was closed while {self._prefix!r} was watched. Watch it again.")

    def _expect_life(self) -> None:
        if clock.loop_now() - self._heard > self._liveness_s:
            said = "; ".join(f"{url}: {error}" for url, error in self._news.said.items())
            raise WatchLost(
                f"no majority of {self._url} has answered a watch of {self._prefix!r} for "
                f"{self._liveness_s:g} s ({said}). Watch it again."
            )

    async def _states(self, living: list[dict[str, Cell[State]]], reset: bool) -> dict[str, State]:
        """What is agreed on, of the keys with news; those still under way are asked after when it is time."""
        now = clock.loop_now()
        keys = {key for cells in living for key in cells} if reset else set(self._news.dirty)
        keys.update(key for key, due in self._due.items() if due <= now)
        self._news.dirty.clear()
        states: dict[str, State] = {}
        for key in sorted(keys):
            state = agreed([cells.get(key, Cell()) for cells in living], self._driver.quorums.prepare_needs)
            if state is None and not reset and self._due.setdefault(key, self._later(now)) > now:
                continue
            if state is None:
                try:
                    state = await self._ask(key)
                except (NotApplied, OutcomeUnknown) as error:
                    self._news.said[self._url] = str(error)
                    self._due[key] = clock.loop_now() + RETRY_S
                    continue
            self._due.pop(key, None)
            states[key] = state
        return states

    def _item(self, states: dict[str, State], reset: bool) -> Observation | None:
        """What of it is news."""
        changed: list[Entry] = []
        removed: list[str] = []
        for key, state in states.items():
            before = self._shown.get(key, NEVER)
            if state.revision <= before.revision and not reset:
                continue
            if state.revision >= before.revision:
                self._shown[key] = state
            entry = self._shown[key].entry(key)
            if entry is not None:
                changed.append(entry)
            elif before.present:
                removed.append(key)
        if not (reset or changed or removed):
            return None
        newest = max((state.revision for state in states.values()), default=0)
        self._revision = max(self._revision, newest)
        return Observation(reset, tuple(changed), () if reset else tuple(removed), self._revision)

    async def _ask(self, key: str) -> State:
        return await self._driver.change(key, State.at, f"watching {self._prefix!r}")

    def _later(self, now: float) -> float:
        return now + GRACE_S * (1.0 + clock.chance().random())


async def first_of(*bodies: Coroutine[None, None, None]) -> None:
    """Until the first of them ends or raises; the others are cancelled."""
    tasks = [asyncio.create_task(body) for body in bodies]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def agreed(cells: list[Cell[State]], needs: int) -> State | None:
    """The state that `needs` of the cells show as accepted last; None while they differ."""
    last = max(cell.accepted for cell in cells)
    same = [cell for cell in cells if cell.accepted == last]
    if len(same) < needs:
        return None
    return same[0].value or NEVER
