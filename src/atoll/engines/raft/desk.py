"""Desk: serves a member's clients, on what the members agreed and on this member's copy of the book.

A counter in a branch office. Letters for the log go to whoever leads, and elsewhere you are told where that
is. Questions are answered from this office's own copy, after one look at the clock on the wall: those who
wait for it wait together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import apsw
import msgspec

from atoll import clock
from atoll.algorithms.raft.messages import Entry
from atoll.engines.parts.notices import Line, Notice
from atoll.engines.raft import reading, wire
from atoll.engines.raft.bell import HEARTBEAT_S
from atoll.engines.raft.command import stamp
from atoll.engines.raft.connection import Connection
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.serving import Serving, refused
from atoll.engines.raft.visitor import Visitor
from atoll.errors import AtollError, FormatRefused

Look = Callable[[apsw.Connection], wire.Answer]
Question = tuple[Visitor, int, Look, bool]
"""Who asks, under which number, what to read, and whether it may be much."""
MUCH = 1000
"""Entries in one range; who asks for more is served by a thread."""


class Desk:
    """One member's, for all its clients. Everything runs in the node's loop."""

    def __init__(self, consensus: Consensus) -> None:
        self._consensus = consensus
        self._serving = Serving(consensus)
        self._visitors: set[Visitor] = set()
        self._subscribed: set[Visitor] = set()
        self._sure: list[Question] = []
        """Questions whose answer may not be older than they are."""
        self._local: list[Question] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = False
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
        except msgspec.DecodeError as error:
            raise FormatRefused(
                f"found {len(body)} bytes that are no question of a client: {error}"
            ) from None
        number, verb = asked.number, asked.verb
        visitor.takes()
        match verb:
            case wire.Write():
                self._write(visitor, number, verb)
            case wire.Get():
                self._surely(visitor, number, partial(reading.get, key=verb.key))
            case wire.Range():
                look = partial(reading.span, low=verb.low, high=verb.high, limit=verb.limit)
                self._queue(visitor, number, look, sure=True, much=verb.limit > MUCH)
            case wire.Look():
                self._look(visitor, number, verb)
            case wire.Ask():
                self._queue(visitor, number, self._serving.card, sure=verb.fresh)
            case wire.Judge():
                self._surely(visitor, number, partial(self._serving.judged, data=verb.data))
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
        behind = verb.after is not None and verb.after > self._told
        self._queue(visitor, number, look, sure=verb.fresh or behind, much=verb.after is None)

    # -- reads -----------------------------------------------------------------------------------------

    def _surely(self, visitor: Visitor, number: int, look: Look) -> None:
        self._queue(visitor, number, look, sure=True)

    def _queue(self, visitor: Visitor, number: int, look: Look, *, sure: bool, much: bool = False) -> None:
        (self._sure if sure else self._local).append((visitor, number, look, much))
        if not self._reading:
            self._reading = True
            self._spawn(self._read())

    async def _read(self) -> None:
        """All who wait share one question to the majority, and one look at the book."""
        try:
            while self._sure or self._local:
                local, self._local = self._local, []
                if local:
                    await self._tell_all(local)
                sure, self._sure = self._sure, []
                if not sure:
                    continue
                try:
                    await self._consensus.read_barrier()
                except AtollError as error:
                    answer = refused(error, self._consensus, read=True)
                    for visitor, number, _, _ in sure:
                        visitor.answer(number, answer)
                else:
                    await self._tell_all(sure)
        finally:
            self._reading = False

    async def _tell_all(self, asked: list[Question]) -> None:
        """Answer all from one snapshot; who wants much is served beside the loop."""
        little = [one for one in asked if not one[3]]
        if little:
            for (visitor, number, _, _), answer in zip(little, self._found(little), strict=True):
                visitor.answer(number, answer)
        for one in asked:
            if one[3]:
                self._spawn(self._served(one))

    async def _served(self, one: Question) -> None:
        [answer] = await asyncio.to_thread(self._found, [one])
        one[0].answer(one[1], answer)

    def _found(self, asked: list[Question]) -> list[wire.Answer]:
        try:
            return self._consensus.state.read(
                lambda connection: [_safe(look, connection) for _, _, look, _ in asked]
            )
        except AtollError as error:
            return [refused(error, read=True)] * len(asked)

    # -- news ------------------------------------------------------------------------------------------

    def _subscribe(self, visitor: Visitor, number: int) -> None:
        self._subscribed.add(visitor)
        self._surely(visitor, number, reading.news)
        if len(self._subscribed) == 1:
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
        while self._subscribed:
            await asyncio.sleep(HEARTBEAT_S)
            with suppress(AtollError):
                await self._consensus.read_barrier()
                frame = wire.pack(wire.Told(0, wire.News(self._told, self._told, [])))
                for visitor in self._subscribed:
                    visitor.tell(frame)

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


def _safe(look: Look, connection: apsw.Connection) -> wire.Answer:
    """One question's answer; its error is its own."""
    try:
        return look(connection)
    except AtollError as error:
        return refused(error, read=True)
