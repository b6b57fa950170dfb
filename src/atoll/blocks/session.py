"""Session: one lease, shared by everything a process holds in one store with one ttl.

A cloakroom ticket for the whole family instead of one for each coat. While anybody of the family is
inside, the ticket is renewed; when the last has gone it is left to run out by itself.

Promise: nobody who stands on a session believes in it longer than the store does: its deadline counts
from the moment a renewal was *sent*, by the lease clock.
What can break it: a host whose lease clock runs slower than the store's.
Proved by: atoll verify --workload lock
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.blocks.notice import NOTICES_MAX, notices
from atoll.errors import ConfigurationError, LeaseOver, OutcomeUnknown
from atoll.ports.store import Leasing, Store, StoreClaims

log = logging.getLogger("atoll.lock")

ATTEMPTS = 5
"""How often a call whose outcome is unknown is asked again, where asking again is harmless."""
_DOUBTS_MAX = 100
_CLEANING_S = 5.0

AnswerT = TypeVar("AnswerT")


class User(Protocol):
    """Whoever stands on a session: a holding, or a place in a line."""

    def lease_ended(self, reason: str) -> None:
        """The lease is over. Called once, from the session's loop."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """What a user holds by its key's revision, and how it is told that an operator has broken it."""

    key: str
    revision: int
    broken: Callable[[str], None]


class Session:
    """A lease and who stands on it. Made by `join`; belongs to one event loop and one process."""

    def __init__(self, store: Store, wish_s: float) -> None:
        self.store = store
        self.wish_s = wish_s
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.lease = ""
        self.ttl_s = wish_s
        self.deadline = 0.0
        self.epoch = 0
        self.claims: StoreClaims | None = None
        self.ended: str | None = None
        self.retired = False
        self._users: dict[User, Claim | None] = {}  # its order does not depend on addresses
        self._broken: dict[tuple[str, int], str] = {}
        self._heard = 0  # the number of the last notice read
        self._doubts: list[Callable[[], Awaitable[bool]]] = []
        self._ticking = False
        self._entry = asyncio.Lock()

    @property
    def left_s(self) -> float:
        """Seconds for which the lease is certainly ours; 0 or less: it is over."""
        return 0.0 if self.ended is not None else self.deadline - clock.lease_now()

    def enter(self, user: User, claim: Claim | None = None) -> None:
        """`user` stands on the lease from now on, so it is kept alive."""
        self._users[user] = claim
        if claim is not None and (reason := self._broken.get((claim.key, claim.revision))):
            self.loop.call_soon(claim.broken, reason)
        if not self._ticking:
            self._tick_in(max(0.0, self.left_s - self.ttl_s * 2 / 3))

    def knows_broken(self, key: str, revision: int) -> bool:
        """Whether a notice was read that this was broken."""
        return (key, revision) in self._broken

    def leave(self, user: User) -> None:
        """`user` has gone."""
        self._users.pop(user, None)
        if self.retired and not self._users and self.ended is None:
            self.ended = "it was given back"
            in_background(_revoke(self.store, self.lease))

    def retire(self, settle: Callable[[], Awaitable[bool]]) -> None:
        """Something under this lease is in doubt: nobody new stands on it, and it ends with the last.

        `settle` is asked after each renewal until it answers True.
        """
        self.retired = True
        _forget(self)
        self._doubts = [*self._doubts[1 - _DOUBTS_MAX :], settle]

    async def ready(self) -> bool:
        """Grant the lease at first use, renew one that has idled. False: take another session."""
        async with self._entry:
            if self.ended is not None or self.retired:
                return False
            if not self.lease:
                await self._grant()
            elif self.left_s < self.ttl_s / 2 and not await self._renew_now():
                self.retired = True
                _forget(self)
                return False
            return True

    async def _grant(self) -> None:
        async def once() -> None:
            sent = clock.lease_now()
            self.lease, self.ttl_s = await leasing_of(self.store).grant(self.wish_s)
            self.deadline = sent + self.ttl_s

        self.claims = await self.store.open()
        self.epoch = await again(self.store.epoch)
        await again(once)
        self.loop.call_later(max(0.0, self.left_s), self._at_deadline, context=clock.detached())

    async def _renew_now(self) -> bool:
        """One renewal. False: no answer, or the lease is over."""
        if self.left_s <= 0:
            self.end(f"its lease of {self.ttl_s:.3g} s ended before a renewal was answered")
            return False
        sent = clock.lease_now()
        try:
            async with asyncio.timeout(min(self.left_s, self.ttl_s / 4)):
                await self._hear_of_breaks()
                self.ttl_s = await leasing_of(self.store).keep_alive(self.lease)
                self.deadline = max(self.deadline, sent + self.ttl_s)
                self.epoch = await self.store.epoch()
        except LeaseOver:
            self.end("the store says that its lease is over")
            return False
        except Exception as error:
            log.debug("lease of %s not renewed: %r", self.store, error)
            return self.deadline >= sent + self.ttl_s
        return True

    async def _hear_of_breaks(self) -> None:
        """Read before each renewal, whose deadline counts from here: so a belief in a broken lock ends."""
        if not self._users:
            return
        for posted in await notices(self.store, self._heard):
            self._heard = posted.number
            self._broken[posted.notice.key, posted.notice.revision] = str(posted.notice)
            while len(self._broken) > NOTICES_MAX:
                del self._broken[next(iter(self._broken))]
        for claim in tuple(self._users.values()):
            if claim is not None and (reason := self._broken.get((claim.key, claim.revision))):
                claim.broken(reason)

    def _tick_in(self, seconds: float) -> None:
        self._ticking = True
        self.loop.call_later(seconds, self._tick, context=clock.detached())

    def _tick(self) -> None:
        self._ticking = False
        if self._users and self.ended is None and os.getpid() == self.pid:
            self._ticking = True
            in_background(self._renew())

    async def _renew(self) -> None:
        failures = 0
        while self.ended is None and self.left_s > 0:
            began = self.loop.time()
            if await self._renew_now():
                if failures:
                    log.info("the lease of %s is renewed again after %d failures", self.store, failures)
                self._tick_in(max(0.0, self.ttl_s / 3 - (self.loop.time() - began)))
                await self._settle()
                return
            failures += 1
            if failures == 1 and self.ended is None:
                log.warning("a lease of %s was not renewed; %.3g s are left", self.store, self.left_s)
            await asyncio.sleep(
                full_jitter(
                    failures,
                    clock.chance().random(),
                    first_s=self.ttl_s / 20,
                    ceiling_s=self.ttl_s / 6,
                    floor_s=self.ttl_s / 100,
                )
            )

    async def _settle(self) -> None:
        for settle in tuple(self._doubts):
            if await settle() and settle in self._doubts:
                self._doubts.remove(settle)

    def _at_deadline(self) -> None:
        if os.getpid() != self.pid or self.ended is not None:
            return
        left = self.left_s
        if left > 1e-6:  # renewed since this alarm was set
            self.loop.call_later(left, self._at_deadline, context=clock.detached())
        else:
            self.end(f"its lease of {self.ttl_s:.3g} s ended before a renewal was answered")

    def end(self, reason: str) -> None:
        """The lease is over: everybody who stands on it is told, once."""
        if self.ended is not None:
            return
        self.ended = reason
        _forget(self)
        for user in tuple(self._users):
            user.lease_ended(reason)


_sessions: dict[tuple[int, float, int], Session] = {}


async def join(store: Store, ttl_s: float, user: User) -> Session:
    """The session of this store, ttl and event loop, its lease granted; `user` stands on it."""
    loop = asyncio.get_running_loop()
    key = (id(store), ttl_s, id(loop))
    while True:
        session = _sessions.get(key)
        if session is None or session.pid != os.getpid() or session.loop is not loop:
            _purge()
            session = _sessions[key] = Session(store, ttl_s)
        try:
            if await session.ready():
                session.enter(user)
                return session
        except BaseException:
            if not session.lease:
                _forget(session)
            raise


def leasing_of(store: Store) -> Leasing:
    """The store's leases; ConfigurationError where it has none."""
    if store.leasing is None:
        raise ConfigurationError(
            f"{store!r} has no leases, so what a dead process holds would stay held for ever. "
            "Expected a store with leases: sqlite:///state.db is one."
        )
    return store.leasing


