"""Bell: tells the watchers of one event loop what was committed, as one member tells it.

A night porter with an earpiece. One member tells him of every commit; he wakes only those whom it concerns,
and tells them himself what is short. A member that tells nothing for a while, not even that all is quiet, is
left for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from atoll import clock
from atoll.engines.parts.notices import Heard, Line, Notice, Notices, concerns
from atoll.engines.raft import wire
from atoll.engines.raft.link import Broken, Link
from atoll.engines.raft.members import Members
from atoll.engines.raft.wire import News
from atoll.errors import AtollError
from atoll.ports.register import Entry

HEARTBEAT_S = 1.0
"""How often a member says that all is quiet, once a majority's leader has told it so."""
SILENT_S = 2.5
AGAIN_S = 0.05
LINGER_S = 5.0
"""How long to listen on when nobody waits any more."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One watch asleep: it knows all of `prefix` up to `through`; None: it is woken for everything."""

    through: int
    prefix: str | None
    woken: asyncio.Future[None]


class Bell:
    """Of one event loop. `heard_s`: when a member last said something, by the loop clock."""

    def __init__(self, members: Members) -> None:
        self._members = members
        members.on_news = self._news
        self._notices = Notices()
        self._waiting: set[_Waiter] = set()
        self._minding: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._broken: asyncio.Event = asyncio.Event()
        self._idle_since = 0.0
        self._closed = False
        self.heard_s = clock.loop_now()

    def since(self, after: int, prefix: str) -> Heard:
        """What was heard of `prefix` after revision `after`."""
        if self._link is None:
            return Heard(after, (), True)
        return self._notices.since(after, prefix)

    @property
    def newest(self) -> int:
        """The newest revision that was heard of."""
        return self._notices.newest

    def went_back(self) -> None:
        """The store has less than was known of it: what was heard is of no use."""
        self._notices.forget(-1)

    @property
    def hears(self) -> bool:
        """Whether a member that a leader speaks to has said something just now."""
        return self._link is not None and clock.loop_now() - self.heard_s < SILENT_S

    async def wait(self, after: int, wait_s: float, prefix: str | None) -> tuple[int, bool]:
        """Until something of `prefix` after `after` was committed, at most `wait_s`; None: anything.

        Answers up to which revision nothing of it was, and whether it is worth a look.
        """
        if self._link is not None:
            heard = self._notices.since(after, prefix)
            if heard.more or heard.news or self._closed:
                return (after if heard.news else heard.through), True
            after = heard.through
        mine = _Waiter(after, prefix, asyncio.get_running_loop().create_future())
        self._waiting.add(mine)
        if self._minding is None or self._minding.done():
            self._minding = asyncio.create_task(self._mind(), context=clock.detached())
        try:
            async with asyncio.timeout(wait_s):
                await mine.woken
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(mine)
            self._idle_since = clock.loop_now()
        return mine.through, mine.woken.done() and not mine.woken.cancelled()

    # -- listening -------------------------------------------------------------------------------------

    async def _mind(self) -> None:
        while self._wanted():
            with suppress(AtollError):
                await self._listen()
            link, self._link = self._link, None
            if link is not None:
                link.close("nobody watches here")
            await asyncio.sleep(AGAIN_S)

    def _wanted(self) -> bool:
        if self._closed:
            return False
        return bool(self._waiting) or clock.loop_now() - self._idle_since < LINGER_S

    async def _listen(self) -> None:
        self._broken.clear()
        self._notices.forget(-1)  # what another member told before may have a gap to what this one tells
        self._link = link = await self._members.listening()
        try:
            answer = await link.ask(wire.Subscribe(), SILENT_S, SILENT_S)
        except (Broken, TimeoutError):
            link.close("it told nothing")
            return
        if isinstance(answer, News):
            self._news(link, answer)
        self._wake()  # who slept meanwhile looks, once
        while self._wanted() and link.standing:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENT_S / 2):
                    await self._broken.wait()
                return
            if clock.loop_now() - self.heard_s > SILENT_S:
                link.close("it told nothing")
                return

    def _news(self, link: Link, news: News) -> None:
        if link is not self._link:
            return
        if news.newest < 0:
            self._broken.set()
            return
        self.heard_s = clock.loop_now()
        told = _notice(news)
        if not self._notices.add(told):
            return
        for one in self._waiting:
            if one.woken.done():
                continue
            if concerns(told, one.through, one.prefix):
                one.woken.set_result(None)
            else:
                one.through = max(one.through, told.newest)

    def _wake(self) -> None:
        for one in self._waiting:
            if not one.woken.done():
                one.woken.set_result(None)

    async def close(self) -> None:
        """Stop listening, and wake who waits."""
        self._closed = True
        self._wake()
        self._broken.set()
        if self._minding is not None and not self._minding.done():
            self._minding.cancel()
            await asyncio.wait({self._minding}, timeout=1.0)
        if self._link is not None:
            self._link.close()


def _notice(news: News) -> Notice:
    return Notice(news.before, news.newest, None if news.lines is None else _lines(news.lines))


def _lines(lines: Sequence[tuple[int, bool, str, wire.Row | None]]) -> tuple[Line, ...]:
    return tuple(
        Line(revision, put, key, None if row is None else Entry(*row)) for revision, put, key, row in lines
    )
