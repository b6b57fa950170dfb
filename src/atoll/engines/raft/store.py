"""RaftStore: the Store port on a cluster of one's own, three to seven members, no other server.

A ledger that a small council keeps. A line is entered when a majority has it on disk, whoever presides may
change in between, and a clerk who heard no answer may ask again: the question is known by its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Self, TypeVar

from atoll.engines.parts import pages
from atoll.engines.parts.call import left_s
from atoll.engines.parts.opening import Opening
from atoll.engines.raft import history, wire, writing
from atoll.engines.raft.attachment import Attachment
from atoll.engines.raft.command import Command, refuse
from atoll.engines.raft.council import Council
from atoll.engines.raft.examining import RaftExamining
from atoll.engines.raft.history import RaftHistory
from atoll.engines.raft.leasing import RaftLeasing
from atoll.engines.raft.moving import RaftMoving
from atoll.engines.raft.options import PORT, RaftOptions
from atoll.errors import ConfigurationError, LimitReached, NotSent
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Durable,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Ranged,
    Reach,
    StoreClaims,
    delete,
    put,
    unchanged,
)

T = TypeVar("T")

EXPIRY_LATE_MAX_S = 60.0
"""The leader ends a lease at once. But a change of leader gives every lease its whole time again, and without
a majority none ends: enough for leases of up to 30 s and a failover."""
VOTERS_FOR_QUORUM = 3
_SENTENCE_S = 0.1
"""Who connects has this much longer to say what was wrong; who waited beside them does not know."""


class RaftStore:
    """A store on members that run `atoll node`. Only connects. Durable: QUORUM with three voters or more."""

    def __init__(
        self, hosts: Sequence[str] = (f"127.0.0.1:{PORT}",), *, options: RaftOptions | None = None
    ) -> None:
        places = [_place(host) for host in hosts]
        if not places:
            raise ConfigurationError(
                "found no host; expected one member of the cluster at least, as host:port."
            )
        (host, port), *others = places
        self._begin(
            Address(scheme="raft", host=host, port=port, others=tuple(others)), options or RaftOptions()
        )

    def _begin(self, address: Address, options: RaftOptions) -> None:
        self._address, self.options = address, options
        self._url = str(address)
        self._cluster = ""
        self._opening: Opening[Attachment] = Opening(self._attach, Attachment.close)
        self._leasing = RaftLeasing(self)
        self._history = RaftHistory(self)
        self._moving = RaftMoving(self)
        self._examining = RaftExamining(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `raft://a:7401,b:7402,c:7403?option=value` names."""
        options = address.parse_options(RaftOptions)
        if not address.host:
            raise ConfigurationError(
                f"found no host in {address}; expected raft://host:{PORT}, or several with commas between."
            )
        if address.user or address.password or address.path:
            raise ConfigurationError(
                f"found a user, a password or a path in {address}; expected addresses of members only: who "
                "may connect is said by certificates (?ca=, ?cert=, ?key=), and a cluster is one store."
            )
        store = cls.__new__(cls)
        store._begin(address, options)
        return store

    def __repr__(self) -> str:
        return f"<Store {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leasing(self) -> Leasing | None:
        return self._leasing

    @property
    def history(self) -> History | None:
        return self._history

    @property
    def moving(self) -> Moving | None:
        return self._moving

    @property
    def examining(self) -> Examining | None:
        return self._examining

    @property
    def shadow(self) -> None:
        return None

    @property
    def life(self) -> int:
        """Rises when the handle is closed; a watch begun before it ends."""
        return self._opening.life

    async def _attach(self) -> Attachment:
        places = [_shown(host, port) for host, port in self._address.hosts]
        at = Attachment(self._url, places, self.options, self._cluster)
        try:
            await at.begin()
        except BaseException:
            await at.close()
            raise
        self._cluster = at.members.cluster
        return at

    async def attached(self) -> Attachment:
        """This event loop's lines to the members, made now if there are none; NotSent at the deadline."""
        at = self._opening.inside
        if at is not None:
            return at
        left = left_s("the first question", self.options.ceiling_s)
        limit = asyncio.timeout(left + _SENTENCE_S)
        try:
            async with limit:
                return await self._opening.get()
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotSent(f"{self._url} could not be reached in {left:.3g} s. Nothing was sent.") from None

    async def open(self) -> StoreClaims:
        """Connect, see that all who answer are of one cluster, read the claims. Cheap when already open."""
        card = await (await self.attached()).card(fresh=False)
        limits = card.limits
        return StoreClaims(
            durable=Durable.QUORUM if card.voters >= VOTERS_FOR_QUORUM else Durable.NODE,
            reach=Reach.NETWORK,
            ttl_min_s=float(limits.get("ttl_min_s", 0.0)),
            expiry_late_max_s=EXPIRY_LATE_MAX_S,
            key_bytes_max=self.options.key_bytes_max,
            value_bytes_max=self.options.value_bytes_max,
            operations_max=self.options.operations_max,
            dedupe_window_s=float(limits.get("dedupe_window_s", 0.0)),
            epoch_source="a command in the log; raised by bump() and by `atoll cluster recover`",
            liveness_s=self.options.liveness_s,
            incarnation=card.incarnation,
        )

    async def close(self) -> None:
        """End this loop's watches with WatchLost and hang up. A verb connects again."""
        await self._opening.close()
        self._cluster = ""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        """See the port. The epoch is in the log itself, so it is the cluster's whoever answers."""
        return (await (await self.attached()).card(fresh=True)).epoch

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self.options)
        rows = await (await self.attached()).ask(wire.Get(key), wire.Rows, "a get")
        return Got(Entry(*rows.rows[0]) if rows.rows else None, rows.revision)

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision.

        What would not fit into one answer is cut short, with `more`.
        """
        refusal.check_limit(limit)
        low, high = refusal.bounds(prefix, start, end)
        rows = await (await self.attached()).ask(
            wire.Range(low, high, min(limit, wire.LIMIT_MAX)), wire.Rows, "a range"
        )
        return Ranged(tuple(Entry(*row) for row in rows.rows), rows.revision, rows.more)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        return await self.transact(put(key, value), compare=[unchanged(key, revision)])

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        return await self.transact(delete(key), compare=[unchanged(key, revision)])

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        refusal.check_transaction(then, compare, guard, self.options)
        if guard is not None:
            guard.check()
        at = self._opening.inside or await self.attached()
        asked = writing.transaction(then, compare, guard, request_id if then else None)
        if asked.weight > at.bytes_max:
            raise LimitReached(
                f"found a transaction of about {asked.weight} bytes; expected at most {at.bytes_max} (the "
                "members' message_bytes_max). Split it, or keep the values elsewhere and their names here."
            )
        result = await (at.lift.ask(asked) if then else at.judge(asked))
        return writing.answer(asked, result, self._url)

    async def write(self, command: Command, kind: type[T]) -> T:
        """One command, beside whatever else waits in this loop; its receipt, or the error it stands for."""
        result = await (await self.attached()).lift.ask(writing.plain(command))
        if isinstance(result, kind):
            return result
        refuse(result, self._url)

    async def council(self) -> Council:
        """The members one by one: what `atoll cluster` asks."""
        return Council((await self.attached()).members)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. One observation for each transaction; a reset when it fell behind the history."""
        await self.attached()
        async for observation in pages.observe(history.Pages(self), prefix):
            yield observation


def _place(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and not name.endswith(":"):
        return name.strip("[]"), int(port)
    return host.strip("[]"), None


def _shown(host: str, port: int | None) -> str:
    return f"[{host}]:{port or PORT}" if ":" in host else f"{host}:{port or PORT}"
