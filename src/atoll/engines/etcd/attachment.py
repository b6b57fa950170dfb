"""Attachment: one event loop's line to the cluster, and what was learnt of the cluster when it was made.

A new clerk's first morning. They ring every member of the council, make sure that it is one council, look at
the card in the ledger, write the first one if there is none, and then ask whoever leads.
"""

from __future__ import annotations

import asyncio
from typing import Any

from atoll import clock
from atoll.engines.etcd import card as cards
from atoll.engines.etcd import endpoint as endpoints
from atoll.engines.etcd import wire
from atoll.engines.etcd.call import Ended
from atoll.engines.etcd.card import Card, Memory
from atoll.engines.etcd.client import AGAIN_S, Client
from atoll.engines.etcd.endpoint import Endpoint
from atoll.engines.etcd.keys import Keys
from atoll.engines.etcd.options import EtcdOptions
from atoll.engines.etcd.translation import Failure, Verdict, failure, raised
from atoll.engines.etcd.watch import Watcher
from atoll.engines.parts.call import left_s
from atoll.errors import ConfigurationError, EpochUncertain
from atoll.ports.address import Address

GRACE_S = 0.2
"""How long the other members have to be heard once the first has answered."""


class Attachment:
    """`card`: the newest one seen. `doubt`: why the cluster may not be the one it was written on."""

    def __init__(self, address: Address, options: EtcdOptions, keys: Keys, memory: Memory) -> None:
        self.url, self.keys, self.memory = str(address), keys, memory
        tls = endpoints.context(options, tls=address.scheme == "etcds")
        doors = [Endpoint(host, port, tls) for host, port in address.hosts]
        self.client = Client(self.url, doors, ceiling_s=options.ceiling_s, attempt_s=options.attempt_s)
        self.client.user, self.client.password = address.user, address.password
        self.client.meta = keys.meta
        self.client.entering = self._entering
        self.watcher = Watcher(self, options.liveness_s)
        self.card = Card(0, 0, 0)
        self.doubt: str | None = None
        self.request_lease = 0
        self.request_lease_until = 0.0
        self.leasing = asyncio.Lock()

    def certain(self) -> None:
        """Raise EpochUncertain where tokens of this store might not rise."""
        if self.doubt is not None:
            raise EpochUncertain(
                f"{self.url} may have gone back in time: {self.doubt}. Tokens could repeat, so exclusive "
                f"use is "
                f"refused. When it is meant to be so: atoll store bump {self.url}"
            )

    async def survey(self) -> None:
        """Hear the members, refuse two clusters, ask the leader first from now on, and enter there."""
        what = "the first question"
        due = clock.loop_now() + left_s(what, self.client.ceiling_s)
        while True:
            heard, failed = await self._hear(due)
            if heard:
                break
            if clock.loop_now() + AGAIN_S >= due:
                raise raised(failed, what, self.url)
            await asyncio.sleep(AGAIN_S)
        clusters = {status.header.cluster_id: endpoint.address for endpoint, status in heard}
        if len(clusters) > 1:
            found = " and ".join(f"{address} is of {id:x}" for id, address in clusters.items())
            raise ConfigurationError(
                f"found two clusters behind one URL: {found}. Name the members of one cluster in {self.url}."
            )
        leader = next((e for e, status in heard if status.header.member_id == status.leader), heard[0][0])
        self.client.prefer(leader)
        await self.client.read("Range", wire.message("RangeRequest", key=self.keys.meta), what)

    async def _hear(self, due: float) -> tuple[list[tuple[Endpoint, Any]], Failure]:
        """Who answers, and what the last of the others said."""
        timeout = max(0.001, min(due - clock.loop_now(), self.client.attempt_s))

        async def ask(endpoint: Endpoint) -> tuple[Endpoint, Any]:
            return endpoint, await endpoint.ask("Status", b"", timeout)

        waiting = {asyncio.create_task(ask(endpoint)): endpoint for endpoint in self.client.endpoints}
        pending = set(waiting)
        heard: list[tuple[Endpoint, Any]] = []
        failed: Failure | None = None
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=GRACE_S if heard else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    error = task.exception()
                    if error is None:
                        heard.append(task.result())
                    elif isinstance(error, Ended):
                        failed = failure(error, waiting[task].address)
                    else:
                        raise error
        finally:
            for task in pending:
                task.cancel()
        return heard, failed or Failure(Verdict.NEVER_SENT, "no answer", self.url)

    async def _entering(self, endpoint: Endpoint, answer: Any, timeout: float) -> None:
        """Compare the cluster behind a door with the card; write the card if there is none."""
        header, found = answer.header, answer.kvs
        while not found:
            epoch = max(1, self.card.epoch)
            first = Card(epoch, header.cluster_id, header.raft_term)
            written = await self._replace(endpoint, 0, first, timeout)
            found = None if written.succeeded else written.responses[0].response_range.kvs
            if written.succeeded:
                self.card = Card(epoch, first.cluster, first.term, None, written.header.revision)
                break
        else:
            self.card = cards.read(found[0], self.url)
        self.doubt = self.memory.doubt(self.card, header)
        if self.doubt is None:
            self.memory.see(header)
            if header.raft_term > self.card.term:
                await self._note(endpoint, header, timeout)

    async def _note(self, endpoint: Endpoint, header: Any, timeout: float) -> None:
        """Enter the newer raft term on the card; whoever may not write leaves it to others."""
        newer = self.card.noted(header)
        try:
            written = await self._replace(endpoint, self.card.revision, newer, timeout)
        except Ended:
            return
        if written.succeeded:
            self.card = Card(newer.epoch, newer.cluster, newer.term, newer.frozen, written.header.revision)

    async def _replace(self, endpoint: Endpoint, revision: int, card: Card, timeout: float) -> Any:
        data = cards.replacing(self.keys.meta, revision, card)
        return await endpoint.ask("Txn", data, timeout, self.client.token or "")

    async def fresh(self, what: str) -> Any:
        """The newest card, read now; answers the header it came with."""
        answer = await self.client.read("Range", wire.message("RangeRequest", key=self.keys.meta), what)
        if answer.kvs:
            self.card = cards.read(answer.kvs[0], self.url)
        self.doubt = self.memory.doubt(self.card, answer.header)
        return answer.header

    async def change(self, what: str, decide: Any) -> Card:
        """Put `decide(card, header)` in the card's place, whoever else may be changing it."""
        while True:
            header = await self.fresh(what)
            newer = decide(self.card, header)
            data = cards.replacing(self.keys.meta, self.card.revision, newer)
            answer = await self.client.write("Txn", data, what)
            if answer.succeeded:
                self.card = Card(newer.epoch, newer.cluster, newer.term, newer.frozen, answer.header.revision)
                self.memory.see(answer.header)
                return self.card

    async def close(self) -> None:
        """End the stream of news and hang up."""
        await self.watcher.close()
        self.client.close()
