"""Moving: the epoch raised, and the store closed to writers and opened again; each a line in the log.

The notary's stamp on a ledger that was carried to another house: from here on, numbers of before count as
old. It is stamped on the page itself, so no copy of the ledger goes without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engines.raft.command import Bump, Ended, Freeze, Raised

if TYPE_CHECKING:
    from atoll.engines.raft.store import RaftStore


class RaftMoving:
    """What `atoll store` does to a raft store."""

    def __init__(self, store: RaftStore) -> None:
        self._store = store

    async def bump(self, above: int = 0) -> int:
        """See the port."""
        raised: Raised = await self._store.write(Bump(above), Raised)
        return raised.epoch

    async def freeze(self, note: str | None) -> None:
        await self._store.write(Freeze(note), Ended)

    async def frozen(self) -> str | None:
        return (await (await self._store.attached()).card(fresh=True)).frozen
