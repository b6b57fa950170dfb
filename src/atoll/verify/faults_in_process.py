"""Faults inside one test: doorways by name, and a coroutine cancelled at each of its awaits.

The same alarms as in a URL, but set by hand: put one before a store with `through` and see what the
recipe makes of it. `cancel_at_every_await` is the patient examiner who interrupts you once at every
comma of the sentence and looks each time whether you left the room tidy.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from itertools import count
from typing import Any

from atoll.errors import AtollError
from atoll.verify.faults import FaultDoor, Point, through

__all__ = [
    "Duplicated",
    "HalfOpen",
    "ReplyLost",
    "RequestLost",
    "cancel_at_every_await",
    "through",
]


class _Broken(FaultDoor):
    """One action on some verbs. `nth`: only at the nth such call; 0: at each."""

    action = ""

    def __init__(
        self, *verbs: str, nth: int = 0, prefix: str = "", probability: float = 1.0, ceiling_s: float = 5.0
    ) -> None:
        points = [
            Point(action=self.action, verb=verb, nth=nth, prefix=prefix, probability=probability)
            for verb in verbs
        ]
        super().__init__(points, ceiling_s=ceiling_s)


class ReplyLost(_Broken):
    """It is done, and OutcomeUnknown is raised."""

    action = "reply_lost"


class RequestLost(_Broken):
    """It is not done, and OutcomeUnknown is raised."""

    action = "request_lost"


class Duplicated(_Broken):
    """It is done twice; the first answer counts."""

    action = "duplicated"


class HalfOpen(_Broken):
    """It vanishes; OutcomeUnknown after `ceiling_s` or at the deadline in force."""

    action = "half_open"


async def cancel_at_every_await(
    make: Callable[[], Coroutine[Any, Any, Any]],
    check: Callable[[], Awaitable[None]] | None = None,
    *,
    most: int = 10_000,
) -> int:
    """Run `make()` again and again, cancelled at its 1st, 2nd, 3rd ... await, until it ends uncancelled.

    After each run `check()` looks at what is left; make it undo what must be undone for the next. A
    cancelled run may end by cancellation, by one of Atoll's errors, or by itself; anything else is
    raised here with the number of the await. Answers how many awaits were tried.
    """
    for at in count(1):
        if at > most:
            raise AssertionError(f"still awaiting after {most} awaits; raise `most` or mend an endless loop.")
        try:
            reached = await _cancelled_at(make(), at)
            if check is not None:
                await check()
        except BaseException as error:
            error.add_note(f"cancelled at await {at}")
            raise
        if not reached:
            return at - 1
    raise AssertionError("unreachable")


async def _cancelled_at(body: Coroutine[Any, Any, Any], at: int) -> bool:
    """Run `body`, cancelled at its await number `at`; whether there was one."""
    loop = asyncio.get_running_loop()
    reached = False

    def cancel() -> None:
        nonlocal reached
        reached = True
        loop.call_soon(task.cancel)

    async def run() -> Any:
        return await _counted(body, at, cancel)

    task = loop.create_task(run())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.cancelled() and (error := task.exception()) is not None:
        if not reached or not isinstance(error, AtollError):
            raise error
    return reached


@types.coroutine
def _counted(body: Coroutine[Any, Any, Any], at: int, cancel: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Drive `body` by hand and call `cancel` when it suspends for the time number `at`."""
    step: Callable[[Any], Any] = body.send
    given: Any = None
    for suspended in count(1):
        try:
            waits_for = step(given)
        except StopIteration as stop:
            return stop.value
        if suspended == at:
            cancel()
        try:
            given = yield waits_for
            step = body.send
        except BaseException as error:
            step, given = body.throw, error
    return None
