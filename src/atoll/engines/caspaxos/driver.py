"""Driver: carries the questions of one change to the acceptors and its answers back, until it is agreed on.

A messenger with a watch. Who does not answer is not waited for when enough others did; when time is up the
messenger says truthfully whether a word was left anywhere that could still count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from atoll import clock
from atoll.algorithms.caspaxos import Changed, Counter, Failed, Proposal, Quorums
from atoll.algorithms.paxos import Accept, Elapsed, Prepare, Received, Send
from atoll.engines.caspaxos.acceptor import Acceptor, Reformed
from atoll.engines.caspaxos.options import CasPaxosOptions
from atoll.engines.caspaxos.records import NEVER, TAG_BITS, State
from atoll.engines.parts import call
from atoll.errors import AtollError, ConfigurationError, NotApplied, NotSent, OutcomeUnknown

FAILING = 3
"""After so many failures in a row an acceptor is asked one thing at a time, to see whether it is back."""
Change = Callable[[State, int], State]
"""From the present state and the revision of this answer to the next state, whose `seen` is that revision."""


@dataclass(slots=True)
class _Run:
    """One change under way."""

    what: str
    is_mine: Callable[[State], bool]
    inbox: asyncio.Queue[tuple[Any, int]] = field(default_factory=asyncio.Queue)
    proposal: Proposal[State] | None = None
    clock: int = 0
    errors: dict[str, AtollError] = field(default_factory=dict)

    def in_doubt(self) -> bool:
        """Whether it was left somewhere where it may still count."""
        return self.proposal is not None and any(map(self.is_mine, self.proposal.in_doubt()))


class Driver:
    """The acceptors of one opened handle, and one proposer's numbers."""

    def __init__(self, acceptors: Sequence[Acceptor], options: CasPaxosOptions, url: str) -> None:
        self.acceptors = {one.name: one for one in acceptors}
        self.options, self.url = options, url
        self.quorums = Quorums.of(list(self.acceptors))
        self.tag = 0
        self.closed = False
        self.bells: set[asyncio.Event] = set()
        """Of watches, rung when it closes."""
        self._counter = Counter(clock.unique_id())
        self._last = 0
        self._turns: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End what is still under way."""
        self.closed = True
        for bell in self.bells:
            bell.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def change(
        self,
        key: str,
        change: Change,
        what: str,
        is_mine: Callable[[State], bool] = lambda state: False,
        *,
        quorums: Quorums | None = None,
    ) -> State:
        """The state that was agreed on after `change`.

        `is_mine`: whether a state shows that the change happened; one of these in doubt is OutcomeUnknown.
        """
        left = call.left_s(what, self.options.ceiling_s)
        run = _Run(what, is_mine)
        limit = asyncio.timeout(left)
        try:
            async with limit, self._turn(key):
                return await self._propose(key, change, run, quorums or self.quorums)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._late(run, left) from None
        except Reformed as error:
            if run.in_doubt():
                raise call.unknown(what, self.url, left) from error
            raise

    async def _propose(self, key: str, change: Change, run: _Run, quorums: Quorums) -> State:
        def decide(found: State | None) -> State:
            state = found or NEVER
            self._last = max(self._last, run.clock, state.seen >> TAG_BITS) + 1
            return change(state, self._last << TAG_BITS | self.tag)

        proposal: Proposal[State] = Proposal(
            self._counter,
            quorums,
            decide,
            dice=clock.chance(),
            now=clock.loop_now(),
            patience_s=self.options.acceptor_s,
        )
        run.proposal = proposal
        event: Any = Elapsed()
        while True:
            for effect in proposal.step(event, clock.loop_now()):
                if isinstance(effect, Changed):
                    return effect.value
                assert isinstance(effect, Send)
                self._send(self.acceptors[effect.to], key, effect.message, run)
            event = await self._next(run, proposal)

    async def _next(self, run: _Run, proposal: Proposal[State]) -> Any:
        try:
            async with asyncio.timeout_at(proposal.deadline):
                event, now = await run.inbox.get()
        except TimeoutError:
            return Elapsed()
        run.clock = max(run.clock, now)
        wrong = [error for error in run.errors.values() if isinstance(error, ConfigurationError)]
        spare = len(self.acceptors) - self.quorums.prepare_needs
        for error in run.errors.values():
            if isinstance(error, Reformed) or (error in wrong[spare:] and not run.in_doubt()):
                raise error
        return event

    # -- asking one acceptor -----------------------------------------------------------------------------

    def _send(self, acceptor: Acceptor, key: str, message: Any, run: _Run) -> None:
        if self.closed:
            raise Reformed(f"{self.url} was closed while {run.what} was under way. Ask again.")
        if acceptor.in_flight >= (1 if acceptor.failures >= FAILING else self.options.in_flight_max):
            run.inbox.put_nowait((Failed(acceptor.name, message, certain=True), 0))
            return
        acceptor.in_flight += 1
        task = asyncio.create_task(self._ask(acceptor, key, message, run), context=clock.detached())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, acceptor: Acceptor, key: str, message: Any, run: _Run) -> None:
        now, event = 0, cast(Any, Failed(acceptor.name, message, certain=False))
        try:
            with clock.deadline(self.options.acceptor_s):
                async with asyncio.timeout(self.options.acceptor_s + 1.0):
                    if isinstance(message, Prepare):
                        reply, now = await acceptor.prepare(key, message)
                    else:
                        assert isinstance(message, Accept)
                        reply = await acceptor.accept(key, message, message.value.seen >> TAG_BITS)
            event = Received(acceptor.name, reply)
            run.errors.pop(acceptor.url, None)
            acceptor.failures = 0
        except TimeoutError:
            acceptor.failures += 1
        except AtollError as error:
            acceptor.failures += 1
            acceptor.claims = None  # whoever comes back may have been restored meanwhile
            certain = isinstance(error, NotApplied | ConfigurationError)
            run.errors[acceptor.url] = error
            event = Failed(acceptor.name, message, certain=certain)
        finally:
            acceptor.in_flight -= 1
            run.inbox.put_nowait((event, now))

    def _late(self, run: _Run, left: float) -> AtollError:
        said = "; ".join(f"{url}: {error}" for url, error in run.errors.items())
        told = f" ({said})" if said else ""
        if run.in_doubt():
            return OutcomeUnknown(
                f"{run.what} was sent to {self.url} and {left:.3g} s without a majority's answer{told}. It "
                "may have happened, or may happen yet: read before you ask again."
            )
        return NotSent(
            f"{run.what} found no majority of {self.url} in {left:.3g} s{told}. Nothing happened; bring the "
            "acceptors back, or ask with more time where many write one key."
        )

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        """One change of a key at a time in this handle: rivals here would only overtake each other."""
        lock, waiting = self._turns.setdefault(key, (asyncio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                self._turns.pop(key, None)
