"""Link: the way from a handle to the state behind it, which may lose, delay or never answer.

A pneumatic post. What was put into the tube arrives whether or not you still stand there to wait for
the answer; so a caller who gives up does not know, and is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never, TypeVar

from atoll import clock
from atoll.errors import NotSent, OutcomeUnknown

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Delays and losses of one handle's calls; see the knobs of the same names."""

    latency_s: float
    request_loss: float
    reply_loss: float
    ceiling_s: float

    async def call(self, what: str, work: Callable[[], AnswerT], *, id: str | None = None) -> AnswerT:
        """Have `work` done behind the link, by the deadline in force or the ceiling.

        Raises NotSent when the deadline has passed already, OutcomeUnknown when no answer came.
        """
        left = clock.remaining_s(self.ceiling_s)
        if left <= 0:
            raise NotSent(
                f"the deadline passed before {what} was sent. Nothing happened; ask with more time."
            )
        if self.request_loss and clock.chance().random() < self.request_loss:
            await asyncio.sleep(min(self.latency_s, left))
            raise OutcomeUnknown(
                f"{what} was sent and no answer came (request_loss). Ask again by id.", id=id
            )
        if self.latency_s:
            answer = await self._slowly(what, work, left, id)
        else:
            await asyncio.sleep(0)
            answer = work()
            await asyncio.sleep(0)
        if self.reply_loss and clock.chance().random() < self.reply_loss:
            raise OutcomeUnknown(f"{what} was sent and no answer came (reply_loss). Ask again by id.", id=id)
        return answer

    async def _slowly(self, what: str, work: Callable[[], AnswerT], left: float, id: str | None) -> AnswerT:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Callable[[], AnswerT]] = loop.create_future()
        server = clock.server_context()

        def arrive() -> None:
            try:
                done = work()
            except Exception as error:
                reply(_raiser(error))
            else:
                reply(lambda: done)

        def reply(outcome: Callable[[], AnswerT]) -> None:
            loop.call_later(self.latency_s / 2, settle, outcome, context=server)

        def settle(outcome: Callable[[], AnswerT]) -> None:
            if not answered.done():
                answered.set_result(outcome)

        loop.call_later(self.latency_s / 2, arrive, context=server)
        try:
            async with asyncio.timeout(left):
                outcome = await answered
        except TimeoutError:
            raise OutcomeUnknown(
                f"{what} was sent and {left:.3g} s passed without an answer. "
                "It may happen yet; ask again by id.",
                id=id,
            ) from None
        return outcome()


def _raiser(error: Exception) -> Callable[[], Never]:
    def raise_it() -> Never:
        raise error

    return raise_it
