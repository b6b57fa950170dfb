"""Reading room: questions that this member answers from its own copy of the book, and how sure it must be.

Those who must know that nothing newer was entered elsewhere wait together for one answer to that; those who
only want to know what lies here are served meanwhile. Who asks for a whole shelf is served at a side table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.serving import refused
from atoll.engines.raft.visitor import Visitor
from atoll.errors import AtollError

Look = Callable[[apsw.Connection], wire.Answer]
Question = tuple[Visitor, int, Look, bool]
"""Who asks, under which number, what to read, and whether it may be much."""
TOGETHER_MAX = 256
"""Questions answered in one turn of the loop."""
BARRIER_S = 2.0
"""Without a leader for this long, who waits is told so, and asks another member."""


class ReadingRoom:
    """One member's. Everything but what may be much is read in the node's loop: a key takes microseconds."""

    def __init__(self, consensus: Consensus, spawn: Callable[[Any], None]) -> None:
        self._consensus, self._spawn = consensus, spawn
        self._loop = asyncio.get_running_loop()
        self._sure: list[Question] = []
        self._local: list[Question] = []
        self._asking = False

    def ask(self, visitor: Visitor, number: int, look: Look, *, sure: bool, much: bool = False) -> None:
        """Answer it; `sure`: not older than the question."""
        if not sure:
            if not self._local:
                self._loop.call_soon(self._here)
            self._local.append((visitor, number, look, much))
            return
        self._sure.append((visitor, number, look, much))
        if not self._asking:
            self._asking = True
            self._spawn(self._surely())

    def _here(self) -> None:
        asked, self._local = self._local, []
        self._tell(asked)

    async def _surely(self) -> None:
        """All who wait share one question to the majority, and one look at the book."""
        try:
            while self._sure:
                asked, self._sure = self._sure, []
                try:
                    with clock.deadline(BARRIER_S):
                        await self._consensus.read_barrier()
                except AtollError as error:
                    answer = refused(error, self._consensus, read=True)
                    for visitor, number, _, _ in asked:
                        visitor.answer(number, answer)
                    continue
                for some in _pieces(asked):
                    self._tell(some)
                    if len(asked) > TOGETHER_MAX:
                        await asyncio.sleep(0)
        finally:
            self._asking = False

    def _tell(self, asked: list[Question]) -> None:
        little = [one for one in asked if not one[3]]
        if little:
            for (visitor, number, _, _), answer in zip(little, self._found(little), strict=True):
                visitor.answer(number, answer)
        if len(little) < len(asked):
            for one in asked:
                if one[3]:
                    self._spawn(self._aside(one))

    async def _aside(self, one: Question) -> None:
        [answer] = await asyncio.to_thread(self._found, [one])
        one[0].answer(one[1], answer)

    def _found(self, asked: list[Question]) -> list[wire.Answer]:
        """The answers, all of one moment."""
        try:
            return self._consensus.state.read(
                lambda connection: [_safe(look, connection) for _, _, look, _ in asked]
            )
        except AtollError as error:
            return [refused(error, read=True)] * len(asked)


def _pieces(asked: list[Question]) -> Iterator[list[Question]]:
    return (asked[at : at + TOGETHER_MAX] for at in range(0, len(asked), TOGETHER_MAX))


def _safe(look: Look, connection: apsw.Connection) -> wire.Answer:
    """One question's answer; its error is its own."""
    try:
        return look(connection)
    except AtollError as error:
        return refused(error, read=True)
