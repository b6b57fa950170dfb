"""Membership: who is here now, told by their own presence.

Lamps in the windows of a street. Each is lit by who lives there and goes out by itself when he is gone;
whoever walks by counts the lamps.

Promise: a member is listed from joining until it leaves, or until its lease is over after it died; a member
whose lease ended while it lives joins again by itself. `watch` tells who is here, not every coming and going.
What can break it: a frozen member is listed until its lease is over, and a dead one as long.
Proved by: tests/blocks/test_membership.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.blocks.badge import Badge
from atoll.blocks.lock import checked_name, checked_times
from atoll.blocks.ownership import below
from atoll.blocks.session import ATTEMPTS, again, finished, in_background
from atoll.blocks.taking import described
from atoll.blocks.watching import states
from atoll.errors import AtollError, ConfigurationError, LeaseOver
from atoll.ports.register import Entry, Unmet
from atoll.ports.store import Store, delete

log = logging.getLogger("atoll.group")


class Lamp(msgspec.Struct, frozen=True):
    """What stands in a member's key. `since`: wall clock. `nonce`: unique to one joining."""

    name: str
    about: str
    since: float
    nonce: str
    format: int = 1


class Member(NamedTuple):
    """Somebody who is here. `about`: what it says of itself. `since`: wall clock, Unix seconds."""

    name: str
    about: str
    since: float


class Membership:
    """Being a member, for one `async with`; made by `Group.join`."""

    def __init__(self, group: Group, name: str, about: str) -> None:
        self._group = group
        self._name, self._about, self._since = name, about, 0.0
        self._badge: Badge | None = None
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Membership of {self._name!r} in {self._group!r}, {'present' if self.present else 'absent'}>"

    @property
    def name(self) -> str:
        """The name it joined with."""
        return self._name

    @property
    def present(self) -> bool:
        """Whether its lease is certainly standing; False while it is cut off, and joins again."""
        return self._badge is not None and self._badge.alive

    async def __aenter__(self) -> Membership:
        if self._keeper is not None:
            raise ConfigurationError(f"{self._name} is a member already: one join for one block.")
        self._since = clock.wall_now()
        await self._join()
        self._keeper = in_background(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._badge is not None:
            self._badge.not_forked(self._group.name)
        await finished(f"leaving {self._group.name}", self._end())

    async def _join(self) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._light()
            except LeaseOver as error:  # it ended while we waited for an answer: with a new one
                log.debug("%s: %s", self._group.name, error)
        await self._light()

    async def _light(self) -> None:
        before = self._badge
        nonce = clock.unique_id()
        badge = Badge(self._group.store, f"{self._group.prefix}{nonce}")
        lamp = Lamp(name=self._name, about=self._about, since=round(self._since, 3), nonce=nonce)
        session = await badge.join(self._group.ttl_s)
        try:
            off = (
                [delete(before.key)] if before is not None else []
            )  # its lease is over, and it may stand still
            lit = await badge.put_on(msgspec.json.encode(lamp), *off)
            assert not isinstance(lit, Unmet), lit
        except LeaseOver:
            session.end("the store says that its lease is over")
            raise
        self._badge = badge
        if before is not None:
            await before.take_off()

    async def _keep(self) -> None:
        """Join again whenever the lease has ended."""
        failures = 0
        while True:
            assert self._badge is not None
            await self._badge.off.wait()
            try:
                await self._join()
            except AtollError as error:
                failures += 1
                if failures == 1:
                    log.warning("%s is not in %s, joining again: %s", self._name, self._group.name, error)
                top_s = max(0.2, self._group.ttl_s / 3)
                chance = clock.chance().random()
                await asyncio.sleep(full_jitter(failures, chance, first_s=0.1, ceiling_s=top_s, floor_s=0.02))
            else:
                failures = 0
                log.info("%s is a member of %s again", self._name, self._group.name)

    async def _end(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._badge is not None:
            await self._badge.take_off()


class Group:
    """A group by name: join it, list it, watch it.

    `ttl_s`: a member that died is listed at most this long, and the store's own lateness.
    """

    def __init__(self, store: Store, name: str, *, ttl_s: float = 15.0) -> None:
        checked_name("group", name)
        checked_times(ttl_s, None)
        self.store, self.name, self.ttl_s = store, name, ttl_s
        self.prefix = f"group/{quote(name, safe='')}/member/"

    def __repr__(self) -> str:
        return f"<Group {self.name!r} on {self.store!r}>"

    def join(self, name: str | None = None, *, about: str = "") -> Membership:
        """Be a member for the length of an `async with`.

        `name`: how others read who it is, by default the instance or host, and the pid; it need not be
        unique. `about`: an address, a weight, a version: anything that fits into a value of the store.
        """
        return Membership(self, name or described(), about)

    async def members(self) -> list[Member]:
        """Who is here, the longest first."""
        return _listed(await again(lambda: below(self.store, self.prefix)))

    async def watch(self) -> AsyncGenerator[list[Member]]:
        """Who is here, now and whenever that has changed."""
        told: list[Member] | None = None
        async with aclosing(states(self.store, self.prefix)) as news:
            async for state in news:
                now = _listed(state.values())
                if now != told:
                    told = now
                    yield list(now)


def _listed(entries: Iterable[Entry]) -> list[Member]:
    found = []
    for entry in sorted(entries, key=lambda entry: entry.create_revision):
        try:
            lamp = msgspec.json.decode(entry.value, type=Lamp)
        except msgspec.DecodeError as error:
            log.warning("%s is no member's key: %s", entry.key, error)
            continue
        found.append(Member(lamp.name, lamp.about, lamp.since))
    return found
