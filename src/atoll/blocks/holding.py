"""Holding: a thing that is ours while a lease lasts, and the body of code that runs meanwhile.

A rented room. The rent is paid ahead; when it runs out, whoever sits inside is asked to leave. Who
cannot hear (a thread, a busy loop) finds the door locked at the end, and may look at the clock before.

Promise: a body that awaits is cancelled when the lease is over by this host's lease clock, counted from
the sending of the last answered renewal; leaving the block later than that raises; outer cancellation wins.
What can break it: a process that is frozen acts once more before it looks at the clock. That is what the
token is for: `fence` and `guard` refuse it.
Proved by: atoll verify --workload lock
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextvars import ContextVar
from typing import ClassVar, Protocol

from atoll import clock
from atoll.blocks.ownership import Owner
from atoll.blocks.session import Claim, Session, bounded, finished, in_background
from atoll.errors import Interrupted, UsedAfterFork
from atoll.ports.joined import joined_on
from atoll.ports.observer import Event, emit
from atoll.ports.store import Store, Token

_RELEASE_S = 5.0

log = logging.getLogger("atoll.lock")

caller: ContextVar[object | None] = ContextVar("atoll_caller", default=None)
"""Who asks, where it is not the current task: the sync face puts the calling thread here."""


class Standing(Protocol):
    """What a holding stands on: a key in a store, and the session it dies with."""

    @property
    def store(self) -> Store: ...
    @property
    def key(self) -> str: ...
    @property
    def session(self) -> Session: ...
    @property
    def me(self) -> Owner: ...
    @property
    def token(self) -> Token: ...
    async def give_up(self) -> None: ...


class Holding:
    """What is held: a lock, a permit, a term. Of one process; a forked child gets UsedAfterFork."""

    kind: ClassVar[str]
    error: ClassVar[type[Interrupted]]

    def __init__(self, name: str, won: Standing) -> None:
        self._name = name
        self._won = won
        self._also: Standing | None = None
        self._session = won.session
        self._pid = os.getpid()
        self._task = asyncio.current_task()
        self._asker = asking()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._stopped = False
        self._closed = False
        self._owing = False  # lost, and the key may still be ours to remove
        self._reason: str | None = None
        self._since = clock.loop_now()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "left" if self._closed else "held"
        return f"<{type(self).__name__} {self.name!r}{self._proof} {state}>"

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._name

    @property
    def owner(self) -> str:
        """How the holder describes itself to others."""
        return self._won.me.owner

    @property
    def resource(self) -> str:
        """The name under which databases note who holds it."""
        return f"{self.kind}/{self.name}"

    @property
    def deadline(self) -> float:
        """Until when it is certainly ours, by the lease clock; moves on with each renewal."""
        also = self._also
        return self._session.deadline if also is None else min(self._session.deadline, also.session.deadline)

    @property
    def lost(self) -> bool:
        """Whether the lease ended before the block was left."""
        return self._reason is not None or (not self._closed and self._left_s <= 0)

    @property
    def _left_s(self) -> float:
        left_s = self._session.left_s
        return left_s if self._also is None else min(left_s, self._also.session.left_s)

    def take_also(self, also: Standing) -> None:
        """It is held in a second store too, for as long as the first one is moving; see `Store.shadow`."""
        self._also = also
        also.session.enter(self, self._claim(also))

    def _claim(self, won: Standing) -> Claim:
        return Claim(won.key, won.token.revision, self.broken)

    def check(self) -> None:
        """Raise LockLost (a term: LeaderLost) when the lease is over. No round trip; any thread may ask."""
        self._not_forked()
        if self.lost:
            raise self.error(self._loss())
        if self._closed:
            raise self.error(f"{self.title} is not held any more: it was left.")

    @property
    def title(self) -> str:
        """How sentences call it."""
        return self.name

    @property
    def _proof(self) -> str:
        return ""

    def lease_ended(self, reason: str) -> None:
        """The session says so: stop the body at its next await."""
        if self._closed or self._reason is not None:
            return
        self._lose(reason)
        self._stop(reason)

    def broken(self, reason: str) -> None:
        """The session read that an operator has taken it away: stop the body, and leave no key behind."""
        self._owing = not self._closed and self._reason is None
        self.lease_ended(reason)

    def _stop(self, reason: str) -> None:
        if self._task is not None and not self._task.done():
            self._stopped = True
            self._task.cancel(f"{self.title} was lost: {reason}")

    def _lose(self, reason: str) -> None:
        self._reason = reason
        log.warning("%s was lost by %s: %s", self.title, self.owner, reason)
        emit(self._was_lost(reason))

    def _was_lost(self, reason: str) -> Event:
        raise AssertionError("each kind of holding says it in its own words")

    def _was_left(self, held_s: float) -> Event:
        raise AssertionError("each kind of holding says it in its own words")

    def _loss(self) -> str:
        reason = (
            self._reason or f"its lease of {self._session.ttl_s:.3g} s ended before a renewal was answered"
        )
        return (
            f"{self.title}{self._proof} was lost: {reason}. What the body had sent stands; what it sends "
            "under a guard or fence from now on is refused once somebody newer was there."
        )

    def _not_forked(self) -> None:
        if os.getpid() != self._pid:
            raise UsedAfterFork(
                f"{self.title} belongs to process {self._pid}, this is its child {os.getpid()}. "
                "A holding does not pass to a child: take your own there, or fork before you take it."
            )

    async def close(self, error: BaseException | None) -> None:
        """Leave the block whose body ended with `error`: give it up, or raise that it was lost."""
        if os.getpid() != self._pid:
            if error is None or (isinstance(error, Exception) and not isinstance(error, UsedAfterFork)):
                self._not_forked()
            return
        if self._closed:
            return  # given up before its end
        if self._reason is None and self._left_s <= 0:
            self._lose("its lease ended before the body did")
        self._closed = True
        entered = self._task
        if (
            isinstance(error, GeneratorExit)
            and entered
            and not entered.done()
            and entered is not _task_here()
        ):
            self._give_up_unseen()  # a body that was thrown away unfinished: nobody awaits us here
            return
        if self._reason is None:
            await self._give_up()
            return
        self._session.leave(self)
        if self._owing or self._also is not None:  # what is left of it is not to outlive the body
            await finished(f"giving up {self.title}", self._release_both())
        ours = False
        if self._stopped and self._task is not None and self._task is asyncio.current_task():
            ours = self._task.uncancel() <= self._cancelling
        if isinstance(error, asyncio.CancelledError):
            if not ours:
                return  # somebody outside cancelled too, and wins
        elif error is not None and not isinstance(error, Exception):
            return
        elif isinstance(error, self.error):
            return
        raise self.error(self._loss()) from error

    async def _release(self) -> None:
        try:
            await self._won.give_up()
        finally:
            self._session.leave(self)

    async def _release_both(self) -> None:
        """The second first: whoever has the first next finds it free."""
        also = self._also
        try:
            if also is not None and also.session.left_s > 0:
                await also.give_up()
        finally:
            if also is not None:
                also.session.leave(self)
            if self._session.left_s > 0:
                await self._release()
            else:
                self._session.leave(self)

    def _give_up_unseen(self) -> None:
        self._session.leave(self)
        if not self._session.loop.is_closed() and self._reason is None:
            self._session.loop.call_soon_threadsafe(self._start_giving_up)

    def _start_giving_up(self) -> None:
        in_background(bounded(f"giving up {self.title}", self._release_both()))

    async def _give_up(self) -> None:
        held_s = clock.loop_now() - self._since
        emit(self._was_left(held_s))
        log.debug("%s was left by %s after %.3g s", self.title, self.owner, held_s)
        bound_s = min(_RELEASE_S, max(0.05, self._left_s))
        await finished(f"giving up {self.title}", self._release_both(), bound_s)


class Exclusive(Holding):
    """A holding of which there is one at a time, so it carries a token. Goes where a `guard` is asked for."""

    @property
    def token(self) -> Token:
        """Proof of when this ownership began; a later owner's is greater."""
        return self._won.token

    @property
    def owner_key(self) -> str:
        """The key whose revision is the token's revision while this is held."""
        self._not_forked()
        return self._won.key

    async def fence(self, tx: object) -> None:
        """Let the database of this open transaction refuse every older holder from now on.

        The first statement of the transaction, reads included. Raises Refused if a newer holder was
        here, LockLost or LeaderLost when the lease is over already.
        """
        self.check()
        await joined_on(tx).fence(tx, self.resource, self.token)

    @property
    def _proof(self) -> str:
        return f" (token {self.token})"


def _task_here() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None


def asking() -> object:
    """Who asks: the calling thread of the sync face, else the current task."""
    return caller.get() or _task_here()
