"""Conformance: what the suites of every port share.

A driving test. The examiner brings the questions, you bring the car; a question that your car does not
claim to answer is set aside with the reason, never counted as passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from atoll import clock

T = TypeVar("T")
Case = Callable[[Callable[[], Any]], Awaitable[None]]
Cases = list[tuple[str, Case]]

PATIENCE_S = 20.0
"""How long a case waits for what must come; far above what any engine should need."""


class Violation(AssertionError):
    """A promise was broken. The message says which, and what was seen instead."""


class NotTested(Exception):
    """The engine does not claim what this case asks for."""


def case(cases: Cases) -> Callable[[T], T]:
    """Enter the decorated case into `cases` under its own name."""

    def enter(function: Any) -> Any:
        cases.append((function.__name__, function))
        return function

    return enter


def expect(holds: object, sentence: str) -> None:
    """Raise Violation with `sentence` unless `holds`."""
    if not holds:
        raise Violation(sentence)


async def expect_raises(kind: type[BaseException], call: Awaitable[object], sentence: str) -> BaseException:
    """`call` must raise `kind`; answers what it raised."""
    try:
        async with asyncio.timeout(PATIENCE_S) as patience:
            answer = await call
    except TimeoutError:
        expect(
            not patience.expired(),
            f"{sentence}: expected {kind.__name__}, and nothing came for {PATIENCE_S} s",
        )
        raise
    except kind as error:
        expect(str(error), f"{sentence}: {kind.__name__} came without a sentence")
        return error
    raise Violation(f"{sentence}: expected {kind.__name__}, got the answer {answer!r}")


async def eventually(question: Callable[[], Awaitable[T]], sentence: str) -> T:
    """Ask until the answer is true; answers it. Violation after PATIENCE_S."""
    until = clock.loop_now() + PATIENCE_S
    while True:
        answer = await question()
        if answer:
            return answer
        expect(clock.loop_now() < until, f"{sentence}: not so after {PATIENCE_S} s")
        await asyncio.sleep(0.01)


async def following(items: AsyncIterator[T], sentence: str) -> T:
    """The next item, within PATIENCE_S."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await anext(items)
    except TimeoutError:
        raise Violation(f"{sentence}: nothing came for {PATIENCE_S} s") from None
    except StopAsyncIteration:
        raise Violation(f"{sentence}: it ended by itself") from None


@asynccontextmanager
async def reading(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close an observation when its case is done with it."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def sleep_until(lease_time: float) -> None:
    """Until the lease clock shows `lease_time`."""
    # The loop's clock may run ahead of the lease clock.
    while (left := lease_time - clock.lease_now()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(left)


def place() -> str:
    """A prefix that nobody else uses."""
    return f"conformance/{clock.unique_id()}/"
