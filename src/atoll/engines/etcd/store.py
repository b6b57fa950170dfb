"""EtcdStore: the Store port on an etcd cluster, one member or several.

A ledger kept by a council. Every line is agreed by a majority before it is answered, its number is the
council's own, and who leads may change while you write: you are told what is certain, and only that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Self, TypeVar

from atoll import clock
from atoll.engines.etcd import leases, transaction, wire
from atoll.engines.etcd.attachment import Attachment
from atoll.engines.etcd.card import Card, Memory
from atoll.engines.etcd.client import AnotherCluster
from atoll.engines.etcd.examination import EtcdExamining, durability
from atoll.engines.etcd.history import EtcdHistory, observed
from atoll.engines.etcd.keys import Keys
from atoll.engines.etcd.leases import EtcdLeasing
from atoll.engines.etcd.moving import EtcdMoving
from atoll.engines.etcd.options import EtcdOptions
from atoll.engines.etcd.transaction import Asked
from atoll.engines.parts.call import left_s
from atoll.engines.parts.opening import Opening
from atoll.errors import ConfigurationError, LeaseOver, LimitReached, NotApplied, NotSent
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Put,
    Ranged,
    Reach,
    StoreClaims,
    delete,
    put,
    unchanged,
)

T = TypeVar("T")

EXPIRY_LATE_MAX_S = 60.0
"""The leader looks for ended leases twice a second. But a change of leader gives every lease its whole time
again, and without a leader none ends: enough for leases of up to 30 s and a failover."""
_SENTENCE_S = 0.1
"""Who connects has this much longer to say what was wrong; who waited beside them does not know."""
_CARDS_MAX = 10
_REQUEST_MARGIN = 512
"""What the servers wrap around a request before they weigh it."""


class EtcdStore:
    """A store in etcd. Durable: QUORUM with three voting members or more. Inert until first use."""

    def __init__(
        self,
        hosts: Sequence[str] = ("127.0.0.1:2379",),
        *,
        prefix: str = "",
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        options: EtcdOptions | None = None,
    ) -> None:
        places = [_place(host) for host in hosts]
        if not places:
            raise ConfigurationError(
                "found no host; expected one member of the cluster at least, as host:port."
            )
        (host, port), *others = places
        address = Address(
            scheme="etcds" if tls else "etcd",
            host=host,
            port=port,
            user=user,
            password=password,
            path=prefix,
            others=tuple(others),
        )
        self._begin(address, options or EtcdOptions())

    def _begin(self, address: Address, options: EtcdOptions) -> None:
        self._address, self.options = address, options
        self._url = str(address)
        self.keys = Keys(address.path)
        self._memory = Memory()
        self._opening: Opening[Attachment] = Opening(self._attach, _detach)
        self._claims: StoreClaims | None = None
        self._leasing = EtcdLeasing(self)
        self._history = EtcdHistory(self)
        self._moving = EtcdMoving(self)
        self._examining = EtcdExamining(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `etcd://a:2379,b:2379/prefix?option=value` names."""
        options = address.parse_options(EtcdOptions)
        if not address.host:
            raise ConfigurationError(
                f"found no host in {address}; expected etcd://host:2379, or several with commas between."
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
        at = Attachment(self._address, self.options, self.keys, self._memory)
        try:
            await at.survey()
        except BaseException:
            await at.close()
            raise
        return at

    async def attached(self) -> Attachment:
        """This event loop's line to the cluster, made now if there is none; NotSent at the deadline."""
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

    async def drop(self, at: Attachment) -> None:
        """Hang `at` up; the next question finds the members anew."""
        self._claims = None
        await self._opening.drop(at)

    async def asked(self, question: Callable[[Attachment], Awaitable[T]]) -> T:
        """What `question` answers; asked anew, once, where another cluster has taken the members' place."""
        at = await self.attached()
        try:
            return await question(at)
        except AnotherCluster:
            await self.drop(at)
        return await question(await self.attached())

    async def open(self) -> StoreClaims:
        """Connect, compare the cluster with the one noted, read the claims. Cheap when already open."""
        at = await self.attached()
        if self._claims is None:
            durable = await durability(at)
            try:
                _, ttl_min_s = await leases.grant(at, 1, "the grant of a lease")
            except NotApplied:
                ttl_min_s = 1.0
            self._claims = StoreClaims(
                durable=durable,
                reach=Reach.NETWORK,
                ttl_min_s=ttl_min_s,
                expiry_late_max_s=EXPIRY_LATE_MAX_S,
                key_bytes_max=self.options.key_bytes_max,
                value_bytes_max=self.options.value_bytes_max,
                operations_max=self.options.operations_max,
                dedupe_window_s=self.options.dedupe_window_s,
                epoch_source="a key beside the data; raised by bump(), doubted when the cluster id "
                "changes or its raft term or revision goes back",
                liveness_s=self.options.liveness_s,
                incarnation=f"{at.client.cluster_id:x}",
            )
        return self._claims

    async def close(self) -> None:
        """End this loop's watches with WatchLost and hang up. A verb connects again."""
        self._claims = None
        await self._opening.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        async def question(at: Attachment) -> int:
            await at.fresh("the question for the epoch")
            at.certain()
            return at.card.epoch

        return await self.asked(question)

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self.options)
        data = wire.message("RangeRequest", key=self.keys.inside(key))
        answer = await self.asked(lambda at: at.client.read("Range", data, "a get"))
        found = answer.kvs
        return Got(transaction.entry(found[0], self.keys) if found else None, answer.header.revision)

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision."""
        refusal.check_limit(limit)
        low, high = self.keys.span(prefix, start, end)
        if low >= high:
            low, high = self.keys.meta, b""
        return await self.asked(lambda at: self._range(at, low, high, limit))

    async def _range(self, at: Attachment, low: bytes, high: bytes, limit: int) -> Ranged:
        data = wire.message("RangeRequest", key=low, range_end=high, limit=limit)
        answer = await at.client.read("Range", data, "a range")
        found = answer.kvs if high else ()
        entries = tuple(transaction.entry(one, self.keys) for one in found)
        return Ranged(entries, answer.header.revision, bool(answer.more))

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
        asked = Asked(then, compare, guard, request_id if then else None, self.keys, self._url)
        return await self.asked(lambda at: self._transact(at, asked))

    async def _transact(self, at: Attachment, asked: Asked) -> Applied | Unmet:
        lease = 0
        for _ in range(_CARDS_MAX):
            if asked.guard is not None:
                at.certain()
            if asked.request_id is not None:
                lease = await self._request_lease(at)
            card = at.card
            data = transaction.request(asked, card, lease)
            if len(data) > self.options.request_bytes_max - _REQUEST_MARGIN:
                raise LimitReached(
                    f"found a transaction of {len(data)} bytes; expected at most "
                    f"{self.options.request_bytes_max} "
                    "(request_bytes_max, the servers' --max-request-bytes). Split it, or keep the values "
                    "elsewhere."
                )
            try:
                if asked.then:
                    answer = await at.client.write("Txn", data, "the transaction", asked.request_id)
                else:
                    answer = await at.client.read("Txn", data, "the transaction")
            except LeaseOver:
                if await self._whose_lease(at, asked, lease):
                    continue
                raise
            if answer.succeeded:
                return transaction.applied(asked, answer)
            outcome = transaction.refused(asked, answer, card)
            if isinstance(outcome, Applied | Unmet):
                return outcome
            await self._renew_card(at, outcome)
        raise NotApplied(
            f"the card of {self._url} at {self.keys.meta.decode()} changed {_CARDS_MAX} times while one "
            "transaction was asked. Nothing was written: see who freezes, bumps or removes it."
        )

    async def _renew_card(self, at: Attachment, newer: Card | None) -> None:
        if newer is not None:
            at.card = newer
            return
        # Somebody removed it: the door is entered anew, which writes it with the epoch known here.
        at.client.current.entered = False
        await at.client.read("Range", wire.message("RangeRequest", key=self.keys.meta), "the card")

    async def _request_lease(self, at: Attachment) -> int:
        """The lease under which request ids are remembered: one for all of a window."""
        if clock.loop_now() < at.request_lease_until:
            return at.request_lease
        async with at.leasing:
            if clock.loop_now() >= at.request_lease_until:
                window_s = self.options.dedupe_window_s
                began = clock.loop_now()
                at.request_lease, _ = await leases.grant(at, 2 * window_s + 1, "the grant of a lease")
                at.request_lease_until = began + window_s
        return at.request_lease

    async def _whose_lease(self, at: Attachment, asked: Asked, lease: int) -> bool:
        """A lease is not there. Whether it was that of the request ids, so that asking again helps."""
        theirs = next((op.lease for op in asked.then if isinstance(op, Put) and op.lease), None)
        if theirs is not None and (not lease or await self._leasing.remaining(theirs) is None):
            raise refusal.lease_over(theirs) from None
        if lease:
            at.request_lease_until = 0.0
        return bool(lease)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. One observation for each transaction; a reset where some were compacted."""
        async for observation in observed(self, prefix):
            yield observation


async def _detach(at: Attachment) -> None:
    await at.close()


def _place(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and not name.endswith(":"):
        return name.strip("[]"), int(port)
    return host.strip("[]"), None
