"""Bell: tells the watchers of one event loop that something was committed, by ear or by looking.

A doorbell and a spyhole. Where a line straight to the server is there, it rings (NOTIFY); where a pooler
stands between, somebody looks through the spyhole every `poll_s`, once for all who wait, and only while they
do. Who rings says for which doors, so most sleep on. Even by ear one looks once a second, because a bell
whose wire is cut is silent too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from atoll import clock
from atoll.engines.parts.notices import Heard, Line, Notice, Notices, concerns
from atoll.engines.postgresql.wires import PsycopgWire
from atoll.errors import AtollError

log = logging.getLogger("atoll.postgresql")

LOOK_S = 1.0
"""How often to look although the bell is there."""
LINGER_S = 5.0
"""How long to listen on when nobody waits any more."""
QUIET_S = 5.0
SILENT_S = 0.2
"""How long the line may be silent about a commit that this process knows of."""
ANSWER_S = 2.0

_REVISION = "SELECT c.revision FROM atoll.counter c WHERE c.one AND NOT pg_is_in_recovery()"


def notice(payload: str) -> Notice:
    """What the server rang: `before newest`, then for each key its revision, + or -, and it in hexadecimal.

    A star for the keys: too many to say. A number alone: ring without saying anything.
    """
    words = payload.split(" ")
    if len(words) == 1:
        return Notice(-1, int(payload), None)
    before, newest = int(words[0]), int(words[1])
    if words[2:] == ["*"]:
        return Notice(before, newest, None)
    return Notice(before, newest, tuple(_line(word) for word in words[2:] if word))


def _line(word: str) -> Line:
    sign = "+" if "+" in word else "-"
    revision, _, key = word.partition(sign)
    return Line(int(revision), sign == "+", bytes.fromhex(key).decode())


@dataclass(slots=True, eq=False)
class _Waiter:
    """One watch asleep: it knows all of `prefix` up to `through`; None: it is woken for everything."""

    through: int
    prefix: str | None
    woken: asyncio.Future[None]


class Bell:
    """`look` answers the newest revision. `listen` opens a line straight to the server, if there is one, and
    says which life of the data it leads to.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[int]],
        listen: Callable[[], Awaitable[tuple[PsycopgWire, str]]] | None,
        *,
        poll_s: float,
    ) -> None:
        self._look, self._listen, self._poll_s = look, listen, poll_s
        self._notices = Notices()
        self._life: str | None = None
        self._waiting: set[_Waiter] = set()
        self._minding: asyncio.Task[None] | None = None
        self._idle_since = 0.0
        self._line: PsycopgWire | None = None
        self._closed = False
        self._missed = -1
        self._checking: asyncio.TimerHandle | None = None
        self.heard_s: float | None = None
        """When the line last answered, by the loop clock; None while there is none."""

    def ring(self, revision: int) -> None:
        """`revision` was committed. Where a line is open its own words are waited for, they say more."""
        if revision <= self._notices.newest:
            return
        if self.heard_s is None:
            self._tell(Notice(self._notices.newest, revision, None))
            return
        self._missed = max(self._missed, revision)
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(SILENT_S, self._check)

    def went_back(self, revision: int) -> None:
        """Another server answers now, and it has no more than `revision`."""
        self._notices.forget(revision)

    def since(self, after: int, prefix: str, life: str | None) -> Heard:
        """What was heard of `prefix` after revision `after`; nothing of another life of the data."""
        if life is None or life != self._life:
            return Heard(after, (), True)
        return self._notices.since(after, prefix)

    async def wait(self, after: int, wait_s: float, prefix: str | None, life: str | None) -> int:
        """Until something of `prefix` after `after` was committed, at most `wait_s`.

        Answers up to which revision nothing of it was. Who read another life of the data than is heard here,
        or gives None as prefix, is woken for everything.
        """
        if life is None or life != self._life:
            prefix = None
        heard = self._notices.since(after, prefix)
        if heard.more or heard.news or self._closed:
            return after if heard.news else heard.through
        mine = _Waiter(heard.through, prefix, asyncio.get_running_loop().create_future())
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
        return mine.through

    def _tell(self, told: Notice) -> None:
        """Wake whom it concerns; the others know now that it does not."""
        if told.newest == 0:
            self._wake()
        if not self._notices.add(told):
            return
        for one in self._waiting:
            if one.woken.done():
                continue
            if concerns(told, one.through, one.prefix):
                one.woken.set_result(None)
            else:
                one.through = told.newest

    def _wake(self) -> None:
        for one in self._waiting:
            if not one.woken.done():
                one.woken.set_result(None)

    def _check(self) -> None:
        """The line is silent about what we know was committed: wake everybody."""
        self._checking = None
        if self._missed > self._notices.newest:
            self._tell(Notice(self._notices.newest, self._missed, None))

    async def close(self) -> None:
        """Stop listening, and wake who waits."""
        self._closed = True
        self._wake()
        if self._checking is not None:
            self._checking.cancel()
        if self._minding is None or self._minding.done():
            return
        if self._line is not None:
            self._line.cut()  # sooner than a cancellation, which would ask the server to cancel too
            await asyncio.wait({self._minding}, timeout=1.0)
        self._minding.cancel()
        await asyncio.wait({self._minding}, timeout=1.0)

    async def _mind(self) -> None:
        while self._wanted():
            if self._listen is not None:
                try:
                    await self._by_ear(self._listen)
                except Exception as error:
                    log.debug("no line to listen on, so looking instead: %r", error)
                self.heard_s = None
            await self._by_looking(QUIET_S if self._listen is not None else None)

    def _wanted(self) -> bool:
        if self._closed:
            return False
        return bool(self._waiting) or clock.loop_now() - self._idle_since < LINGER_S

    async def _by_looking(self, for_s: float | None) -> None:
        until = None if for_s is None else clock.loop_now() + for_s
        while self._wanted() and (until is None or clock.loop_now() < until):
            if self._waiting:
                with suppress(AtollError):
                    self.ring(await self._look())
            await asyncio.sleep(self._poll_s)

    async def _by_ear(self, listen: Callable[[], Awaitable[tuple[PsycopgWire, str]]]) -> None:
        async with asyncio.timeout(QUIET_S):
            wire, life = await listen()
        self._line = wire
        wire.connection.add_notify_handler(lambda heard: self._tell(notice(heard.payload)))
        try:
            # What was heard before says nothing of this server: who waits looks, once.
            self._notices.forget(-1)
            self._life = life
            async with asyncio.timeout(ANSWER_S):
                await wire.script("LISTEN atoll")
            self._wake()
            while self._wanted():
                async with asyncio.timeout(ANSWER_S):
                    rows = await wire.rows(_REVISION, ())
                if not rows:
                    return  # it is a standby now
                self.heard_s = clock.loop_now()
                self.ring(int(rows[0][0]))
                await self._hear(wire)
        finally:
            self._line = self._life = None
            wire.cut()
            await wire.connection.close()

    async def _hear(self, wire: PsycopgWire) -> None:
        """What the server rings within the next `LOOK_S`. Raises when the line breaks.

        Read straight off the socket: every commit of everybody comes by here, most of them for nobody.
        """
        loop, line = asyncio.get_running_loop(), wire.connection.pgconn
        broken: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            try:
                line.consume_input()
                while (heard := line.notifies()) is not None:
                    self._tell(notice(heard.extra.decode()))
            except Exception as error:
                loop.remove_reader(socket)
                if not broken.done():
                    broken.set_exception(error)

        socket = line.socket
        loop.add_reader(socket, readable)
        try:
            await asyncio.wait({broken}, timeout=LOOK_S)
        finally:
            loop.remove_reader(socket)
        if broken.done():
            broken.result()
