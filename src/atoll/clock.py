"""The only door to time and chance.

Three clocks, because one word hides three questions. The *lease* clock asks "is this right still
mine?": it must never jump, must count suspend, and starts anew at boot, so it is read together with
the boot id. The *wall* clock asks "what shall I show a person?" and decides nothing. The *loop* clock
asks "how long shall I wait?" and is the event loop's own.

Tests put another clock in this door (`use`), and everything behind it runs in virtual time.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import cache
from typing import Protocol


class Clock(Protocol):
    """What stands behind the door. All times are float seconds."""

    @property
    def boot_id(self) -> str:
        """Names the boot in which `lease_now` counts; two readings compare only within one boot."""
        ...

    @property
    def chance(self) -> random.Random:
        """The only source of chance. Not for secrets."""
        ...

    def lease_now(self) -> float:
        """Seconds since boot, suspend included; never jumps."""
        ...

    def wall_now(self) -> float:
        """Unix seconds. May jump. For people, never for decisions."""
        ...

    def loop_now(self) -> float:
        """The event loop's time, the one that `asyncio.timeout_at` takes."""
        ...


class RealClock:
    """The machine's clocks. Lease time is CLOCK_BOOTTIME on Linux; CLOCK_MONOTONIC_RAW elsewhere."""

    def __init__(self) -> None:
        self.chance = random.Random(int.from_bytes(os.urandom(16), "big"))

    @property
    def boot_id(self) -> str:
        return _boot_id()

    def lease_now(self) -> float:
        return time.clock_gettime(_LEASE_CLOCK)

    def wall_now(self) -> float:
        return time.time()

    def loop_now(self) -> float:
        return time.monotonic()


# Linux counts suspend in BOOTTIME; macOS's MONOTONIC (7 is not there) counts it in MONOTONIC_RAW's kin.
_LEASE_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", 1))


@cache
def _boot_id() -> str:
    """The kernel's boot id, or on machines without one the boot's second by the wall clock."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return f"{sys.platform}-{round((time.time() - time.clock_gettime(_LEASE_CLOCK)) / 10)}"


_current: ContextVar[Clock | None] = ContextVar("atoll_clock", default=None)
_real = RealClock()
if hasattr(os, "register_at_fork"):  # a forked child must not roll its parent's dice
    os.register_at_fork(after_in_child=lambda: _real.chance.seed(os.urandom(16)))


def current() -> Clock:
    """The clock in use here: the machine's, unless a test has put in another."""
    return _current.get() or _real


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Put `clock` in the door for this context and the tasks started from it."""
    before = _current.set(clock)
    try:
        yield
    finally:
        _current.reset(before)


def server_context() -> Context:
    """A context with the clock in use here and nothing else.

    For what goes on when its caller is gone: a server's timers, in the same process for once.
    """
    context = Context()
    context.run(_current.set, _current.get())
    return context


def boot_id() -> str:
    """Names this boot of this machine; a lease that carries another one is over."""
    return current().boot_id


def lease_now() -> float:
    """Lease clock, in seconds since boot."""
    return current().lease_now()


def wall_now() -> float:
    """Wall clock, in Unix seconds, for people."""
    return current().wall_now()


def loop_now() -> float:
    """Loop clock, in seconds: what `asyncio` waits by."""
    return current().loop_now()


def chance() -> random.Random:
    """The source of chance in use here."""
    return current().chance


def unique_id() -> str:
    """A new name of 128 random bits in 32 hexadecimal digits, by the source of chance in use."""
    return f"{chance().getrandbits(128):032x}"


_deadline: ContextVar[float | None] = ContextVar("atoll_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Every call of Atoll's inside must answer within `seconds`; it travels with the calls.

    A nearer deadline around this one stays in force. The body itself is not cancelled: a call that
    meets the deadline raises `NotSent` or `OutcomeUnknown`, by what is known of it.
    """
    if not seconds > 0:
        from atoll.errors import ConfigurationError

        raise ConfigurationError(f"a deadline of {seconds} s is in the past: give seconds greater than 0")
    mine = loop_now() + seconds
    around = _deadline.get()
    before = _deadline.set(mine if around is None else min(mine, around))
    try:
        yield
    finally:
        _deadline.reset(before)


def remaining_s(ceiling_s: float) -> float:
    """Seconds left for one call: until the deadline in force, at most `ceiling_s`; may be below 0."""
    due = _deadline.get()
    return ceiling_s if due is None else min(ceiling_s, due - loop_now())


def call_deadline(ceiling_s: float) -> float:
    """When one call must have answered, by the loop clock: what `asyncio.timeout_at` takes."""
    return loop_now() + remaining_s(ceiling_s)


def detached() -> Context:
    """A copy of this context for work that outlives its caller: everything but the deadline in force."""
    context = copy_context()
    context.run(_deadline.set, None)
    return context
