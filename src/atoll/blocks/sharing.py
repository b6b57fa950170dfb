"""Sharing: one line for those who may be inside together; who stands far enough in front is inside.

A cinema without a box office: everybody stands in one row, and the first ten seats' worth of them are in.
Nobody is called by name; you look how many stand before you. So nothing has to be counted while it changes:
those before you can only become fewer.

One key for each, `<kind>/<name>/queue/<nonce>` (leased; the order is that of their create_revision).

Promise: who is let in by a rule stays in by it: places before him only go; places are taken in the order of
their transactions; one departure wakes whom it concerns: the head of the line, or one successor.
What can break it: a store that loses acknowledged writes.
Proved by: tests/blocks/test_semaphore.py, tests/blocks/test_read_write_lock.py,
tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from atoll import clock
from atoll.blocks.badge import Badge
from atoll.blocks.ownership import Keys, Owner, below
from atoll.blocks.session import Session, again, finished
from atoll.blocks.watching import State, first_of, until
from atoll.errors import LeaseOver, Taken
from atoll.ports.register import Entry, Unmet
from atoll.ports.store import Store, StoreClaims, Token

log = logging.getLogger("atoll.lock")


class Ticket(Owner, frozen=True):
    """What stands in a place. `wants`: "permit", "read" or "write". `permits`: how many its process says."""

    wants: str = ""
    permits: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A ticket and its entry."""

    ticket: Ticket
    entry: Entry


class Rule(Protocol):
    """Who is inside, by those before him alone."""

    @property
    def wants(self) -> str: ...
    @property
    def permits(self) -> int: ...
    @property
    def told(self) -> bool:
        """Whether one with others behind him says so when he is let in: they may be waiting for that.

        Whoever comes later looks later, and sees by his own counting that he is inside.
        """
        ...

    def awaits(self, before: Sequence[Place], me: Ticket) -> Sequence[Place]:
        """Nobody: he is inside. Else those of whom one must go, or be let in, before it can change."""
        ...

    def taken(self, title: str, before: Sequence[Place]) -> str:
        """Why he is not inside, for people."""
        ...


async def line(store: Store, keys: Keys) -> list[Place]:
    """Everybody in line, the first first."""
    entries = await below(store, keys.place(""))
    entries.sort(key=lambda entry: entry.create_revision)
    return [Place(read_ticket(entry), entry) for entry in entries]


def read_ticket(entry: Entry) -> Ticket:
    """The ticket of a place; an unreadable one wants everything and knows of no number."""
    try:
        return msgspec.json.decode(entry.value, type=Ticket)
    except msgspec.DecodeError:
        return Ticket(owner="an unknown owner", since=math.nan, nonce="", wants="write")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A place that is inside: its key, its session, and the revision that guards compare."""

    store: Store
    key: str
    session: Session
    me: Ticket
    token: Token
    badge: Badge

    async def give_up(self) -> None:
        """Take the place away; whoever waits for it looks then. One transaction."""
        await self.badge.take_off()


class Turn:
    """One try to be let in by a rule, from standing in line to being inside or having left nothing behind."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        rule: Rule,
        ttl_s: float,
        owner: str,
        suits: Callable[[StoreClaims], None],
    ) -> None:
        self.store, self.keys, self.rule, self.ttl_s = store, keys, rule, ttl_s
        self._who, self._suits = owner, suits
        self._me = Ticket(owner=owner, since=0.0, nonce="")

    async def own(self, wait_s: float | None) -> Admitted:
        """Wait until we are let in, at most `wait_s` and the deadline in force; then Taken."""
        began = clock.loop_now()
        due = clock.call_deadline(math.inf if wait_s is None else wait_s)
        while True:
            badge, session = await self._begin()
            try:
                try:
                    entry = await self._wait(badge, due, began)
                except LeaseOver:
                    session.end("the store says that its lease is over")
                    entry = None
                if entry is not None and badge.alive:
                    break
            except BaseException:
                await finished(f"leaving the line of {self.keys.name}", badge.take_off())
                raise
            await badge.take_off()  # the lease ended meanwhile: all over again, with a new one
        return Admitted(
            store=self.store,
            key=badge.key,
            session=session,
            me=self._me,
            token=Token(session.epoch, entry.revision),
            badge=badge,
        )

    def handed_over(self) -> None:
        """A holding stands on the session now; the badge stays on it until it is taken off."""

    async def _begin(self) -> tuple[Badge, Session]:
        badge = Badge(self.store, self.keys.place(nonce := clock.unique_id()))
        session = await badge.join(self.ttl_s)
        try:
            assert session.claims is not None
            self._suits(session.claims)
        except BaseException:
            session.leave(badge)
            raise
        self._me = Ticket(
            owner=self._who,
            since=round(clock.wall_now(), 3),
            nonce=nonce,
            ttl_s=session.ttl_s,
            wants=self.rule.wants,
            permits=self.rule.permits,
        )
        return badge, session

    async def _wait(self, badge: Badge, due: float, began: float) -> Entry | None:
        """Until we are inside; None when the lease ended first."""
        entry = await badge.put_on(msgspec.json.encode(self._me))
        assert not isinstance(entry, Unmet), entry  # nothing was compared but that the place is new
        while badge.alive:
            places = await again(lambda: line(self.store, self.keys))
            at = next((n for n, place in enumerate(places) if place.entry.key == badge.key), None)
            if at is None:
                return None  # an operator took our place away, or the lease is over
            before = places[:at]
            awaited = self.rule.awaits(before, self._me)
            if not awaited:
                behind = len(places) > at + 1
                return await badge.touch() if behind and self.rule.told else entry
            if clock.loop_now() >= due:
                raise self._taken(before, began)
            await self._until_changed(badge, awaited, due)
        return None

    async def _until_changed(self, badge: Badge, awaited: Sequence[Place], due: float) -> None:
        """Until one of `awaited` is gone or written again, our lease is over, or it is time to go."""
        known = {place.entry.key: place.entry.revision for place in awaited}
        prefix = awaited[0].entry.key if len(awaited) == 1 else self.keys.place("")

        def changed(state: State) -> bool:
            return any(key not in state or state[key].revision != known[key] for key in known)

        await first_of(due, until(self.store, prefix, changed), badge.off.wait())

    def _taken(self, before: Sequence[Place], began: float) -> Taken:
        first = before[0].ticket
        return Taken(
            f"{self.rule.taken(self.keys.name, before)}; waited {clock.loop_now() - began:.3g} s. "
            "Ask again, or wait longer (wait_s).",
            owner=first.owner,
            since=None if math.isnan(first.since) else first.since,
        )


def names(places: Sequence[Place]) -> str:
    """Up to three of them, for a sentence."""
    said = ", ".join(place.ticket.owner for place in places[:3])
    return said + (f" and {len(places) - 3} more" if len(places) > 3 else "")
