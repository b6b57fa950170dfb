"""Moving: the epoch, the note and the report of a store that lives in this process.

A sign on a shop door: "moved to number 12". The shop is a table in your own room, but whoever comes to it
reads the same sign that hangs on real doors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.engines.memory.knobs import StoreKnobs
from atoll.engines.memory.link import Link
from atoll.engines.memory.world import StoreWorld
from atoll.ports.examining import Finding, Weight


class MemoryMoving:
    """What `atoll store` does to a memory store; see the port."""

    def __init__(self, link: Link, world: Callable[[], StoreWorld]) -> None:
        self._link, self._world = link, world

    async def bump(self, above: int = 0) -> int:
        return await self._link.call("bump", lambda: self._world().bump(above))

    async def freeze(self, note: str | None) -> None:
        def write() -> None:
            self._world().frozen = note

        await self._link.call("freeze", write)

    async def frozen(self) -> str | None:
        return await self._link.call("frozen", lambda: self._world().frozen)


class MemoryExamining:
    """What a memory store is worth."""

    def __init__(self, knobs: StoreKnobs) -> None:
        self._knobs = knobs

    async def damage(self) -> Sequence[str]:
        """Memory has no files."""
        return ()

    async def examine(self) -> Sequence[Finding]:
        found = [
            Finding(
                setting="where it lives",
                value="in this process",
                weight=Weight.BREAKS,
                cost="Other processes have a store of their own under the same name, so a lock here excludes "
                "nobody but this process, and all of it is gone when the process ends.",
                fix="Name a file instead: sqlite:///state.db. Keep memory:// for tests.",
            )
        ]
        if self._knobs.forgets_at_failover:
            found.append(
                Finding(
                    setting="forgets_at_failover",
                    value="true",
                    weight=Weight.COSTS,
                    cost="It claims to forget at a failover, so exclusive recipes refuse it.",
                    fix="Drop the option; it is there for tests.",
                )
            )
        return found
