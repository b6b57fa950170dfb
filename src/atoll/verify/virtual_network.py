"""The virtual network: a link between one process and one server, with everything a link can do to you.

A letter can be slow, lost, copied, or arrive after you stopped waiting; and worst, it can arrive while
the *answer* is lost. Each call here is two letters. The server's work is done in the server's own time:
a client that is frozen, cancelled or killed takes nothing back that it has sent.

A call without an answer at its ceiling, or at the deadline in force, raises OutcomeUnknown; one that
certainly never left raises NotSent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from atoll import clock
from atoll.errors import NotSent, OutcomeUnknown, WatchLost
from atoll.ports.broker import Broker
from atoll.ports.store import Store
from atoll.ports.tier import Tier
from atoll.verify.doorway import Call, DoorwayStore
from atoll.verify.doorway_messages import DoorwayBroker, DoorwayTier
from atoll.verify.virtual_time import Process, Simulation

T = TypeVar("T")


class Cut(Enum):
    """What of a link is cut."""

    BOTH = "both"  # half open: nothing arrives in either direction, and nobody is told
    REQUESTS = "requests"  # requests vanish; answers to those under way still come
    REPLIES = "replies"  # requests arrive and are obeyed; their answers vanish
    REFUSED = "refused"  # the connection is refused: every call is NotSent


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a link does to letters. Times in seconds; the others are probabilities for each call.

    `latency_s`: least and mean one-way time; what is above the least is exponential. `late`: the
    request arrives, but about when its sender gives up, or after.
    """

    latency_s: tuple[float, float] = (0.0002, 0.001)
    request_lost: float = 0.0
    reply_lost: float = 0.0
    duplicated: float = 0.0
    late: float = 0.0
    ceiling_s: float = 5.0
    liveness_s: float = 10.0


