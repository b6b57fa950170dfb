"""Stores that are broken on purpose, each in one way that a checker must catch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from atoll import clock
from atoll.errors import NotSent
from atoll.ports.register import Applied, Got, Unmet
from atoll.ports.store import Bookmark, Change, Compare, Guard, Operation
from atoll.verify.history import History
from atoll.verify.judgement import Judgement
from atoll.verify.tray import Budget, Tray
from atoll.verify.worker import Part, play
from atoll.verify.workloads import WORKLOADS


async def judged(workload: str, handle: Any, *, seconds: float = 0.6, ttl_s: float = 0.2) -> Judgement:
    """What the checker says of a workload played here on this store."""
    book = History()
    part = Part(
        url="",
        workload=workload,
        process="a",
        prefix=f"broken-{clock.unique_id()[:8]}/",
        seed=7,
        until=clock.lease_now() + seconds,
        ttl_s=ttl_s,
        clients=4,
        path="",
    )
    async with handle:  # memory lives as long as it is open
        await play(part, book, handle)
        if WORKLOADS[workload].finish is not None:
            await play(replace(part, finishing=True, clients=1, until=clock.lease_now() + 5), book, handle)
    return WORKLOADS[workload].judge(book, None)


class Broken(Tray):
    """A wrapper that changes nothing yet; `dice` decide when it does."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, None, Budget())
        self.dice = random.Random(5)

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)


class LaggingReplica(Broken):
    """Reads come from a copy that is a little behind."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.copies: dict[str, Got] = {}

    async def get(self, key: str) -> Got:
        newest = await self.inner.get(key)
        if key in self.copies and self.dice.random() < 0.2:
            return self.copies[key]
        self.copies[key] = newest
        return newest


class AnswersLostAreCalledNotSent(Broken):
    """Where the answer is lost it says that nothing happened."""

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        answer = await self.inner.transact(*then, compare=compare, guard=guard, request_id=request_id)
        if then and self.dice.random() < 0.05:
            raise NotSent("connection reset by peer")
        return answer


class GuardBeforeTheTransaction(Broken):
    """It looks whether the guard holds, and then writes: two steps where one is needed."""

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        if guard is not None:
            await self.inner.transact(guard=guard)
            if self.dice.random() < 0.2:
                await self._frozen(guard)
        return await self.inner.transact(*then, compare=compare, request_id=request_id)

    async def _frozen(self, guard: Guard) -> None:
        """As long as it takes for the lease to end and another to hold."""
        owner = (await self.inner.get(guard.owner_key)).entry
        if owner is not None and owner.lease is not None and self.inner.leasing is not None:
            await self.inner.leasing.revoke(owner.lease)
        await asyncio.sleep(0.03)


class _Skipping:
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen = 0

    async def now(self) -> Bookmark:
        found: Bookmark = await self.inner.now()
        return found

    async def changes(self, prefix: str, after: Bookmark) -> AsyncIterator[Change]:
        async for item in self.inner.changes(prefix, after):
            self.seen += 1
            if self.seen % 9:
                yield item


class AGapInTheChanges(Broken):
    """Every ninth change is not told."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._skipping = _Skipping(inner.history)

    @property
    def history(self) -> Any:
        return self._skipping
