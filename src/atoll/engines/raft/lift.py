"""Lift: the writes that wait in one event loop leave together, as one entry of the log.

A lift with one door. While it is on its way those who come wait on the floor, and when it is back they all
step in. Who was alone last time does not wait for company; and a lift that stops between the floors is sent
for again under its number, so nobody rides twice.

Departure: as parts/together.py, without a task for each journey: the answer itself opens the door.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.parts.together import Limits
from atoll.engines.raft import wire, writing
from atoll.engines.raft.command import Result
from atoll.engines.raft.link import Broken, Link
from atoll.engines.raft.members import Doubt, Members
from atoll.engines.raft.wire import Answer, Done, Refusal, Said
from atoll.engines.raft.writing import Asked
from atoll.errors import NotSent, OutcomeUnknown, Overloaded

_WHAT = "the transaction"


@dataclass(slots=True, eq=False)
class _Waiting:
    asked: Asked
    until: float
    answer: asyncio.Future[Result]
    journey: _Journey | None = None


@dataclass(slots=True, eq=False)
class _Journey:
    """One batch on its way: under which number, by which line, as which question."""

    batch: list[_Waiting]
    verb: wire.Write
    until: float
    doubt: Doubt = field(default_factory=Doubt)
    link: Link | None = None
    number: int = 0
    timer: asyncio.TimerHandle | None = None


class Lift:
    """One loop's writes, in the order in which they came; one journey of them is under way at a time."""

    def __init__(self, members: Members, limits: Limits) -> None:
        self._members, self._limits = members, limits
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._journey: _Journey | None = None
        self._called = False
        self._alone = True
        self._task: asyncio.Task[None] | None = None
        self.begin_session()

    def begin_session(self) -> None:
        """A client that the members have never heard of."""
        self.client = clock.chance().getrandbits(62) + 1
        self.sequence = 0

    async def ask(self, asked: Asked) -> Result:
        """Its receipt. NotSent or Overloaded: it never left."""
        left = call.left_s(_WHAT, self._limits.ceiling_s)
        if len(self._waiting) >= self._limits.queue_max:
            raise Overloaded(
                f"found {len(self._waiting)} writes waiting for {self._members.url} in this process; "
                f"expected fewer than {self._limits.queue_max} (queue_max). Come back later."
            )
        loop = self._loop
        mine = _Waiting(asked, loop.time() + left, loop.create_future())
        self._waiting.append(mine)
        if self._journey is None and not self._called:
            if self._alone:
                self._leave()
            else:
                self._called = True
                loop.call_soon(self._leave)
        timer = loop.call_at(mine.until, self._late, mine, left)
        try:
            return await mine.answer
        except OutcomeUnknown as error:
            error.id = error.id or asked.request_id
            raise
        finally:
            timer.cancel()
            if mine.journey is None and mine in self._waiting:
                self._waiting.remove(mine)

    def _late(self, mine: _Waiting, left: float) -> None:
        if mine.answer.done():
            return
        url = self._members.url
        if mine.journey is not None and mine.journey.doubt:
            mine.answer.set_exception(call.unknown(_WHAT, url, left))
        elif mine.journey is not None:
            self._put_down(mine, mine.journey)
            mine.answer.set_exception(
                NotSent(f"{_WHAT} was not taken by any member of {url} in {left:.3g} s. Nothing happened.")
            )
        else:
            mine.answer.set_exception(
                NotSent(
                    f"the deadline passed while {_WHAT} waited for its turn to {url}: the writes before it "
                    f"took {left:.3g} s. Nothing of it was sent."
                )
            )

    def _put_down(self, mine: _Waiting, journey: _Journey) -> None:
        """The others ride on without it: what is called not sent may not be sent later beside them."""
        journey.batch.remove(mine)
        data = writing.packed([one.asked for one in journey.batch])
        journey.verb = wire.Write(journey.verb.client, journey.verb.sequence, data)

    # -- a journey -------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self._called = False
        batch = self._next()
        if not batch:
            self._journey = None
            return
        self._alone = len(batch) == 1
        data = writing.packed([one.asked for one in batch])
        self.sequence += 1
        verb = wire.Write(self.client, self.sequence, data)
        mine = self._journey = _Journey(batch, verb, max(one.until for one in batch))
        for one in batch:
            one.journey = mine
        link = self._members.standing()
        if link is None:
            self._slowly(mine)
            return
        left = mine.until - self._loop.time()
        try:
            mine.number = link.put(verb, left, lambda answer: self._told(mine, answer))
        except Broken:
            self._slowly(mine)
            return
        mine.link, mine.doubt.flying = link, True
        attempt_s = min(left, self._members.options.attempt_s)
        mine.timer = self._loop.call_later(attempt_s, self._silent, mine)

    def _next(self) -> list[_Waiting]:
        """The next to leave."""
        waiting, limits = self._waiting, self._limits
        found: list[_Waiting] = []
        count = weight = 0
        while waiting and len(found) < limits.calls_max:
            one = waiting[0]
            count, weight = count + one.asked.size, weight + one.asked.weight
            if found and (count > limits.count_max or weight > limits.bytes_max):
                break
            waiting.popleft()
            if not one.answer.done():
                found.append(one)
        return found

    def _told(self, mine: _Journey, answer: Answer | Broken) -> None:
        """The line has answered, or broke."""
        assert mine.link is not None and mine.timer is not None
        mine.timer.cancel()
        mine.doubt.flying = False
        if isinstance(answer, Done):
            results = writing.unpacked(answer.data, len(mine.batch))
            if results is not None:
                self._arrived(mine, results)
                return
            self._begin_anew(mine)
        elif isinstance(answer, Broken):
            mine.doubt.why = str(answer)
            self._members.leave(mine.link, silent=False)
        elif isinstance(answer, Refusal):
            if answer.said == Said.UNKNOWN:
                mine.doubt.why = answer.sentence
            elif answer.said == Said.NOT_LEADER and answer.leader:
                self._members.follow(answer)
        self._slowly(mine)

    def _silent(self, mine: _Journey) -> None:
        """No answer for long: ask elsewhere too."""
        assert mine.link is not None
        mine.link.forget(mine.number)
        mine.doubt.flying, mine.doubt.why = False, f"{mine.link.address} did not answer in time"
        self._members.leave(mine.link, silent=True)
        self._slowly(mine)

    def _arrived(self, mine: _Journey, results: Sequence[Result]) -> None:
        for one, result in zip(mine.batch, results, strict=True):
            if not one.answer.done():
                one.answer.set_result(result)
        self._over()

    def _over(self) -> None:
        """The door is open; who comes now in this turn of the loop steps in too."""
        self._journey = None
        if self._waiting and not self._called:
            self._called = True
            self._loop.call_soon(self._leave)

    # -- when the line does not simply answer ----------------------------------------------------------

    def _slowly(self, mine: _Journey) -> None:
        self._task = self._loop.create_task(self._persist(mine), context=clock.detached())

    async def _persist(self, mine: _Journey) -> None:
        try:
            self._arrived(mine, await self._asked(mine))
        except Exception as error:
            for one in mine.batch:
                if not one.answer.done():
                    one.answer.set_exception(copy.copy(error))
            self._over()

    async def _asked(self, mine: _Journey) -> Sequence[Result]:
        """Ask member after member under the same number, until somebody answers or nobody waits."""
        while True:
            left = mine.until - self._loop.time()
            if left <= 0 and mine.doubt:
                raise call.unknown(_WHAT, self._members.url, self._limits.ceiling_s)
            if left <= 0:
                raise NotSent(f"the turn to {self._members.url} came after the deadline. Nothing was sent.")
            with clock.deadline(left):
                answer, twice = await self._members.put(lambda: self._verb(mine), _WHAT, mine.doubt)
            assert isinstance(answer, Done), f"a write was answered with {type(answer).__name__}"
            results = writing.unpacked(answer.data, len(mine.batch))
            if results is not None:
                return results
            self._begin_anew(mine)
            if twice:
                raise writing.forgotten(self._members.url)

    def _verb(self, mine: _Journey) -> wire.Write:
        """What is asked next, of those who still ride."""
        if not mine.batch:
            raise NotSent("nobody waits for it any more")
        return mine.verb

    def _begin_anew(self, mine: _Journey) -> None:
        """The members remember a bounded number of clients, and this one was silent for long."""
        self.begin_session()
        self.sequence = 1
        mine.verb = wire.Write(self.client, 1, mine.verb.data)

    def close(self) -> None:
        """What has not left is NotSent; what has is told when its line is closed."""
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.answer.done():
                mine.answer.set_exception(NotSent(f"{self._members.url} was closed. Nothing of it was sent."))
