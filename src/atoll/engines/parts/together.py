"""Together: the writes that wait in one event loop leave together, as one commit.

A lift with one door. While it is on its way those who come wait on the floor; when it is back they all step
in, and the journey costs one of them as much as forty. Who waits too long turns round and has done nothing;
who is inside when it stops between the floors does not know where they are.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from atoll import clock
from atoll.engines.parts import call
from atoll.errors import NotApplied, NotSent, OutcomeUnknown, Overloaded


class Asking(Protocol):
    """One write. `weight`: roughly its bytes on the wire; `size`: its compares and operations."""

    @property
    def request_id(self) -> str | None: ...
    @property
    def weight(self) -> int: ...
    @property
    def size(self) -> int: ...


AskedT = TypeVar("AskedT", bound=Asking)
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`queue_max`: writes that may wait; the others: what travels at once."""

    queue_max: int
    ceiling_s: float
    calls_max: int = 256
    count_max: int = 2000
    bytes_max: int = 4 << 20


@dataclass(slots=True, eq=False)
class _Waiting(Generic[AskedT, AnswerT]):
    asked: AskedT
    until: float
    answer: asyncio.Future[AnswerT]
    sent: bool = False


class Together(Generic[AskedT, AnswerT]):
    """One loop's writes, in the order in which they came; one journey of them is under way at a time.

    `send` answers one thing for each write, within the seconds it is given. When it raises plain NotApplied
    for several, each is sent alone, for only one of them may be to blame.
    """

    def __init__(
        self,
        send: Callable[[Sequence[AskedT], float], Awaitable[Sequence[AnswerT]]],
        where: str,
        limits: Limits,
    ) -> None:
        self._send, self._where, self._limits = send, where, limits
        self._waiting: deque[_Waiting[AskedT, AnswerT]] = deque()
        self._going: asyncio.Task[None] | None = None

    async def ask(self, asked: AskedT) -> AnswerT:
        """What `send` answers for it. NotSent or Overloaded: it never left."""
        what = "a transaction"
        left = call.left_s(what, self._limits.ceiling_s)
        if len(self._waiting) >= self._limits.queue_max:
            raise Overloaded(
                f"found {len(self._waiting)} writes waiting for {self._where} in this process; expected "
                f"fewer than {self._limits.queue_max} (queue_max). Come back later."
            )
        mine: _Waiting[AskedT, AnswerT] = _Waiting(
            asked, clock.loop_now() + left, asyncio.get_running_loop().create_future()
        )
        self._waiting.append(mine)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go(), context=clock.detached())
        try:
            async with asyncio.timeout_at(mine.until) as limit:
                return await mine.answer
        except TimeoutError:
            if not limit.expired():
                raise
            if mine.sent:
                raise call.unknown(what, self._where, left, asked.request_id) from None
            raise NotSent(
                f"the deadline passed while {what} waited for its turn to {self._where}: "
                f"the writes before it took {left:.3g} s. Nothing of it was sent."
            ) from None
        except OutcomeUnknown as error:
            error.id = error.id or asked.request_id
            raise
        finally:
            if not mine.sent and mine in self._waiting:
                self._waiting.remove(mine)

    async def close(self) -> None:
        """Wait for nobody: what has not left is NotSent."""
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.answer.done():
                mine.answer.set_exception(NotSent(f"{self._where} was closed. Nothing of it was sent."))

    async def _go(self) -> None:
        while self._waiting:
            together = self._next()
            if await self._answered(together):
                continue
            for one in together:  # one of them is refused for a reason of its own
                await self._answered([one])

    async def _answered(self, together: list[_Waiting[AskedT, AnswerT]]) -> bool:
        """Send them and hand out the answers. False: they were refused for what one of them says."""
        try:
            left = max(one.until for one in together) - clock.loop_now()
            if left <= 0:
                raise NotSent(f"the turn to {self._where} came after the deadline. Nothing was sent.")
            with clock.deadline(left):
                answers = await self._send([one.asked for one in together], left)
        except Exception as error:
            if type(error) is NotApplied and len(together) > 1:
                return False
            for one in together:
                if not one.answer.done():
                    one.answer.set_exception(copy.copy(error))
            return True
        for one, answer in zip(together, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)
        return True

    def _next(self) -> list[_Waiting[AskedT, AnswerT]]:
        """The next to leave, marked as sent."""
        found: list[_Waiting[AskedT, AnswerT]] = []
        count = weight = 0
        while self._waiting and len(found) < self._limits.calls_max:
            asked = self._waiting[0].asked
            count, weight = count + asked.size, weight + asked.weight
            if found and (count > self._limits.count_max or weight > self._limits.bytes_max):
                break
            one = self._waiting.popleft()
            one.sent = True
            found.append(one)
        return found
