"""Leases: a lease is a session, with a connection of its own, and its keys are ephemeral nodes.

A deposit kept in one's own pocket. Only who has it can put things under it, so a lease does not travel to
another handle or process; who finds its number there can only read it. It lives by being renewed: nobody
pings for it, and its own process ends it when its time is over, even if the server would wait longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.zookeeper import reading, wire
from atoll.engines.zookeeper.limits import LEASE_BYTES_MAX
from atoll.engines.zookeeper.link import Link, SessionOver
from atoll.engines.zookeeper.opened import Opened, lease_id
from atoll.engines.zookeeper.wire import Failed, Node
from atoll.errors import ConfigurationError, LimitReached, NotSent
from atoll.ports import refusal
from atoll.ports.store import Granted

if TYPE_CHECKING:
    from atoll.engines.zookeeper.store import ZookeeperStore

_RENEWALS_KEPT = 64


class Lease:
    """One session of ours. Times by the lease clock."""

    def __init__(self, link: Link, sent: float, alone: bool, tick_s: float) -> None:
        self.link, self.id = link, lease_id(link.session)
        self.session_s = link.granted_s
        self.deadline = sent + self.session_s
        self.paths: set[str] = set()
        self._alone, self._tick_s = alone, tick_s
        self._proved: deque[float] = deque([sent], maxlen=_RENEWALS_KEPT)

    def renewed(self, sent: float) -> float:
        """A renewal sent then was answered; answers for how long from then the lease surely stands.

        A server passes on whom it has heard once a tick. If it dies before, the leader knows only of the
        renewal before, so the time counts from the newest one that is more than a tick old.
        """
        certain = sent
        if not self._alone:
            certain = max((at for at in self._proved if at <= sent - self._tick_s), default=self._proved[0])
        self._proved.append(sent)
        self.deadline = max(self.deadline, certain + self.session_s)
        return self.deadline - sent

    @property
    def bytes(self) -> int:
        """What its end takes in the packet that names its nodes."""
        return sum(len(path) + 8 for path in self.paths)


class ZookeeperLeasing:
    """Leases of a store. Those of another handle or process are refused with ConfigurationError."""

    def __init__(self, store: ZookeeperStore) -> None:
        self._store = store
        self._leases: dict[str, Lease] = {}
        self._pid, self._handle = os.getpid(), ""

    async def grant(self, ttl_s: float) -> Granted:
        refusal.check_ttl(ttl_s)
        opened = await self._store.opened()
        options = self._store.options
        due = clock.loop_now() + call.left_s("granting a lease", options.ceiling_s)
        opened.noted.check(opened.url)
        leases = self._known()
        link = Link(opened.link.ensemble, lasting=False)
        sent = clock.lease_now()
        link.begin(min(ttl_s, 86400.0))
        try:
            await link.up("granting a lease", due)
            lease = Lease(link, sent, opened.alone, opened.tick_s)
            await self._enter(opened, lease, due)
        except SessionOver as over:
            raise NotSent(f"granting a lease of {ttl_s:g} s failed: {over}. Ask again.") from None
        except BaseException:
            await asyncio.shield(link.close())
            raise
        leases[lease.id] = lease
        self._watch(lease)
        return Granted(lease.id, lease.session_s)

    async def _enter(self, opened: Opened, lease: Lease, due: float) -> None:
        """A node that says who has it; whoever finds the lease's number elsewhere looks it up there."""
        who = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "since": clock.wall_now(),
                "handle": self._handle,
            }
        )
        line = wire.create(opened.tree.lease(lease.id), who.encode(), lease.link.ensemble.acl, wire.EPHEMERAL)
        # Exists already where the answer to the first try was lost: the name is this session's own.
        await lease.link.ask("granting a lease", lambda: wire.write([line]), due, repeat=True)

    async def keep_alive(self, lease: str) -> float:
        opened = await self._store.opened()
        due = clock.loop_now() + call.left_s("renewing a lease", self._store.options.ceiling_s)
        mine = await self.mine(opened, lease, due)
        due = min(due, clock.loop_now() + max(0.0, mine.deadline - clock.lease_now()) + 0.001)
        sent = clock.lease_now()
        try:
            await mine.link.ask(
                "renewing a lease",
                lambda: wire.write([wire.check(opened.tree.counter, -1)]),
                due,
                repeat=True,
            )
        except SessionOver:
            self._known().pop(lease, None)
            raise refusal.lease_over(lease) from None
        return mine.renewed(sent)

    async def revoke(self, lease: str) -> None:
        mine = self._known().pop(lease, None)
        if mine is not None:
            await mine.link.close()
            return
        opened = await self._store.opened()
        due = clock.loop_now() + call.left_s("revoking a lease", self._store.options.ceiling_s)
        if (who := await self._holder(opened, lease, due)) is not None:
            raise _foreign(lease, who)

    async def remaining(self, lease: str) -> float | None:
        mine = self._known().get(lease)
        left = mine.deadline - clock.lease_now() if mine is not None else 0.0
        return left if left > 0 else None

    async def mine(self, opened: Opened, lease: str, due: float) -> Lease:
        """The lease, if it is ours and stands; LeaseOver, or ConfigurationError for another's."""
        mine = self._known().get(lease)
        if mine is not None and mine.link.over is None and clock.lease_now() < mine.deadline:
            return mine
        if mine is None and (who := await self._holder(opened, lease, due)) is not None:
            raise _foreign(lease, who)
        raise refusal.lease_over(lease)

    async def take(self, opened: Opened, lease: Lease, paths: list[str], due: float) -> None:
        """More nodes under a lease. LimitReached where its end would not fit into one packet."""
        lease.paths.update(paths)
        if lease.bytes <= LEASE_BYTES_MAX:
            return
        for part in reading.chunks([wire.get(path) for path in lease.paths.difference(paths)]):
            reply = await opened.read("counting the keys of a lease", part, due, newest=False)
            gone = [
                line.path for line, node in zip(part, reply.results, strict=True) if isinstance(node, Failed)
            ]
            lease.paths.difference_update(gone)
        if (size := lease.bytes) > LEASE_BYTES_MAX:
            lease.paths.difference_update(paths)
            raise LimitReached(
                f"found {size} bytes of key names under lease {lease.id}; its end names them all in one "
                f"packet between the servers, which takes {LEASE_BYTES_MAX}. Use several leases."
            )

    def free(self, paths: list[str]) -> None:
        """These nodes are under no lease any more."""
        for lease in self._known().values():
            lease.paths.difference_update(paths)

    async def close(self) -> None:
        """End every lease of this handle now."""
        leases = list(self._known().values())
        self._known().clear()
        await asyncio.gather(*(lease.link.close() for lease in leases))

    async def _holder(self, opened: Opened, lease: str, due: float) -> str | None:
        """Who has a lease that is not ours, None where it is over, or was ours and is by our clock."""
        if not lease or "/" in lease:
            return None
        path = opened.tree.lease(lease)
        reply = await opened.read("looking up a lease", [wire.get(path)], due, newest=True)
        node = reply.results[0]
        if isinstance(node, Failed) or not isinstance(node, Node):
            return None
        try:
            who = json.loads(node.data)
            if who["handle"] == self._handle:
                return None
            return f"{who['host']}, pid {who['pid']}"
        except (ValueError, KeyError, TypeError):
            return "another process"

    def _known(self) -> dict[str, Lease]:
        if self._pid != os.getpid():
            self._leases, self._pid, self._handle = {}, os.getpid(), ""
        self._handle = self._handle or clock.unique_id()
        return self._leases

    def _watch(self, lease: Lease) -> None:
        """End it when its time is over: its keys go then, if the server can be told."""
        left = lease.deadline - clock.lease_now()
        if lease.link.over is not None:
            left = 0.0
        if self._pid != os.getpid() or lease.id not in self._known():
            return
        loop = asyncio.get_running_loop()
        if left > 0:
            loop.call_later(left + 0.001, self._watch, lease, context=clock.detached())
            return
        del self._known()[lease.id]
        if lease.link.over is None:
            lease.link.hang_up()


def _foreign(lease: str, who: str) -> ConfigurationError:
    return ConfigurationError(
        f"lease {lease} was granted to {who}. On ZooKeeper a lease is a session, and only the handle that "
        "was granted it can write under it, renew it or end it. Grant one here."
    )
