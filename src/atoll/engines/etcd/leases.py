"""Leases: rights that end by themselves, granted and counted by the servers.

A library card with a date. The librarian stamps it, never earlier than asked, and asks nobody when the date
is past; a new head librarian gives every card its whole time again, so an end may come late but not early.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from atoll import clock
from atoll.engines.etcd import wire
from atoll.engines.etcd.call import Ended
from atoll.engines.etcd.transaction import lease_id
from atoll.engines.etcd.translation import Failure, Verdict, failure, raised
from atoll.engines.parts.call import left_s
from atoll.errors import ConfigurationError, LeaseOver
from atoll.ports import refusal
from atoll.ports.store import Granted

if TYPE_CHECKING:
    from atoll.engines.etcd.attachment import Attachment
    from atoll.engines.etcd.store import EtcdStore


async def grant(at: Attachment, ttl_s: float, what: str) -> tuple[int, float]:
    """A lease of whole seconds, the wish rounded up. Its number is ours, so asking twice grants once."""
    number = clock.chance().getrandbits(62) + 1
    data = wire.message("LeaseGrantRequest", TTL=min(math.ceil(ttl_s), 9_000_000_000), ID=number)
    try:
        answer = await at.client.read("LeaseGrant", data, what)
    except ConfigurationError as error:
        if "lease already exists" not in str(error):
            raise
        known = await _time_to_live(at, number, what)
        return number, float(known.grantedTTL)
    return number, float(answer.TTL)


async def _time_to_live(at: Attachment, number: int, what: str) -> Any:
    return await at.client.read("LeaseTimeToLive", wire.message("LeaseTimeToLiveRequest", ID=number), what)


class EtcdLeasing:
    """Leases of an etcd store. Granted in whole seconds; the servers' own minimum is `ttl_min_s`."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        at = await self._store.attached()
        if at.doubt is not None:
            await at.fresh("the question for the epoch")
        at.certain()
        number, ttl = await grant(at, ttl_s, "the grant of a lease")
        at.certain()
        return Granted(f"{number:016x}", ttl)

    async def keep_alive(self, lease: str) -> float:
        number = lease_id(lease)
        at = await self._store.attached()
        ttl = await renewed(at, number)
        if ttl <= 0:
            raise refusal.lease_over(lease)
        return float(ttl)

    async def revoke(self, lease: str) -> None:
        try:
            number = lease_id(lease)
        except LeaseOver:
            return
        at = await self._store.attached()
        try:
            data = wire.message("LeaseRevokeRequest", ID=number)
            await at.client.read("LeaseRevoke", data, f"the revocation of lease {lease}")
        except LeaseOver:
            return

    async def remaining(self, lease: str) -> float | None:
        try:
            number = lease_id(lease)
        except LeaseOver:
            return None
        at = await self._store.attached()
        answer = await _time_to_live(at, number, f"the time left of lease {lease}")
        return float(answer.TTL) if answer.TTL > 0 else None


async def renewed(at: Attachment, number: int) -> int:
    """The seconds granted anew, 0 where the lease is over; asked of one member after the other."""
    client, what = at.client, f"the renewal of lease {number:016x}"
    due = clock.loop_now() + left_s(what, client.ceiling_s)
    data = wire.message("LeaseKeepAliveRequest", ID=number)
    last: Failure | None = None
    while (left := due - clock.loop_now()) > 0:
        endpoint = client.current
        try:
            endpoint = await client.entered(left)
            answer = await endpoint.ask(
                "LeaseKeepAlive", data, min(left, client.attempt_s), client.token or ""
            )
            return int(answer.TTL)
        except Ended as error:
            last = failure(error, endpoint.address)
            client.leave(endpoint)
        except Failure as error:
            last = error
        if last.verdict is Verdict.DEFINITE:
            break
        await asyncio.sleep(0.01)
    raise raised(last or Failure(Verdict.NEVER_SENT, "", at.url), what, at.url)
