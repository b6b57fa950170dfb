"""Desk: serves a member's clients, on what the members agreed and on this member's copy of the book.

A counter in a branch office. Letters for the log go to whoever leads, and elsewhere you are told where that
is. Questions are answered from this office's own copy, after one look at the clock on the wall: those who
wait for it wait together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from atoll import clock
from atoll.algorithms.raft.messages import Entry
from atoll.engines.parts.notices import Line, Notice
from atoll.engines.raft import reading, wire
from atoll.engines.raft.bell import HEARTBEAT_S
from atoll.engines.raft.command import stamp
from atoll.engines.raft.connection import Connection
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.reading_room import BARRIER_S, ReadingRoom
from atoll.engines.raft.serving import Serving, refused
from atoll.engines.raft.visitor import Visitor
from atoll.errors import AtollError, FormatRefused

MUCH = 1000
"""Entries in one range; who asks for more is served by a thread."""


class Desk:
    """One member's, for all its clients. Everything runs in the node's loop."""

    def __init__(self, consensus: Consensus) -> None:
        self._consensus = consensus
        self._serving = Serving(consensus)
        self._visitors: set[Visitor] = set()
        self._subscribed: set[Visitor] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = ReadingRoom(consensus, self._spawn)
        self._beating = False
        self._told = consensus.state.revision()
        self._loop = asyncio.get_running_loop()
        consensus.state.on_commit.append(self._committed)
        consensus.on_applied.append(self._installed)

    def welcome(self, connection: Connection, hello: object = None) -> None:
        """A client was greeted: serve it until it leaves."""
        visitor = Visitor(connection)
        self._visitors.add(visitor)
        connection.on_frame = partial(self._asked, visitor)
        connection.on_lost = partial(self._left, visitor)
        connection.room = visitor.room

    def _left(self, visitor: Visitor, connection: Connection, why: str) -> None:
        visitor.gone = True
        self._visitors.discard(visitor)
        self._subscribed.discard(visitor)

    async def close(self) -> None:
        """Serve nobody any more."""
        self._serving.close()
        for task in list(self._tasks):
            task.cancel()
        for visitor in list(self._visitors):
            visitor.connection.close("this member stops")

    # -- what is asked ---------------------------------------------------------------------------------

    def _asked(self, visitor: Visitor, connection: Connection, body: bytes) -> None:
        try:
            asked = wire.read_asked(body)
        except wire.NONSENSE as error:
            raise FormatRefused(
                f"found {len(body)} bytes that are no question of a client: {error}"
            ) from None
        number, verb = asked.number, asked.verb
        visitor.takes()
        match verb:
            case wire.Write():
                self._write(visitor, number, verb)
            case wire.Get():
                self._reading.ask(visitor, number, partial(reading.get, key=verb.key), sure=True)
            case wire.Range():
                look = partial(reading.span, low=verb.low, high=verb.high, limit=verb.limit, hasty=True)
                self._reading.ask(visitor, number, look, sure=True, much=verb.limit > MUCH)
            case wire.Look():
                self._look(visitor, number, verb)
            case wire.Ask():
                self._reading.ask(visitor, number, self._serving.card, sure=verb.fresh)
            case wire.Judge():
                judged = partial(self._serving.judged, data=verb.data)
                self._reading.ask(visitor, number, judged, sure=True)
            case wire.Subscribe():
                self._subscribe(visitor, number)
            case _:
                self._spawn(self._answered(visitor, number, self._serving.answer(verb), asked.left_ms / 1000))

    def _write(self, visitor: Visitor, number: int, verb: wire.Write) -> None:
        consensus = self._consensus
        if not consensus.is_leader:
            visitor.answer(number, self._serving.not_leader())
            return
        data = stamp(verb.data, clock.wall_now())
        future = consensus.submit(data, verb.client, verb.sequence)
        future.add_done_callback(partial(self._written, visitor, number))

    def _written(self, visitor: Visitor, number: int, future: asyncio.Future[bytes]) -> None:
        if future.cancelled():
            visitor.answer(number, wire.Refusal(wire.Said.UNKNOWN, "this member stops"))
            return
        error = future.exception()
        if error is None:
            visitor.answer(number, wire.Done(future.result()))
        elif isinstance(error, AtollError):
            visitor.answer(number, refused(error, self._consensus))
        else:
            visitor.answer(number, wire.Refusal(wire.Said.UNKNOWN, repr(error)[:300]))

    def _look(self, visitor: Visitor, number: int, verb: wire.Look) -> None:
        look = partial(reading.look, prefix=verb.prefix, after=verb.after, all=verb.all)
        behind = max(verb.after or 0, verb.least) > self._told
        self._reading.ask(visitor, number, look, sure=verb.fresh or behind, much=verb.after is None)

    # -- news ------------------------------------------------------------------------------------------

    def _subscribe(self, visitor: Visitor, number: int) -> None:
        self._subscribed.add(visitor)
        self._reading.ask(visitor, number, reading.news, sure=True)
        if not self._beating:
            self._beating = True
            self._spawn(self._heartbeat())

    def _committed(self, notice: Notice) -> None:
        """On the state's thread: a batch was committed."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, notice)

    def _installed(self, entries: Sequence[Entry], results: Sequence[bytes]) -> None:
        """A snapshot is the state now: who watches here has missed what lay between, and looks."""
        if not entries:
            newest = self._consensus.state.revision()
            self._tell(Notice(newest, newest, None))

    def _tell(self, notice: Notice) -> None:
        self._told = notice.newest
        if not self._subscribed:
            return
        lines = None if notice.lines is None else [_line(one) for one in notice.lines]
        frame = wire.pack(wire.Told(0, wire.News(notice.before, notice.newest, lines)))
        for visitor in self._subscribed:
            visitor.tell(frame)

    async def _heartbeat(self) -> None:
        """All is quiet, says whoever has heard of a leader just now."""
        try:
            while self._subscribed:
                await asyncio.sleep(HEARTBEAT_S)
                with suppress(AtollError), clock.deadline(BARRIER_S):
                    await self._consensus.read_barrier()
                    frame = wire.pack(wire.Told(0, wire.News(self._told, self._told, [])))
                    for visitor in self._subscribed:
                        visitor.tell(frame)
        finally:
            self._beating = False

    # -- the rest --------------------------------------------------------------------------------------

    async def _answered(self, visitor: Visitor, number: int, answering: Any, left_s: float) -> None:
        try:
            with clock.deadline(max(left_s, 0.001)):
                answer = await answering
        except AtollError as error:
            answer = refused(error, self._consensus)
        visitor.answer(number, answer)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _line(one: Line) -> tuple[int, bool, str, wire.Row | None]:
    entry = one.entry
    if entry is None:
        return one.revision, one.put, one.key, None
    row = (entry.key, entry.value, entry.revision, entry.create_revision, entry.lease)
    return one.revision, one.put, one.key, row
