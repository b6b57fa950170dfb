"""Taking: how what was won becomes a holding; who asks for it, and whether the store is strong enough.

The desk in front of the key cabinet. It looks whether the cabinet can be locked at all, whether you have
that key in your pocket already, and writes down what you carry away.

Promise: nobody waits for what he holds himself; a store that could give one thing to two is refused.
What can break it: a store whose claims are wrong; `atoll verify` tests them.
Proved by: atoll verify --workload lock, tests/blocks/test_lock.py
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar
from urllib.parse import unquote

from atoll import clock
from atoll.blocks.holding import Holding, Standing, asking
from atoll.blocks.line import Attempt
from atoll.blocks.ownership import Keys
from atoll.blocks.session import finished
from atoll.errors import ConfigurationError, ReadOnly, WouldDeadlock
from atoll.ports.store import Durable, Reach, Store, StoreClaims

OPERATIONS = 6
"""The largest transaction of a line: compares and operations together."""

HoldingT = TypeVar("HoldingT", bound=Holding)
EnteredT = TypeVar("EnteredT")

_held: dict[tuple[int, int, str, object], Holding] = {}


class Asking(Protocol):
    """One try for something that stands on a lease."""

    async def own(self, wait_s: float | None) -> Standing: ...
    def handed_over(self) -> None: ...


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
    """Become owner of `name`, waiting at most `wait_s`, and stand on its session."""
    keys = Keys.of(made.kind, name)

    def suits(claims: StoreClaims) -> None:
        check_strength(store, claims, keys.place("0" * 32), best_effort)

    def attempt_in(one: Store) -> Asking:
        return Attempt(
            one,
            keys,
            ttl_s=ttl_s,
            owner=owner or described(),
            title=name,
            suits=suits,
            heirs=made.kind == "election",
        )

    return await hold(lambda won: made(name, won), store, attempt_in, wait_s)


async def hold(
    made: Callable[[Standing], HoldingT],
    store: Store,
    attempt_in: Callable[[Store], Asking],
    wait_s: float | None,
) -> HoldingT:
    """What an attempt wins, as a holding that hears when its lease ends or an operator breaks it.

    On a store that is moving, in the store first and then in its shadow: always in this order, so that two
    who want both never wait for each other.
    """
    due = clock.call_deadline(math.inf if wait_s is None else wait_s)
    while True:
        attempt = attempt_in(store)
        won = await attempt.own(wait_s)
        shadow = store.shadow
        holding = made(won)
        if shadow is None:
            if not won.session.knows_broken(won.key, won.token.revision):
                break
            attempt.handed_over()  # it was taken away before we knew that we had it
            await finished(f"giving up {holding.name}", won.give_up())
            continue
        second = attempt_in(shadow)
        try:
            left_s = None if wait_s is None else max(0.0, due - clock.loop_now())
            also = await second.own(left_s)
        except ReadOnly:
            break  # the shadow is frozen, so nobody can hold it there
        except BaseException:
            await finished(f"giving up {holding.name}", won.give_up())
            attempt.handed_over()
            raise
        holding.take_also(also)
        second.handed_over()
        if won.session.left_s > 0:
            break
        attempt.handed_over()  # the first was lost while we waited for the second: both anew
        also.session.leave(holding)
        await finished(f"giving up {holding.name}", also.give_up())
    won.session.enter(holding, holding._claim(won))
    attempt.handed_over()
    return holding


def check_strength(store: Store, claims: StoreClaims, longest_key: str, best_effort: bool) -> None:
    """Raise ConfigurationError for a store that cannot keep exclusion; the sentence says what to do."""
    if weakness := too_weak(claims, longest_key, best_effort):
        raise ConfigurationError(f"{store!r} {weakness}")


def too_weak(claims: StoreClaims, longest_key: str, best_effort: bool) -> str | None:
    """Why a store cannot keep exclusion, and what to do; None if it can."""
    if claims.operations_max < OPERATIONS:
        return (
            f"takes {claims.operations_max} operations in a transaction; the line of waiters needs "
            f"{OPERATIONS}. Use sqlite:///state.db, or raise operations_max."
        )
    if len(longest_key.encode()) > claims.key_bytes_max:
        name = unquote(longest_key.split("/")[1])
        return f"takes keys of {claims.key_bytes_max} bytes; {name[:40]!r}... is too long a name."
    if best_effort:
        return None
    advice = claims.remedy or "Use a store that keeps what it acknowledged, as sqlite:///state.db does."
    advice = f"{advice.rstrip('.')}, or say best_effort=True."
    if claims.forgets_at_failover:
        return f"may forget a lock when its server fails over, so two could hold it. {advice}"
    if claims.durable is Durable.NONE and claims.reach is Reach.NETWORK:
        return f"forgets a lock when its server restarts, so two could hold it. {advice}"
    if not claims.linearizable:
        return f"may answer with an old state, so two could hold it. {advice}"
    return None


def described() -> str:
    """How this process presents itself: its instance under `atoll up`, else its host; and its pid."""
    return f"{os.environ.get('ATOLL_INSTANCE') or socket.gethostname()}, pid {os.getpid()}"


def refuse_reentry(store: Store, kind: str, name: str, who: object) -> None:
    """Refuse to wait for what the caller itself holds: it would wait for ever."""
    if held_by(store, kind, name, who) is not None:
        more = ", or make the lock reentrant=True" if kind == "lock" else ""
        raise WouldDeadlock(
            f"{name} is held by this very caller already; waiting for it here would never end. "
            f"Hand the held one on as an argument, or take two different names{more}."
        )


def held_by(store: Store, kind: str, name: str, who: object) -> Holding | None:
    """What `who` holds by that name."""
    return _held.get((os.getpid(), id(store), f"{kind}/{name}", who))


def mark(holding: Holding, store: Store, held: bool) -> None:
    """Remember, or forget, that who asked for it holds it."""
    entry = (os.getpid(), id(store), holding.resource, holding._asker)
    if held:
        _held[entry] = holding
    elif _held.get(entry) is holding:
        del _held[entry]


def popped(entries: dict[object, list[EnteredT]], name: str) -> EnteredT:
    """What the caller entered last; what another task entered, while it is clear which one."""
    who = asking()
    if who not in entries:
        if len(entries) != 1:
            raise ConfigurationError(
                f"{name} is left by a task that did not enter it, and {len(entries)} hold it. "
                "Give each task its own object, or leave where you entered."
            )
        who = next(iter(entries))
    holding = entries[who].pop()
    if not entries[who]:
        del entries[who]
    return holding