class Link:
    """The way from `client` to the server called `server`. A Doorway."""

    def __init__(self, simulation: Simulation, client: Process, server: str, weather: Weather) -> None:
        self.cut: Cut | None = None
        self.counts: dict[str, int] = {}
        """How often each hardship really happened, by name."""
        self._simulation = simulation
        self._loop = simulation.loop
        self._client = client
        self._name = f"{client.name}->{server}"
        self._weather = weather
        self._dice: random.Random = simulation.dice(self._name)
        self._streams: list[_Stream] = []
        self._held: dict[asyncio.Task[Any], None] = {}
        self._cuts = 0

    def __repr__(self) -> str:
        return self._name

    def store(self, inner: Store) -> Store:
        return DoorwayStore(inner, self, far=True)

    def broker(self, inner: Broker) -> Broker:
        return DoorwayBroker(inner, self)

    def tier(self, inner: Tier) -> Tier:
        return DoorwayTier(inner, self)

    def break_off(self, how: Cut) -> None:
        """From now on the link is cut, until `heal`."""
        self.cut = how
        self._cuts += 1
        self._note("cut", how.value)
        self._loop.call_later(
            self._weather.liveness_s, self._lose_streams, self._cuts, context=self._simulation.context()
        )

    def heal(self) -> None:
        """Letters arrive again; streams begin anew from the last item that arrived."""
        if self.cut is not None:
            self.cut = None
            self._cuts += 1
            self._note("healed", "")
            for stream in self._streams:
                stream.restart()

    def hang_up(self) -> None:
        """The client is gone: the server notices on the calls it holds open for it."""
        for task in [*self._held]:
            task.cancel()
        for stream in [*self._streams]:
            stream.stop()

    async def call(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        ceiling = self._weather.ceiling_s + call.waits_s
        seconds = clock.remaining_s(ceiling)
        if self._simulation.over or self.cut is Cut.REFUSED or seconds <= 0:
            await asyncio.sleep(
                0 if self._simulation.over else self._latency()
            )  # who tries for ever must wait
            raise NotSent(self._why_not_sent(call, seconds))
        self._note("send", f"{call} {call.detail}")
        reply: asyncio.Future[T] = self._loop.create_future()
        carried = self._carry(call, send, reply, seconds)
        try:
            async with asyncio.timeout(seconds):
                return await reply
        except TimeoutError:
            if reply.done() and not reply.cancelled():
                return reply.result()
            if call.verb == "open":  # connecting asks for nothing, so nothing can have happened
                raise NotSent(f"{self._name}: no connection within {seconds:g} s. Try again.") from None
            raise OutcomeUnknown(
                f"{self._name}: no answer to {call} within {seconds:g} s; it may have happened. Ask again.",
                id=call.id,
            ) from None
        finally:
            if call.held and (not reply.done() or reply.cancelled()):
                for task in carried:
                    task.cancel()

    def _why_not_sent(self, call: Call, seconds: float) -> str:
        if self._simulation.over:
            return f"{self._name}: {call} was not sent, the run is over."
        if self.cut is Cut.REFUSED:
            return (
                f"{self._name}: {call} was not sent, the connection is refused. Try again when it is healed."
            )
        return (
            f"{self._name}: {call} was not sent, its deadline passed {-seconds:g} s ago. Give it more time."
        )

    def _carry(
        self, call: Call, send: Callable[[], Awaitable[T]], reply: asyncio.Future[T], seconds: float
    ) -> list[asyncio.Task[None]]:
        """Put the request on its way, once, twice, late or not at all."""
        delays = [self._latency()]
        if self._happens("request_lost", self._weather.request_lost):
            delays = []
        elif self._happens("late", self._weather.late):
            delays = [seconds * self._dice.uniform(0.9, 1.5)]
        if delays and self._happens("duplicated", self._weather.duplicated):
            delays.append(delays[0] + self._latency())
        carried = []
        for delay in delays:
            journey = self._journey(call, send, reply, delay)
            name = f"{self._name}/{call.verb}"
            task = self._loop.create_task(journey, context=self._simulation.context(), name=name)
            carried.append(task)
            if call.held:
                self._held[task] = None
                task.add_done_callback(lambda done: self._held.pop(done, None))
        return carried

    async def _journey(
        self, call: Call, send: Callable[[], Awaitable[T]], reply: asyncio.Future[T], delay: float
    ) -> None:
        """The request's way, the server's work, and the answer's way back; runs outside of the client."""
        await asyncio.sleep(delay)
        if self.cut in (Cut.BOTH, Cut.REQUESTS):
            self._count("request_lost")
            return
        error: Exception | None = None
        answer: Any = None
        try:
            answer = await send()
        except Exception as raised:
            error = raised
        lost = self._happens("reply_lost", self._weather.reply_lost)
        await asyncio.sleep(self._latency())
        if self.cut in (Cut.BOTH, Cut.REPLIES):
            self._count("reply_lost")
            return
        if lost or reply.done() or self._client.dead:
            return
        self._note("reply", f"{call} {error if error is not None else answer!r}")
        if error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(answer)

    def stream(self, call: Call, start: Callable[[T | None], AsyncIterator[T]]) -> AsyncIterator[T]:
        return self._receive(call, start)

    async def _receive(self, call: Call, start: Callable[[Any], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        if self._simulation.over:
            raise WatchLost(f"{self._name}: {call} was not begun, the run is over.")
        stream = _Stream(self, call, start)
        self._streams.append(stream)
        stream.restart()
        if self.cut is not None:
            self._loop.call_later(
                self._weather.liveness_s, self._lose_streams, self._cuts, context=self._simulation.context()
            )
        try:
            while True:
                item = await stream.items.get()
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item
        finally:
            stream.stop()

    def _lose_streams(self, cuts: int) -> None:
        if self.cut is not None and self._cuts == cuts:
            for stream in [*self._streams]:
                silent = self._weather.liveness_s
                stream.end(
                    WatchLost(f"{self._name}: silent for {silent:g} s, the link is cut. Observe again.")
                )

    def _happens(self, name: str, probability: float) -> bool:
        if probability > 0 and self._dice.random() < probability:
            self._count(name)
            return True
        return False

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        self._note(name, "")

    def _latency(self) -> float:
        least, mean = self._weather.latency_s
        return least + (self._dice.expovariate(1 / (mean - least)) if mean > least else 0.0)

    def _note(self, what: str, text: str) -> None:
        self._simulation.trace.note(f"{self._loop.time():.9f} {self._name} {what} {text}")


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None


class _Stream:
    """One observation on a link: pumped at the server, received in order, begun again after a cut."""

    def __init__(self, link: Link, call: Call, start: Callable[[Any], AsyncIterator[Any]]) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self._link = link
        self._call = call
        self._start = start
        self._last: Any = None
        self._pump: asyncio.Task[None] | None = None

    def restart(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        simulation = self._link._simulation
        name = f"{self._link!r}/{self._call.verb}"
        self._pump = simulation.loop.create_task(self._run(), context=simulation.context(), name=name)

    def stop(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        if self in self._link._streams:
            self._link._streams.remove(self)

    def end(self, error: Exception | None) -> None:
        self.stop()
        self.items.put_nowait(_End(error))

    async def _run(self) -> None:
        await asyncio.sleep(self._link._latency())
        if self._link.cut is not None:
            return
        source = self._start(self._last)
        try:
            async for item in source:
                await asyncio.sleep(self._link._latency())
                if self._link.cut in (Cut.BOTH, Cut.REPLIES, Cut.REFUSED):
                    return  # restarted by heal, from the last that arrived
                self._last = item
                self._link._note(self._call.verb, repr(item))
                self.items.put_nowait(item)
            self.end(None)
        except Exception as error:
            self.end(error)
        finally:
            if (close := getattr(source, "aclose", None)) is not None:
                await close()
