"""Reading room: questions that this member answers from its own copy of the book, and how sure it must be.

Those who must know that nothing newer was entered elsewhere wait together for one answer to that; those who
only want to know what lies here are served meanwhile. Who asks for a whole shelf is served at a side table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import apsw

from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.reading import TooMuch
from atoll.engines.raft.serving import refused
from atoll.engines.raft.state import FATAL
from atoll.engines.raft.visitor import Visitor
from atoll.errors import AtollError

Look = Callable[[apsw.Connection], wire.Answer]
Question = tuple[Visitor, int, Look, bool]
"""Who asks, under which number, what to read, and whether it may be much."""
TOGETHER_MAX = 256
BYTES_A_TURN = 512 << 10
"""Questions answered, and values read, in one turn of the loop."""
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
        rest = self._tell(asked)
        if rest:
            self._spawn(self._tell_all(rest))

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
                await self._tell_all(asked)
        finally:
            self._asking = False

    async def _tell_all(self, asked: list[Question]) -> None:
        """A little of it in each turn of the loop, so that others have theirs."""
        rest = self._tell(asked)
        while rest:
            await asyncio.sleep(0)
            rest = self._tell(rest)

    def _tell(self, asked: list[Question]) -> list[Question]:
        """Answer the first of these, as many as may be in one turn; those that are left."""
        little = []
        for one in asked:
            if one[3]:
                self._spawn(self._aside(one))
            elif not one[0].gone:
                little.append(one)
        answers = self._found(little)
        for one, answer in zip(little, answers, strict=False):
            if answer is None:
                self._spawn(self._aside(one))
            else:
                one[0].answer(one[1], answer)
        return little[len(answers) :]

    async def _aside(self, one: Question) -> None:
        """In a thread, where it may take its time."""
        visitor, number, look, _ = one
        [answer] = await asyncio.to_thread(self._found, [(visitor, number, _patient(look), True)])
        visitor.answer(number, answer or wire.Refusal(wire.Said.WRONG, "it is too much for one answer"))

    def _found(self, asked: list[Question]) -> list[wire.Answer | None]:
        """The answers to the first of these, all of one moment; None: too much to be read here."""

        def work(connection: apsw.Connection) -> list[wire.Answer | None]:
            found: list[wire.Answer | None] = []
            size = 0
            for _, _, look, _ in asked[:TOGETHER_MAX]:
                answer = _safe(look, connection)
                found.append(answer)
                size += _weight(answer)
                if size > BYTES_A_TURN:
                    break
            return found

        if not asked:
            return []
        try:
            return self._consensus.state.read(work)
        except AtollError as error:
            return [refused(error, read=True)] * len(asked)


def _patient(look: Look) -> Look:
    """The same look, which may take its time now."""
    if isinstance(look, partial) and "hasty" in look.keywords:
        return partial(look.func, *look.args, **{**look.keywords, "hasty": False})
    return look


def _weight(answer: wire.Answer | None) -> int:
    if isinstance(answer, wire.Rows):
        return sum(len(row[1]) for row in answer.rows)
    if isinstance(answer, wire.Leaf):
        return sum(len(row[1]) for _, put, _ in answer.changes for row in put)
    return len(answer.data) if isinstance(answer, wire.Done) else 0


def _safe(look: Look, connection: apsw.Connection) -> wire.Answer | None:
    """One question's answer; its error is its own, but for those that mean that the disk has failed."""
    try:
        return look(connection)
    except TooMuch:
        return None
    except AtollError as error:
        return refused(error, read=True)
    except FATAL:
        raise
    except Exception as error:
        return wire.Refusal(wire.Said.WRONG, f"it cannot be answered: {error!r:.200}")
