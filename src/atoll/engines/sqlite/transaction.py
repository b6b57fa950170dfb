"""A transaction on a SQLite database, in the user's hands.

The counter is yours until you leave it: you may look, think, ask elsewhere, write. Everything you wrote
happens when you leave in good order, and nothing of it when you do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atoll.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    import apsw

    from atoll.engines.sqlite.session import Session

    T = TypeVar("T")

Parameters = Sequence[Any] | Mapping[str, Any]


class SqliteTransaction:
    """An open transaction; `database.begin()` gives it, and commits it or rolls it back.

    Errors in your SQL (a constraint, a misspelt column) come as apsw raises them, and the transaction goes on
    if you catch them. Waiting for a rival ends in Conflict; a full disk in DiskFull.
    """

    def __init__(self, session: Session, name: str, *, ceiling_s: float = 60.0) -> None:
        self._session = session
        self._ceiling_s = ceiling_s
        self.name = name
        self.over = False

    def __repr__(self) -> str:
        return f"<SqliteTransaction on {self.name}{', over' if self.over else ''}>"

    @property
    def connection(self) -> apsw.Connection:
        """The native connection. Work on it inside `run`, not from the event loop's thread."""
        return self._session.connection

    async def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement, answer its rows."""
        return await self.run(lambda connection: list(connection.execute(sql, parameters)))

    async def executemany(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement once for each of `rows`."""
        many = list(rows)

        def work(connection: apsw.Connection) -> None:
            for _ in connection.executemany(sql, many):
                pass

        await self.run(work)

    async def run(self, work: Callable[[apsw.Connection], T]) -> T:
        """`work(connection)` on the transaction's own thread: several statements in one hop."""
        if self.over:
            raise ConfigurationError(
                f"the transaction on {self.name} has ended; its block was left. Begin another with "
                "`async with database.begin() as tx`."
            )

        def guarded(connection: apsw.Connection) -> T:
            if not connection.in_transaction:
                raise Conflict(
                    f"SQLite rolled the transaction on {self.name} back by itself after an error before. "
                    "Nothing of it was written; leave the block and begin again."
                )
            return work(connection)

        return await self._session.run(guarded, ceiling_s=self._ceiling_s)
