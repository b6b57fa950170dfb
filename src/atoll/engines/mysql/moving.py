"""Moving: the epoch, the note that stops writers, and which server and tables both were written on.

A lighthouse log begins with the name of the lighthouse. Whoever finds the log in another tower reads it, and
lights no lamp by it until the keeper has signed the new name in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engines.mysql.script import hexed

if TYPE_CHECKING:
    from atoll.engines.mysql.store import MysqlStore


class MysqlMoving:
    """What `atoll store` does to a store in MariaDB or MySQL. The note is judged inside every transaction."""

    def __init__(self, store: MysqlStore) -> None:
        self._store = store

    async def bump(self, above: int = 0) -> int:
        await self._store.fresh()
        answered = await self._store.ask(
            "a bump",
            (
                "START TRANSACTION",
                "SELECT one FROM atoll_counter WHERE one=1 FOR UPDATE",
                f"UPDATE atoll_counter SET epoch=GREATEST(epoch,{int(above)})+1,incarnation=@here "
                "WHERE one=1",
                "SELECT epoch FROM atoll_counter WHERE one=1",
                "COMMIT",
            ),
            commits=4,
        )
        return int(answered[3][0][0])

    async def freeze(self, note: str | None) -> None:
        text = "NULL" if note is None else hexed(note)
        await self._store.ask("a freeze", (f"UPDATE atoll_counter SET frozen={text} WHERE one=1",), commits=1)

    async def frozen(self) -> str | None:
        head, _ = await self._store.look("a look at the note")
        return head.frozen
