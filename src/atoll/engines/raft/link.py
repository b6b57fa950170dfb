"""Link: a client's line to one member, and the slips that wait for an answer on it.

One telephone line, many questions: each is numbered, so answers may come in any order. When the line goes
dead every question on it has the same sad answer, and whether it was heard at the other end is not known.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable
from functools import partial

import msgspec

from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.connection import Connection, dial
from atoll.engines.raft.frames import FORMAT, FORMAT_OLDEST, MAGIC, Caller, Hello
from atoll.engines.raft.wire import Answer, Done, Leaf, News, Part, Piece, Rows, Verb
from atoll.errors import FormatRefused


class Broken(Exception):
    """The line went dead. `sent`: the question had left; whether it was heard is not known."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Link:
    """One connection that was welcomed. `on_news` is told what comes unasked."""

    def __init__(self, address: str, on_news: Callable[[Link, News], None]) -> None:
        self.address = address
        self.name = ""
        self.cluster = ""
        self.heard = clock.loop_now()
        """When something came, by the loop clock."""
        self._on_news = on_news
        self._waiting: dict[int, Callable[[Answer | Broken], None]] = {}
        self._parts: dict[int, list[Part | Piece]] = {}
        self._numbers = itertools.count(1)
        self._out: list[bytes] = []
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()

    async def connect(self, cluster: str, tls: ssl.SSLContext | None, within_s: float) -> None:
        """Greet; raises NotSent, TurnedAway with the member's own sentence."""
        hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, cluster, Caller.CLIENT, "this client")
        connection, welcome = await dial(
            self.address, hello, self._frame, self._lost, tls=tls, within_s=within_s
        )
        self._connection = connection
        self.name, self.cluster = welcome.name, welcome.cluster
        self.heard = clock.loop_now()

    @property
    def standing(self) -> bool:
        """Whether a question can be put on it."""
        return self._connection is not None and not self._connection.closed

    async def ask(self, verb: Verb, left_s: float, most_s: float) -> Answer:
        """The answer; raises Broken, and TimeoutError where nothing of it comes for `most_s`.

        `left_s`: what the member is told; the last part of an answer in parts may take as long.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        number = self.put(verb, left_s, partial(_settle, answer))
        times = (most_s, self._loop.time() + left_s)
        timer = self._loop.call_later(most_s, self._late, answer, number, times, 0)
        try:
            return await answer
        finally:
            timer.cancel()
            self.forget(number)

    def put(self, verb: Verb, left_s: float, told: Callable[[Answer | Broken], None]) -> int:
        """Ask, and have `told` called with the answer, or with Broken; the question's number."""
        connection = self._connection
        if connection is None or connection.closed:
            raise Broken(f"the connection to {self.address} is closed", sent=False)
        number = next(self._numbers)
        frame = wire.pack(wire.Asked(number, max(1, int(left_s * 1000)), verb))
        if not self._waiting:  # who is alone does not wait for company
            connection.send(frame)
        else:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(frame)
        self._waiting[number] = told
        return number

    def _late(
        self, answer: asyncio.Future[Answer], number: int, times: tuple[float, float], parts: int
    ) -> None:
        """Time is up, unless a part of the answer came meanwhile."""
        if answer.done():
            return
        here = len(self._parts.get(number, ()))
        most_s, due = times
        left = due - self._loop.time()
        if here > parts and left > 0:
            self._loop.call_later(min(most_s, left), self._late, answer, number, times, here)
        else:
            answer.set_exception(TimeoutError())

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._waiting.pop(number, None)
        if self._parts:
            self._parts.pop(number, None)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._connection is not None:
            self._connection.send(out[0] if len(out) == 1 else b"".join(out))

    def _frame(self, connection: Connection, body: bytes) -> None:
        try:
            told = wire.read_told(body)
        except wire.NONSENSE as error:
            raise FormatRefused(f"found {len(body)} bytes that are no answer of a member: {error}") from None
        self.heard = self._loop.time()
        if told.number == 0:
            if isinstance(told.answer, News):
                self._on_news(self, told.answer)
            return
        answer = told.answer
        if isinstance(answer, Part | Piece):
            if told.number in self._waiting:
                self._parts.setdefault(told.number, []).append(answer)
            return
        waiting = self._waiting.pop(told.number, None)
        if waiting is not None:
            waiting(self._whole(told.number, answer) if self._parts else answer)

    def _whole(self, number: int, answer: Answer) -> Answer:
        """The answer with what came before it."""
        parts = self._parts.pop(number, [])
        rows = [row for part in parts if isinstance(part, Part) for row in part.rows]
        if parts and isinstance(answer, Done):
            pieces = [part.data for part in parts if isinstance(part, Piece)]
            return Done(b"".join([*pieces, answer.data]))
        if rows and isinstance(answer, Rows):
            return msgspec.structs.replace(answer, rows=rows + answer.rows)
        if rows and isinstance(answer, Leaf):
            return msgspec.structs.replace(answer, snapshot=rows + (answer.snapshot or []))
        return answer

    def _lost(self, connection: Connection, why: str) -> None:
        self._connection = None
        waiting, self._waiting = self._waiting, {}
        for told in waiting.values():
            told(Broken(f"the connection to {self.address} ended: {why}", sent=True))
        self._on_news(self, News(-1, -1))

    def close(self, why: str = "closed here") -> None:
        """Hang up; what waits is Broken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flush_last(connection)
            connection.close(why)
            self._lost(connection, why)

    def _flush_last(self, connection: Connection) -> None:
        if self._out:
            connection.send(b"".join(self._out))
            self._out = []


def _settle(answer: asyncio.Future[Answer], told: Answer | Broken) -> None:
    if answer.done():
        return
    if isinstance(told, Broken):
        answer.set_exception(told)
    else:
        answer.set_result(told)
