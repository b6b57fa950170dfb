"""Leasing: keys that die with their holder, counted by whoever leads.

A library card with a date. Granting one and ending one stand in the log; stamping one anew is the leader's
word alone, given only after a majority has confirmed that it still leads. A new leader gives every card its
whole time again, so an end may come late and never early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.command import Ended, Grant, Revoke
from atoll.engines.raft.command import Granted as Receipt
from atoll.ports import refusal
from atoll.ports.store import Granted

if TYPE_CHECKING:
    from atoll.engines.raft.store import RaftStore


class RaftLeasing:
    """Leases of a raft store. Granted as long as asked, and for `ttl_min_s` at least."""

    def __init__(self, store: RaftStore) -> None:
        self._store = store

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        lease = f"{clock.chance().getrandbits(64):016x}"
        receipt: Receipt = await self._store.write(Grant(lease, ttl_s), Receipt)
        return Granted(lease, receipt.ttl_s)

    async def keep_alive(self, lease: str) -> float:
        at = await self._store.attached()
        answer = await at.ask(wire.KeepAlive(lease), wire.Seconds, f"the renewal of lease {lease:.32}")
        if answer.seconds is None:
            raise refusal.lease_over(lease)
        return answer.seconds

    async def revoke(self, lease: str) -> None:
        await self._store.write(Revoke(lease), Ended)

    async def remaining(self, lease: str) -> float | None:
        at = await self._store.attached()
        answer = await at.ask(wire.Remaining(lease), wire.Seconds, f"the time left of lease {lease:.32}")
        return answer.seconds
