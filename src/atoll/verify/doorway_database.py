"""Doorways for databases: a porter for transactions, branches, and what happens inside them.

The wrapped database hands out its own native transactions, so the user's SQL is as ever; only the verbs
of the ports go past the door. A transaction is remembered while it is open, so that the blocks, which
find the Joined of a bare transaction by asking, find the one behind this door.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

from atoll.ports import joined as joined_port
from atoll.ports.broker import Message
from atoll.ports.joined import Database, Joined, Relaying, Schema, Staged
from atoll.ports.participant import (
    Branch,
    Finished,
    InDoubt,
    Outcome,
    Participant,
    ParticipantClaims,
    Vote,
)
from atoll.ports.store import Token
from atoll.verify.doorway import Call, Doorway


class DoorwayDatabase:
    """A Database whose calls pass `door`."""

    def __init__(self, inner: Database, door: Doorway) -> None:
        self._inner = inner
        self._door = door
        self._open: list[Any] = []
        self._joined = DoorwayJoined(inner.joined, door)
        joined_port.register(self._adapt)

    def __repr__(self) -> str:
        return f"<{self._door!r} -> {self._inner!r}>"

    def _adapt(self, tx: object) -> Joined | None:
        return self._joined if any(tx is known for known in self._open) else None

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def url(self) -> str:
        """Where it is, as its engine says; the name where it does not."""
        return str(getattr(self._inner, "url", self._inner.name))

    @property
    def joined(self) -> Joined:
        return self._joined

    @property
    def relaying(self) -> Relaying:
        return DoorwayRelaying(self._inner.relaying, self._door)

    @property
    def participant(self) -> Participant | None:
        inner = self._inner.participant
        return None if inner is None else DoorwayParticipant(inner, self._door, self._open)

    @property
    def schema(self) -> Schema:
        return self._inner.schema

    async def open(self) -> None:
        await self._door.call(Call(verb="open"), self._inner.open)

    async def close(self) -> None:
        await self._inner.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def read(self) -> AbstractAsyncContextManager[Any]:
        return self._inner.read()

    def begin(self) -> AbstractAsyncContextManager[Any]:
        return self._begin()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[Any]:
        inner = self._inner.begin()
        tx = await self._door.call(Call(verb="transaction"), inner.__aenter__)
        self._open.append(tx)
        asked = False

        async def commit() -> None:
            nonlocal asked
            asked = True
            await inner.__aexit__(None, None, None)

        try:
            yield tx
            await self._door.call(Call(verb="commit"), commit)
        except BaseException:
            if asked or not await inner.__aexit__(*sys.exc_info()):
                raise
        finally:
            _forget(self._open, tx)


class DoorwayJoined:
    """The Joined of a DoorwayDatabase; its transactions are the engine's own."""

    def __init__(self, inner: Joined, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def once(self, tx: Any, scope: str, id: str) -> bool:
        call = Call(verb="joined-once", subjects=(scope, id))
        return await self._door.call(call, lambda: self._inner.once(tx, scope, id))

    async def fence(self, tx: Any, resource: str, token: Token) -> None:
        call = Call(verb="joined-fence", subjects=(resource,))
        await self._door.call(call, lambda: self._inner.fence(tx, resource, token))

    async def put(self, tx: Any, queue: str, messages: Sequence[Message]) -> None:
        call = Call(verb="joined-put", subjects=(queue,))
        await self._door.call(call, lambda: self._inner.put(tx, queue, messages))

    def schema(self) -> str:
        return self._inner.schema()


class DoorwayRelaying:
    """The relaying half of a DoorwayDatabase."""

    def __init__(self, inner: Relaying, door: Doorway) -> None:
        self._inner = inner
        self._door = door

    async def staged(self, limit: int, *, claim_s: float, queues: Sequence[str]) -> Sequence[Staged]:
        return await self._door.call(
            Call(verb="staged"), lambda: self._inner.staged(limit, claim_s=claim_s, queues=queues)
        )

    async def forget(self, positions: Sequence[int]) -> None:
        call = Call(verb="forget", subjects=tuple(str(p) for p in positions))
        await self._door.call(call, lambda: self._inner.forget(positions))

    async def waiting(self) -> tuple[int, float]:
        return await self._door.call(Call(verb="waiting"), self._inner.waiting)

    async def queues(self) -> Sequence[str]:
        return await self._door.call(Call(verb="queues"), self._inner.queues)


class DoorwayParticipant:
    """A Participant whose calls, and those of its branches, pass `door`."""

    def __init__(self, inner: Participant, door: Doorway, open_transactions: list[Any]) -> None:
        self._inner = inner
        self._door = door
        self._open = open_transactions

    def __repr__(self) -> str:
        return f"<{self._door!r} -> {self._inner!r}>"

    @property
    def name(self) -> str:
        return self._inner.name

    async def open(self) -> ParticipantClaims:
        return await self._door.call(Call(verb="open"), self._inner.open)

    async def begin(self, id: str) -> Branch:
        branch = await self._door.call(
            Call(verb="begin", subjects=(id,), id=id), lambda: self._inner.begin(id)
        )
        self._open.append(branch.tx)
        return DoorwayBranch(branch, self._door, self._open)

    async def finish(self, id: str, outcome: Outcome) -> Finished:
        call = Call(verb=f"finish-{outcome.value}", subjects=(id,), id=id)
        return await self._door.call(call, lambda: self._inner.finish(id, outcome))

    async def in_doubt(self, prefix: str = "") -> Sequence[InDoubt]:
        call = Call(verb="in_doubt", subjects=(prefix,))
        return await self._door.call(call, lambda: self._inner.in_doubt(prefix))


class DoorwayBranch:
    """A Branch whose calls pass `door`; `tx` is the database's own."""

    def __init__(self, inner: Branch, door: Doorway, open_transactions: list[Any]) -> None:
        self._inner = inner
        self._door = door
        self._open = open_transactions

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def tx(self) -> Any:
        return self._inner.tx

    async def prepare(self) -> Vote:
        tx = self._inner.tx
        call = Call(verb="prepare", subjects=(self.id,), id=self.id)
        try:
            return await self._door.call(call, self._inner.prepare)
        finally:
            _forget(self._open, tx)

    async def abort(self) -> None:
        tx = self._inner.tx
        call = Call(verb="abort", subjects=(self.id,), id=self.id)
        try:
            await self._door.call(call, self._inner.abort)
        finally:
            _forget(self._open, tx)


def _forget(transactions: list[Any], tx: Any) -> None:
    transactions[:] = [known for known in transactions if known is not tx]