def _forget(session: Session) -> None:
    for key, known in tuple(_sessions.items()):
        if known is session:
            del _sessions[key]


def _purge() -> None:
    """Drop sessions whose event loop is closed, and those of the parent this process was forked from."""
    for key, session in tuple(_sessions.items()):
        if session.loop.is_closed() or session.pid != os.getpid():
            del _sessions[key]


async def again(call: Callable[[], Coroutine[Any, Any, AnswerT]]) -> AnswerT:
    """Call until the outcome is known, at most ATTEMPTS times. Only for what may happen twice."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await call()
        except OutcomeUnknown:
            await asyncio.sleep(
                full_jitter(attempt, clock.chance().random(), first_s=0.01, ceiling_s=0.5, floor_s=0.001)
            )
    return await call()


async def _revoke(store: Store, lease: str) -> None:
    try:
        async with asyncio.timeout(_CLEANING_S):
            await leasing_of(store).revoke(lease)
    except Exception as error:
        log.debug("lease of %s not revoked, it ends by itself: %r", store, error)


_background: set[asyncio.Task[Any]] = set()


def in_background(work: Coroutine[Any, Any, AnswerT]) -> asyncio.Task[AnswerT]:
    """A task that outlives its caller and its caller's deadline."""
    task = asyncio.get_running_loop().create_task(work, context=clock.detached())
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def finished(what: str, work: Coroutine[Any, Any, object], bound_s: float = _CLEANING_S) -> None:
    """Have `work` done although the caller may be cancelled meanwhile; at most `bound_s` are waited."""
    await asyncio.shield(in_background(bounded(what, work, bound_s)))


async def bounded(what: str, work: Coroutine[Any, Any, object], bound_s: float = _CLEANING_S) -> None:
    """Clean up; errors are logged, because whatever is left ends with its lease."""
    try:
        async with asyncio.timeout(bound_s):
            await work
    except TimeoutError:
        log.warning("%s had no answer within %.3g s; the lease ends what is left", what, bound_s)
    except Exception as error:
        log.warning("%s failed, the lease ends what is left: %r", what, error)
