"""Moving: the operator's verbs on a Redis store: accept it as it is, or stop its writers.

The book's cover again: a year that only an operator raises, and a slip that says where to go on.
"""

from __future__ import annotations

from atoll.engines.redis.ledger import Ledger


class RedisMoving:
    """See the port."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def bump(self, above: int = 0) -> int:
        """Also mends what can be worked out from the entries, where keys of the store had been removed."""
        head, _ = await self._ledger.run("moving", "bump", above)
        return head.epoch

    async def freeze(self, note: str | None) -> None:
        await self._ledger.run("moving", "freeze", "" if note is None else f"={note}")

    async def frozen(self) -> str | None:
        _, rest = await self._ledger.run("read", "state")
        note = rest[0].decode()
        return note[1:] if note else None
