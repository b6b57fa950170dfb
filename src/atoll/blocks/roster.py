"""Roster: who holds what, who waits for it, and why it goes on so long. For people; reads only.

The board in a hospital corridor: the room, who is in it since when, who sits outside, and a lamp that
flickers when nobody has heard from inside for too long.

Promise: every name that is held or waited for is on it, as the store said at one moment for each name.
What can break it: nothing that matters; no decision stands on it.
Proved by: tests/blocks/test_roster.py, tests/cli/test_locks.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.blocks.ownership import Keys, Owner, look, read_owner
from atoll.blocks.read_write_lock import ReadRule, WriteRule
from atoll.blocks.semaphore import PermitRule
from atoll.blocks.sharing import Place, Rule, line
from atoll.ports.register import Entry
from atoll.ports.store import Store, Token

LOCKS = ("lock", "read_write", "semaphore")
SILENT = 0.5
"""A lease is renewed when a third of it has passed; less than this share left means that nobody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who holds or waits. `since`: Unix seconds. `token`: where the holding has one.

    `lease_left_s`, `ttl_s`: None where the store, or the key, does not tell. `wants`: read, write or permit.
    """

    owner: str
    since: float | None
    token: Token | None = None
    lease_left_s: float | None = None
    ttl_s: float | None = None
    wants: str = ""

    @property
    def cause(self) -> str:
        """Why nothing moves, as far as it can be seen from outside; empty where nothing is strange."""
        if self.lease_left_s is None or self.ttl_s is None or self.lease_left_s > self.ttl_s * SILENT:
            return ""
        silent_s = self.ttl_s - self.lease_left_s
        return (
            f"not renewed for {silent_s:.1f} s: its process is paused, dead, busy or cut off; it is free in "
            f"{max(0.0, self.lease_left_s):.1f} s at the latest"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One name. `holders` is empty while it is being handed over. `permits`: of a semaphore."""

    kind: str
    name: str
    holders: tuple[Person, ...]
    waiting: tuple[Person, ...]
    permits: int | None = None


async def roster(store: Store, kinds: Sequence[str] = LOCKS) -> list[Standing]:
    """Every name of these kinds that is held or waited for."""
    epoch = await store.epoch()
    found: list[Standing] = []
    for kind in kinds:
        start, end = f"{kind}/", f"{kind}0"
        while True:
            page = await store.range(start=start, end=end, limit=1)
            if not page.entries:
                break
            prefix = "/".join(page.entries[0].key.split("/")[:2]) + "/"
            keys = Keys(prefix)
            one = await (_owned if kind in ("lock", "election") else _shared)(store, kind, keys, epoch)
            if one.holders or one.waiting:
                found.append(one)
            start = prefix[:-1] + "0"
    return found


async def _owned(store: Store, kind: str, keys: Keys, epoch: int) -> Standing:
    view = await look(store, keys)
    holders = () if view.owner is None else (await _person(store, view.owner, read_owner(view.owner), epoch),)
    waiting = tuple(_waiting(read_owner(entry)) for entry in view.queue)
    return Standing(kind=kind, name=keys.name, holders=holders, waiting=waiting)


async def _shared(store: Store, kind: str, keys: Keys, epoch: int) -> Standing:
    """A line in which who stands far enough in front is inside."""
    places = await line(store, keys)
    inside: list[Place] = []
    outside: list[Place] = []
    for at, place in enumerate(places):
        (inside if _is_inside(places[:at], place) else outside).append(place)
    holders = []
    for place in inside:
        wants = place.ticket.wants
        number = epoch if wants == "write" else None
        holders.append(await _person(store, place.entry, place.ticket, number, wants))
    permits = min((place.ticket.permits for place in places if place.ticket.permits > 0), default=None)
    waiting = tuple(_waiting(place.ticket, place.ticket.wants) for place in outside)
    return Standing(kind=kind, name=keys.name, holders=tuple(holders), waiting=waiting, permits=permits)


def _is_inside(before: Sequence[Place], place: Place) -> bool:
    rules: dict[str, Rule] = {"read": ReadRule(), "permit": PermitRule(max(1, place.ticket.permits))}
    rule = rules.get(place.ticket.wants, WriteRule())
    return not rule.awaits(before, place.ticket)


async def _person(store: Store, entry: Entry, owner: Owner, epoch: int | None, wants: str = "") -> Person:
    left_s = None
    if entry.lease is not None and store.leasing is not None:
        left_s = await store.leasing.remaining(entry.lease)
    return Person(
        owner=owner.owner,
        since=_known(owner.since),
        token=Token(epoch, entry.revision) if epoch is not None else None,
        lease_left_s=left_s,
        ttl_s=owner.ttl_s or None,
        wants=wants,
    )


def _waiting(owner: Owner, wants: str = "") -> Person:
    return Person(owner=owner.owner, since=_known(owner.since), wants=wants)


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds
