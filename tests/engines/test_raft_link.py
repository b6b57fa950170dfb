"""4.4: a client's line to a member: how long it waits for an answer; parts of one are signs of life."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.engines.raft import wire
from atoll.engines.raft.frames import LENGTH_BYTES
from atoll.engines.raft.link import Link

MOST_S = 0.2
PARTS = 10


class Open:
    """A connection that carries nothing away."""

    closed = False

    def send(self, frame: bytes) -> None:
        return None


def line() -> Link:
    link = Link("a:1", lambda link, news: None)
    link._connection = Open()  # type: ignore[assignment]
    return link


def row(number: int) -> wire.Row:
    return f"k{number}", b"", 1, 1, None


def comes(link: Link, answer: Any, after_s: float) -> None:
    """An answer to the first question, after so long."""
    body = wire.pack(wire.Told(1, answer))[LENGTH_BYTES:]
    asyncio.get_running_loop().call_later(after_s, link._frame, link._connection, body)


async def test_an_answer_in_parts_is_waited_for_as_long_as_parts_come() -> None:
    link = line()
    for number in range(PARTS):
        comes(link, wire.Part([row(number)]), (number + 1) * MOST_S / 4)
    comes(link, wire.Rows([row(PARTS)], 1), (PARTS + 1) * MOST_S / 4)
    answer = await link.ask(wire.Get("k"), 30, MOST_S)
    assert isinstance(answer, wire.Rows) and answer.rows == [row(n) for n in range(PARTS + 1)]


async def test_parts_that_stop_coming_are_not_waited_for() -> None:
    link = line()
    comes(link, wire.Part([row(0)]), MOST_S / 4)
    with pytest.raises(TimeoutError):
        await link.ask(wire.Get("k"), 30, MOST_S)
    assert not link._parts and not link._waiting, "nothing of it is kept"


async def test_parts_are_not_waited_for_beyond_the_deadline() -> None:
    link = line()
    for number in range(PARTS):
        comes(link, wire.Part([row(number)]), (number + 1) * MOST_S / 4)
    with pytest.raises(TimeoutError):
        await link.ask(wire.Get("k"), 1.5 * MOST_S, MOST_S)


async def test_where_nothing_comes_the_question_is_given_up() -> None:
    link = line()
    with pytest.raises(TimeoutError):
        await link.ask(wire.Get("k"), 30, MOST_S)
