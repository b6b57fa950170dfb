"""ZookeeperStore: the Store port on a ZooKeeper ensemble, or on one server.

The revision is ZooKeeper's own transaction number (zxid), so it counts what others do there too: it rises,
with gaps. A transaction is one multi. A lease is a session. There is no history, and news may be coalesced.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from kazoo.client import KazooClient

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.parts.opening import Opening
from atoll.engines.zookeeper import mirror, reading, transaction
from atoll.engines.zookeeper.bridge import Ensemble
from atoll.engines.zookeeper.examining import ZookeeperExamining, surveyed
from atoll.engines.zookeeper.leases import ZookeeperLeasing
from atoll.engines.zookeeper.limits import ZookeeperOptions
from atoll.engines.zookeeper.link import Link, SessionOver
from atoll.engines.zookeeper.moving import ZookeeperMoving
from atoll.engines.zookeeper.names import Tree
from atoll.engines.zookeeper.opened import Noted, Opened
from atoll.engines.zookeeper.writing import Asked
from atoll.errors import ConfigurationError, NotSent
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Durable,
    Guard,
    History,
    Leasing,
    Moving,
    Observing,
    Operation,
    Put,
    Ranged,
    Reach,
    StoreClaims,
    delete,
    put,
    unchanged,
)

PORT = 2181
ROOT = "atoll"


class ZookeeperStore:
    """A store below one node of ZooKeeper. Inert until first use; reopens in a forked child.

    `hosts`: "a:2181,b:2181". `root`: the node below which everything stands. `client`: a KazooClient the team
    has, used for everything but leases, whose sessions are their own.
    """

    def __init__(
        self,
        hosts: str = "",
        *,
        root: str = ROOT,
        user: str | None = None,
        password: str | None = None,
        client: KazooClient | None = None,
        options: ZookeeperOptions | None = None,
    ) -> None:
        self.options = options or ZookeeperOptions()
        if client is None and not hosts:
            raise ConfigurationError(
                "found no server; expected zookeeper://host:2181/atoll, or "
                "ZookeeperStore(client=a KazooClient)."
            )
        root = root.strip("/") or ROOT
        if any(not part or part in (".", "..", "zookeeper") for part in root.split("/")):
            raise ConfigurationError(f"found the root {root!r}; expected a path such as atoll or shop/state.")
        auth = (("digest", f"{user}:{password or ''}"),) if user is not None else ()
        tls: dict[str, Any] = {}
        if self.options.tls:
            tls = {
                "use_ssl": True,
                "ca": self.options.tls_ca or None,
                "certfile": self.options.tls_cert or None,
                "keyfile": self.options.tls_key or None,
                "check_hostname": True,
            }
        self._given, self._given_pid = client, os.getpid()
        chroot = ""
        if client is not None:
            hosts = ",".join(f"{host}:{port}" for host, port in client.hosts)
            auth = tuple(client.auth_data)
            chroot = client.chroot
        self._url = f"zookeeper://{f'{user}:***@' if user else ''}{hosts}/{root}"
        self._ensemble = Ensemble(hosts, self._url, self.options, auth, tls)
        self._tree = Tree(f"{chroot}/{root}")
        self._noted = Noted()
        self._opening: Opening[Opened] = Opening(self._connect, self._disconnect)
        self._leasing = ZookeeperLeasing(self)
        self._moving = ZookeeperMoving(self)
        self._examining = ZookeeperExamining(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `zookeeper://user:password@a:2181,b:2181/root?option=value` names."""
        options = address.parse_options(ZookeeperOptions)
        hosts = ",".join(
            f"{f'[{host}]' if ':' in host else host}:{port or PORT}" for host, port in address.hosts
        )
        store = cls(hosts, root=address.path, user=address.user, password=address.password, options=options)
        store._url = str(address)
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
        return None

    @property
    def moving(self) -> Moving | None:
        return self._moving

    @property
    def examining(self) -> Examining | None:
        return self._examining

    @property
    def shadow(self) -> None:
        return None

    async def open(self) -> StoreClaims:
        """Connect, make or check the nodes, read what the servers say of themselves. Cheap when open."""
        opened, options = await self.opened(), self.options
        return StoreClaims(
            durable=Durable.NODE if opened.alone else Durable.QUORUM,
            reach=Reach.NETWORK,
            ttl_min_s=opened.ttl_min_s,
            expiry_late_max_s=opened.tick_s * (3 if opened.alone else 10),
            never_early=True,
            key_bytes_max=options.key_bytes_max,
            value_bytes_max=options.value_bytes_max,
            operations_max=options.operations_max,
            dedupe_window_s=options.dedupe_window_s,
            epoch_source="a node below the root, raised by bump(); a snapshot copied back keeps its own",
            observe=Observing.COALESCED,
            liveness_s=options.liveness_s,
            linearizable=opened.linearizable,
        )

    async def close(self) -> None:
        """End this loop's watches with WatchLost, its session, and every lease of this handle."""
        await self._leasing.close()
        await self._opening.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        opened = await self.opened()
        meta = await opened.refresh(self.due("reading the epoch"))
        opened.noted.check(self._url)
        return meta.epoch

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self.options)
        return await reading.got(await self.opened(), key, self.due(f"reading {key!r}"))

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision."""
        refusal.check_limit(limit)
        bounds = refusal.bounds(prefix, start, end)
        return await reading.ranged(await self.opened(), prefix, bounds, limit, self.due("reading keys"))

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
        opened, due = await self.opened(), self.due(transaction.WHAT)
        asked = Asked(then, tuple(compare), guard, request_id)
        lease = asked.lease
        under = {self._tree.path(op.key) for op in then if isinstance(op, Put) and op.lease is not None}
        others = [path for op in then if (path := self._tree.path(op.key)) not in under]
        if lease is None:
            answer = await transaction.transact(opened, opened.link, asked, due)
        else:
            mine = await self._leasing.mine(opened, lease, due)
            await self._leasing.take(opened, mine, list(under), due)
            try:
                answer = await transaction.transact(opened, mine.link, asked, due)
            except SessionOver:
                raise refusal.lease_over(lease) from None
        if isinstance(answer, Applied):
            self._leasing.free(others)
        return answer

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. Coalesced; heals by looking at everything again after a lost connection."""
        opened = await self.opened()
        async for observation in mirror.observe(opened, prefix, lambda: self._opening.life):
            yield observation

    def due(self, what: str) -> float:
        """When a call that begins now must have answered, by the loop clock. NotSent when that is past."""
        return clock.loop_now() + call.left_s(what, self.options.ceiling_s)

    async def opened(self) -> Opened:
        """What this event loop has open."""
        opened = await self._opening.get()
        if opened.gone:
            await self._opening.drop(opened)
            opened = await self._opening.get()
        return opened

    async def _connect(self) -> Opened:
        due = self.due("opening the store")
        given = self._given if os.getpid() == self._given_pid else None
        link = Link(self._ensemble, lasting=True, client=given)
        link.begin(self.options.session_s)
        try:
            await link.up("opening the store", due)
            opened = Opened(link, self._tree, self._noted)
            survey = await surveyed(self._ensemble, due)
            opened.alone, opened.tick_s = survey.alone, survey.tick_s or max(2.0, link.granted_s / 2)
            opened.ttl_min_s = survey.ttl_min_s
            await opened.prepare(due)
            return opened
        except SessionOver as over:
            raise NotSent(f"{self._url} could not be opened: {over}. Ask again.") from None
        except BaseException:
            link.hang_up()
            raise

    async def _disconnect(self, opened: Opened) -> None:
        await opened.link.close()
