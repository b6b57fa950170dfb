"""Moving: the epoch, the note that stops writers, and which server both were written on.

A lighthouse log begins with the name of the lighthouse. Whoever finds the log in another tower reads it, and
lights no lamp by it until the keeper has signed the new name in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engines.postgresql import reading
from atoll.engines.postgresql.functions import LOCK

if TYPE_CHECKING:
    from atoll.engines.postgresql.store import PostgresStore

_ALONE = f"pg_advisory_xact_lock({LOCK})"
_BUMP = f"""UPDATE atoll.counter c
SET epoch = greatest(c.epoch, $1::bigint) + 1, incarnation = atoll.incarnation()
FROM {_ALONE}, pg_notify('atoll', '0') WHERE c.one RETURNING c.epoch"""
_FREEZE = f"UPDATE atoll.counter c SET frozen = $1::text FROM {_ALONE} WHERE c.one RETURNING 1"


class PostgresMoving:
    """What `atoll store` does to a store in PostgreSQL. The note is judged inside every transaction."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def bump(self, above: int = 0) -> int:
        [(epoch,)] = await self._store.ask("a bump", _BUMP, above)
        return int(epoch)

    async def freeze(self, note: str | None) -> None:
        await self._store.ask("a freeze", _FREEZE, note)

    async def frozen(self) -> str | None:
        [(_, _, _, note)] = await self._store.look("a look at the note", reading.EPOCH)
        return None if note is None else str(note)
