"""A6: the delivery checker and the lock checker say yes to a true engine and no to each broken one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from atoll import clock
from atoll.engines.memory import MemoryBroker
from atoll.engines.memory.counter import Counter, Line
from atoll.engines.memory.knobs import BrokerKnobs
from atoll.ports.broker import Accepted, Message, Settled, Taken
from atoll.ports.register import Applied
from atoll.verify import delivery, lock_history
from atoll.verify.history import History, Holding, Type
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.recorder import RecordingBroker
from atoll.verify.scenario import Worker
from atoll.verify.workloads.messages import QUEUE


def somebody_was_late(book: History) -> bool:
    answers = (call.answer for call in book.calls if call.f == "acknowledge")
    return any(Settled.LATE in (answer or ()) for answer in answers)


async def play(
    broker: Any, seconds: float = 1.2, enough: Callable[[History], bool] = lambda book: True
) -> History:
    """Three clients who put, take, forget and are late, until it is enough; then the queue is emptied."""
    book = History()
    assert QUEUE.finish is not None

    def client(n: int, last_s: float) -> Worker:
        return Worker(
            handle=RecordingBroker(broker, book, f"p{n}"),
            book=book,
            process=f"p{n}",
            prefix="q",
            dice=random.Random(n),
            until=clock.lease_now() + last_s,
            ttl_s=0.2,
        )

    for turn in range(10):
        await asyncio.gather(*(QUEUE.work(client(10 * turn + n, seconds)) for n in range(3)))
        if enough(book):
            break
    await QUEUE.finish(client(999, 3.0))
    return book


def told(judgement: Judgement) -> str:
    return "\n".join(map(str, judgement.violations[:3]))


@pytest.mark.parametrize("knobs", [BrokerKnobs(), BrokerKnobs(reply_loss=0.05, latency_s=0.001)])
async def test_a_true_broker_is_never_accused(knobs: BrokerKnobs) -> None:
    judgement = delivery.judge(await play(MemoryBroker(knobs=knobs), enough=somebody_was_late))
    assert judgement.answer is Answer.YES, told(judgement)
    assert judgement.counts["acknowledged"] > 50
    assert judgement.counts["more than once"] > 0
    assert judgement.counts["late"] > 0


class LateAccepted(Counter):
    """Says ACKED to whoever once held the message."""

    def acknowledge_one(self, queue: str, receipt: str) -> Settled:
        answer = super().acknowledge_one(queue, receipt)
        return Settled.ACKED if answer is Settled.LATE else answer


class ComesAgain(Counter):
    """Puts some acknowledged messages back."""

    def acknowledge_one(self, queue: str, receipt: str) -> Settled:
        line = self.lines[queue]
        item = line.receipts.get(receipt)
        answer = super().acknowledge_one(queue, receipt)
        if item is not None and answer is Settled.ACKED and item.number % 10 == 0:
            line.seen.pop(item.message.id, None)
            self._put_one(line, item.message)
        return answer


class Loses(Counter):
    """Answers a put and forgets a message of it now and then."""

    def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        kept = [m for n, m in enumerate(messages) if (self.number + n) % 20]
        super().put(queue, kept)
        return [Accepted.ACCEPTED] * len(messages)


class DoesNotCount(Counter):
    """Hands out again without counting."""

    def _hand_out(self, line: Line, queue: str, item: Any, lease_s: float, sent: float) -> Taken:
        taken = super()._hand_out(line, queue, item, lease_s, sent)
        item.attempts = 0
        return taken


class Double(Counter):
    """Hands one message to two takers."""

    def _hand_out(self, line: Line, queue: str, item: Any, lease_s: float, sent: float) -> Taken:
        taken = super()._hand_out(line, queue, item, lease_s, sent)
        if item.number % 10 == 0:
            line.seen.pop(item.message.id, None)
            self._put_one(line, item.message)
        return taken


@pytest.mark.parametrize(
    ("world", "rule"),
    [
        (LateAccepted, "late acknowledgement accepted"),
        (ComesAgain, "delivered after it was done"),
        (Loses, "message lost"),
        (DoesNotCount, "attempt not counted"),
        (Double, "delivered under another's lease"),
    ],
)
async def test_each_broken_broker_is_caught(world: type[Counter], rule: str) -> None:
    class Broken(MemoryBroker):
        world_type = world

    judgement = delivery.judge(await play(Broken()))
    assert judgement.answer is Answer.NO
    assert rule in judgement.rules(), told(judgement)
    assert all(v.calls for v in judgement.violations)


async def test_a_lost_answer_to_a_put_that_is_called_not_applied_is_caught() -> None:
    from atoll.errors import NotSent, OutcomeUnknown

    class Liar(MemoryBroker):
        async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
            try:
                return await super().put(queue, messages)
            except OutcomeUnknown as error:
                raise NotSent("nothing happened, or so this engine says") from error

    judgement = delivery.judge(await play(Liar(knobs=BrokerKnobs(reply_loss=0.1))))
    assert "not applied, yet delivered" in judgement.rules(), told(judgement)


def test_what_is_still_in_the_queue_is_not_lost() -> None:
    from atoll.verify.history import Settling, Taking

    book = History()
    book.note("p", "put", Settling("q", ("1", "2")), (Accepted.ACCEPTED, Accepted.ACCEPTED))
    book.note("p", "take", Taking("q", 1, 5.0), (("1", "r1", 1, None),))
    book.note("p", "acknowledge", Settling("q", ("r1",)), (Settled.ACKED,))
    judgement = delivery.judge(book)
    assert judgement.answer is Answer.YES
    assert judgement.counts["still there"] == 1
    book.note("p", "empty", "q", None)
    assert delivery.judge(book).rules() == {"message lost"}


def locked(*steps: tuple[str, int, int]) -> History:
    """A history of one lock: ("acquired" | "accepted" | "refused", token, revision)."""
    book = History()
    for what, token, revision in steps:
        holding = Holding("l", 1, token)
        if what == "acquired":
            book.note(f"p{token}", "acquired", "l", holding)
        elif what == "accepted":
            book.note(f"p{token}", "guarded", holding, Applied(revision), revision=revision)
        else:
            book.end(book.begin(f"p{token}", "guarded", holding), Type.FAIL, error="Refused")
    return book


GOOD = [("acquired", 1, 0), ("accepted", 1, 2), ("acquired", 3, 0), ("accepted", 3, 4), ("refused", 1, 0)]


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        (GOOD, set()),
        ([*GOOD, ("accepted", 1, 5)], {"stale write accepted"}),
        ([*GOOD, ("acquired", 2, 0)], {"token goes down"}),
        ([*GOOD, ("acquired", 3, 0)], {"token given twice"}),
    ],
)
def test_tokens_only_rise_and_stale_writes_are_refused(
    steps: list[tuple[str, int, int]], rules: set[str]
) -> None:
    judgement = lock_history.judge(locked(*steps))
    assert judgement.rules() == rules
    assert judgement.counts["refused"] == 1


def test_a_lock_that_never_changed_hands_proves_nothing() -> None:
    assert lock_history.judge(locked(("acquired", 1, 0))).answer is Answer.NOT_KNOWN
