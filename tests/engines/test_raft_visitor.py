"""4.4: what may wait for one client that reads slowly, and what is done with one that never reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.engines.raft import visitor, wire
from atoll.engines.raft.visitor import WAITING_MAX, Visitor

HELD = 1000


class Slow:
    """A connection on which everything waits until the test takes it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.reads = self.writable = True
        self.aborted = ""

    def send(self, frame: bytes) -> None:
        self.waiting += len(frame)
        self.writable = self.waiting < HELD // 4

    def abort(self, why: str) -> None:
        self.aborted = why

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def guest(monkeypatch: pytest.MonkeyPatch) -> tuple[Visitor, Any]:
    monkeypatch.setattr(visitor, "HELD_BYTES_MAX", HELD)
    connection: Any = Slow()
    return Visitor(connection), connection


async def answered(client: Visitor, size: int, questions: int = 1) -> None:
    for number in range(questions):
        client.takes()
        client.answer(number, wire.Done(bytes(size)))
    await asyncio.sleep(0)


async def test_one_answer_may_be_larger_than_what_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    client, connection = guest(monkeypatch)
    await answered(client, 3 * HELD)
    assert connection.waiting > HELD and not connection.aborted
    connection.waiting = 0  # it took it
    await answered(client, 3 * HELD)
    assert not connection.aborted


async def test_one_that_never_takes_what_waits_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    client, connection = guest(monkeypatch)
    for _ in range(20):
        await answered(client, HELD // 4)
    assert "does not read" in connection.aborted


async def test_no_more_questions_are_taken_from_one_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    client, connection = guest(monkeypatch)
    await answered(client, HELD // 2)
    assert not connection.reads and not connection.aborted
    client.room()
    assert not connection.reads, "it has taken nothing yet"
    connection.waiting, connection.writable = 0, True
    client.room()
    assert connection.reads


async def test_who_asks_much_at_once_is_heard_again_when_half_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, connection = guest(monkeypatch)
    for _ in range(WAITING_MAX):
        client.takes()
    assert not connection.reads
    for number in range(WAITING_MAX // 2 + 1):
        connection.waiting, connection.writable = 0, True
        assert not connection.reads
        client.answer(number, wire.Done(b""))
    assert connection.reads
