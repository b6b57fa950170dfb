"""Moving: the epoch raised, and the store closed to writers and opened again.

The notary's stamp on a ledger that was carried to another house: from here on, numbers of before count as
old.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from atoll.engines.etcd.card import Card

if TYPE_CHECKING:
    from atoll.engines.etcd.attachment import Attachment
    from atoll.engines.etcd.store import EtcdStore


class EtcdMoving:
    """What `atoll store` does to an etcd store: three verbs on its card."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    async def bump(self, above: int = 0) -> int:
        """See the port. The cluster as it is now is the one the card speaks of from then on."""

        def raise_it(card: Card, header: Any) -> Card:
            return replace(card.noted(header), epoch=max(card.epoch, above) + 1)

        async def question(at: Attachment) -> int:
            card = await at.change("the bump", raise_it)
            at.memory.forget(await at.fresh("the bump"))
            at.doubt = None
            return card.epoch

        return await self._store.asked(question)

    async def freeze(self, note: str | None) -> None:
        async def question(at: Attachment) -> None:
            await at.change("the freeze", lambda card, header: replace(card, frozen=note))

        await self._store.asked(question)

    async def frozen(self) -> str | None:
        async def question(at: Attachment) -> str | None:
            await at.fresh("the question whether it is frozen")
            return at.card.frozen

        return await self._store.asked(question)
