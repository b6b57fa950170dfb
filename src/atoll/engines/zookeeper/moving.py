"""Moving: the epoch, and the sign on the door while a store is carried elsewhere.

Both stand in one node, and every transaction checks that node's version: whoever read an older sign is sent
back to read it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from atoll.engines.zookeeper import wire
from atoll.engines.zookeeper.opened import Meta, Opened
from atoll.engines.zookeeper.wire import Failed
from atoll.errors import Overloaded

if TYPE_CHECKING:
    from atoll.engines.zookeeper.store import ZookeeperStore

_TRIES = 20


class ZookeeperMoving:
    """What `atoll store` does to a store on ZooKeeper."""

    def __init__(self, store: ZookeeperStore) -> None:
        self._store = store

    async def bump(self, above: int = 0) -> int:
        """See the port. What this handle has seen of the servers' data is accepted as it is now."""
        opened, meta, zxid = await self._change(lambda meta: replace(meta, epoch=max(meta.epoch, above) + 1))
        opened.noted.accept(meta, zxid)
        return meta.epoch

    async def freeze(self, note: str | None) -> None:
        await self._change(lambda meta: replace(meta, frozen=note))

    async def frozen(self) -> str | None:
        opened = await self._store.opened()
        return (await opened.refresh(self._store.due("reading the note"))).frozen

    async def _change(self, change: Callable[[Meta], Meta]) -> tuple[Opened, Meta, int]:
        opened, what = await self._store.opened(), "changing the store"
        due = self._store.due(what)
        for _ in range(_TRIES):
            meta = await opened.refresh(due)
            new = change(meta)
            lines = [
                wire.set_data(opened.tree.meta, new.packed(), meta.version),
                wire.set_data(opened.tree.counter, b""),
            ]
            reply = await opened.write(what, lines, due)
            if not any(isinstance(result, Failed) for result in reply.results):
                opened.meta = replace(new, version=meta.version + 1)
                return opened, opened.meta, reply.zxid
        raise Overloaded(f"{what} on {opened.url} met others who changed it {_TRIES} times. Ask again.")
