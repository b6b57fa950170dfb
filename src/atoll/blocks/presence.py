"""Presence: the sign on the door that says a coordinator is alive.

The sign hangs under a lease: nobody has to take it down. Who finds it gone knows that the one inside will
not come out, and sees to what he left.

Promise: while the sign hangs, its coordinator has lived within the lease; a wrong guess costs an abort.
What can break it: nothing that matters; decisions do not rest on it.
Proved by: tests/blocks/test_transaction_kill.py, tests/algorithms/test_two_phase.py, make demo
"""

from __future__ import annotations

import asyncio
import os
import socket

import msgspec

from atoll import clock
from atoll.blocks.decision import COORDINATORS
from atoll.blocks.session import Session, again, join
from atoll.ports.store import Store, put

INSTANCE_DIGITS = 12


class Presence:
    """This process on this event loop, as a coordinator. Made by `Presences.here`."""

    def __init__(self, store: Store, ttl_s: float) -> None:
        self.instance = clock.unique_id()[:INSTANCE_DIGITS]
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.active: set[str] = set()
        """Transactions under way here: recovery leaves them alone."""
        self._store = store
        self._ttl_s = ttl_s
        self._session: Session | None = None
        self._entry = asyncio.Lock()
        self._count = 0

    def next_id(self, app: str, epoch: int) -> str:
        """A new transaction's id."""
        self._count += 1
        return f"{app}/{epoch}-{self.instance}-{self._count}"

    async def show(self) -> None:
        """Hang out the sign, if it does not hang."""
        if self._session is not None and self._session.ended is None:
            return
        async with self._entry:
            if self._session is not None and self._session.ended is None:
                return
            session = await join(self._store, self._ttl_s, self)
            about = {"host": socket.gethostname(), "pid": os.getpid(), "since": clock.wall_now(), "format": 1}
            sign = put(COORDINATORS + self.instance, msgspec.json.encode(about), lease=session.lease)
            try:
                await again(lambda: self._store.transact(sign))
            except BaseException:
                session.leave(self)
                raise
            self._session = session

    def hide(self) -> None:
        """Leave the sign to its lease, when nothing is under way here."""
        if self._session is not None and not self.active:
            self._session.leave(self)
            self._session = None

    def lease_ended(self, reason: str) -> None:
        """The sign is gone; the next transaction hangs it out again."""
        self._session = None


class Presences:
    """One for each event loop of this process; a forked child begins with none."""

    def __init__(self, store: Store, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._known: list[Presence] = []

    def here(self) -> Presence:
        """The presence of this loop, made at first use."""
        loop, pid = asyncio.get_running_loop(), os.getpid()
        self._known = [p for p in self._known if p.pid == pid and not p.loop.is_closed()]
        for presence in self._known:
            if presence.loop is loop:
                return presence
        presence = Presence(self._store, self._ttl_s)
        self._known.append(presence)
        return presence

    def mine(self) -> dict[str, set[str]]:
        """Instance -> transactions under way, of every loop of this process."""
        return {p.instance: p.active for p in self._known if p.pid == os.getpid() and not p.loop.is_closed()}
