"""Moving: the epoch of a store in a file, and the note that stops its writers.

A ledger with a cover. On the cover stands the year of the book, and sometimes a slip: "closed, go on in the
blue one". The slip lies in the book itself, so every clerk in every process reads it before writing a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engines.sqlite import ledger

if TYPE_CHECKING:
    from atoll.engines.sqlite.store import SqliteStore


class SqliteMoving:
    """What `atoll store` does to a store in a file. The note is judged inside every transaction."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def bump(self, above: int = 0) -> int:
        return await self._store.write(lambda connection: ledger.bump(connection, above))

    async def freeze(self, note: str | None) -> None:
        await self._store.write(lambda connection: ledger.freeze(connection, note))

    async def frozen(self) -> str | None:
        return await self._store.read(ledger.frozen)
