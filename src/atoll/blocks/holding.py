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
import math
import os
import socket
from contextvars import ContextVar
from typing import ClassVar, TypeVar

from atoll import clock
from atoll.blocks.line import Attempt
from atoll.blocks.ownership import Keys, Won
from atoll.blocks.session import bounded, finished, in_background
from atoll.errors import ConfigurationError, Interrupted, UsedAfterFork
from atoll.ports.joined import joined_on
from atoll.ports.observer import Event, emit
from atoll.ports.store import Shadowed, Store, StoreClaims, Token

OPERATIONS = 6
"""The recipe's largest transaction: compares and operations together."""
_RELEASE_S = 5.0

log = logging.getLogger("atoll.lock")

caller: ContextVar[object | None] = ContextVar("atoll_caller", default=None)
"""Who asks, where it is not the current task: the sync face puts the calling thread here."""

_held: set[tuple[int, int, str, object]] = set()


class Holding:
    """What is held: a lock, or a term of office. Of one process; a forked child gets UsedAfterFork."""

    kind: ClassVar[str]
    error: ClassVar[type[Interrupted]]

    def __init__(self, name: str, won: Won) -> None:
        self._name = name
        self._won = won
        self._also: Won | None = None
        self._session = won.session
        self._pid = os.getpid()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._stopped = False
        self._closed = False
        self._reason: str | None = None
        self._since = clock.loop_now()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "left" if self._closed else "held"
        return f"<{type(self).__name__} {self.name!r} {self.token} {state}>"

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._name

    @property
    def token(self) -> Token:
        """Proof of when this ownership began; a later owner's is greater."""
        return self._won.token

    @property
    def owner_key(self) -> str:
        """The key whose revision is the token's revision while this is held."""
        self._not_forked()
        return self._won.keys.owner

    @property
    def owner(self) -> str:
        """How the holder describes itself to others."""
        return self._won.me.owner

    @property
    def resource(self) -> str:
        """The name under which databases note the token."""
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

    def take_also(self, also: Won) -> None:
        """It is held in a second store too, for as long as the first one is moving; see `Shadowed`."""
        self._also = also
        also.session.enter(self)

    def check(self) -> None:
        """Raise LockLost (a term: LeaderLost) when the lease is over. No round trip; any thread may ask."""
        self._not_forked()
        if self.lost:
            raise self.error(self._loss())
        if self._closed:
            raise self.error(f"{self.title} is not held any more: its block was left.")

    async def fence(self, tx: object) -> None:
        """Let the database of this open transaction refuse every older holder from now on.

        The first statement of the transaction, reads included. Raises Refused if a newer holder was
        here, LockLost or LeaderLost when the lease is over already.
        """
        self.check()
        await joined_on(tx).fence(tx, self.resource, self.token)

    @property
    def title(self) -> str:
        return self.name

    def lease_ended(self, reason: str) -> None:
        """The session says so: stop the body at its next await."""
        if self._closed or self._reason is not None:
            return
        self._lose(reason)
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
            f"{self.title} (token {self.token}) was lost: {reason}. What the body had sent stands; what it "
            "sends with its token from now on is refused once somebody newer was there."
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
        if self._also is not None:  # one of two was lost: what is left of them is not to outlive the body
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


def _task_here() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None


HoldingT = TypeVar("HoldingT", bound=Holding)


async def own(
    made: type[HoldingT],
    store: Store,
    name: str,
    *,
    ttl_s: float,
    wait_s: float | None,
    owner: str | None,
    best_effort: bool,
) -> HoldingT:
    """Become owner of `name`, waiting at most `wait_s`, and stand on its session.

    On a store that is moving, in the store first and then in its shadow: always in this order, so that two
    who want both never wait for each other.
    """
    keys, due = Keys.of(made.kind, name), clock.call_deadline(math.inf if wait_s is None else wait_s)

    def suits(claims: StoreClaims) -> None:
        if weakness := too_weak(claims, keys, best_effort):
            raise ConfigurationError(f"{store!r} {weakness}")

    def attempt_in(one: Store) -> Attempt:
        return Attempt(one, keys, ttl_s=ttl_s, owner=owner or described(), title=name, suits=suits)

    while True:
        attempt = attempt_in(store)
        won = await attempt.own(wait_s)
        shadow = store.shadow if isinstance(store, Shadowed) else None
        holding = made(name, won)
        if shadow is None:
            break
        second = attempt_in(shadow)
        try:
            left_s = None if wait_s is None else max(0.0, due - clock.loop_now())
            also = await second.own(left_s)
        except BaseException:
            await finished(f"giving up {name}", won.give_up())
            attempt.handed_over()
            raise
        holding.take_also(also)
        second.handed_over()
        if won.session.left_s > 0:
            break
        attempt.handed_over()  # the first was lost while we waited for the second: both anew
        also.session.leave(holding)
        await finished(f"giving up {name}", also.give_up())
    won.session.enter(holding)
    attempt.handed_over()
    return holding


def too_weak(claims: StoreClaims, keys: Keys, best_effort: bool) -> str | None:
    """Why a store cannot keep exclusion, and what to do; None if it can."""
    if claims.operations_max < OPERATIONS:
        return (
            f"takes {claims.operations_max} operations in a transaction; the line of waiters needs "
            f"{OPERATIONS}. Use sqlite:///state.db, or raise operations_max."
        )
    if len(keys.place("0" * 32).encode()) > claims.key_bytes_max:
        return f"takes keys of {claims.key_bytes_max} bytes; {keys.name[:40]!r}... is too long a name."
    if best_effort:
        return None
    advice = (
        "Use a store that keeps what it acknowledged, as sqlite:///state.db does, or say best_effort=True."
    )
    if claims.forgets_at_failover:
        return f"may forget a lock when its server fails over, so two could hold it. {advice}"
    if not claims.linearizable:
        return f"may answer with an old state, so two could hold it. {advice}"
    return None


def described() -> str:
    """How this process presents itself: its instance under `atoll up`, else its host; and its pid."""
    return f"{os.environ.get('ATOLL_INSTANCE') or socket.gethostname()}, pid {os.getpid()}"


def refuse_reentry(store: Store, kind: str, name: str, who: object) -> None:
    """Refuse to wait for what the caller itself holds: it would wait for ever."""
    if (os.getpid(), id(store), f"{kind}/{name}", who) in _held:
        raise ConfigurationError(
            f"{name} is held by this very caller already; waiting for it here would never end. "
            "Hand the held lock on as an argument, or take two different names."
        )


def mark(holding: Holding, store: Store, who: object, held: bool) -> None:
    """Remember, or forget, that `who` holds it."""
    entry = (os.getpid(), id(store), holding.resource, who)
    (_held.add if held else _held.discard)(entry)


def asking() -> object:
    """Who asks: the calling thread of the sync face, else the current task."""
    return caller.get() or _task_here()
