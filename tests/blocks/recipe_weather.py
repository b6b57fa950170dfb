"""What the recipes' tests share: the weakest store, the storms, and a judge who watches from outside."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from atoll.ports.store import Store
from atoll.testing import Weather, World

WEAK = (
    "observe=coalesced&observe_late_s=0.05&observe_reset=0.2&expiry_late_s=2&granted_ttl_factor=0.5"
    "&operations_max=6"
)
LONG = 10 if os.environ.get("ATOLL_LONG") else 1

STORMS = {
    "replies are lost": Weather(reply_lost=0.1),
    "requests are lost": Weather(request_lost=0.1),
    "requests arrive twice": Weather(duplicated=0.2),
    "requests arrive after their sender gave up": Weather(late=0.05, ceiling_s=1.0),
    "everything at once": Weather(
        reply_lost=0.05, request_lost=0.05, duplicated=0.1, late=0.03, ceiling_s=1.0
    ),
}


class TooMany(AssertionError):
    """More were inside than may be."""


class Judge:
    """Who believes to be inside, by kind; `allowed` says which crowds may be."""

    def __init__(self, allowed: Callable[[Counter[str]], bool]) -> None:
        self.allowed = allowed
        self.inside: dict[str, str] = {}
        self.order: list[str] = []
        self.turns = 0
        self.most = 0

    def enter(self, who: str, kind: str = "in") -> None:
        self.inside[who] = kind
        self.order.append(who)
        self.most = max(self.most, len(self.inside))
        if not self.allowed(Counter(self.inside.values())):
            raise TooMany(f"inside together: {self.inside}")

    def leave(self, *who: str) -> None:
        for one in who:
            self.inside.pop(one, None)
        self.turns += 1


async def emptied(world: World, prefix: str, within_s: float = 60.0, but: Iterable[str] = ()) -> None:
    """Sooner or later nothing is left below the prefix, whatever went wrong."""
    world.weather = Weather()

    async def look() -> None:
        store = world.store()
        async with asyncio.timeout(within_s):
            while {e.key for e in (await store.range(prefix)).entries} - set(but):
                await asyncio.sleep(0.5)

    await world.process("calm").run(look())


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in (await store.range(prefix, limit=100_000)).entries]


async def until(true: Callable[[], Any], within_s: float = 30.0) -> None:
    """Wait for a condition of this process; in virtual time it costs nothing."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)
