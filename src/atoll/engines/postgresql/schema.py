"""Schema: Atoll's tables on PostgreSQL, in a schema of their own, made when somebody says so.

A landlord's permit. Nobody moves walls because a guest arrived; `atoll schema` is the day on which the
tables are made, once, by a user who may, and a guest who finds none says what to type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.parts.call import left_s
from atoll.engines.postgresql import ddl, joined_sql
from atoll.engines.postgresql.joined_sql import Script
from atoll.errors import FormatRefused

if TYPE_CHECKING:
    from atoll.engines.postgresql.transaction import Source

# part -> its format number. A release that changes its tables raises it.
PARTS = {joined_sql.PART: joined_sql.FORMAT, ddl.PART: ddl.FORMAT}


class PostgresSchema:
    """What `atoll schema` prints and makes."""

    def __init__(self, pool: Source, where: str, wait_s: float) -> None:
        self._pool, self._where, self._wait_s = pool, where, wait_s

    def text(self) -> str:
        """The SQL; running it again changes nothing."""
        everything = ";\n\n".join((*ddl.statements(), *joined_sql.statements()))
        return f"BEGIN;\n\n{everything};\n\nCOMMIT;\n\n{ddl.GRANTS}"

    async def make(self) -> Sequence[str]:
        """Make what is missing, in one transaction; answers the names of the tables that were made."""
        left = left_s("CREATE TABLE", self._wait_s)
        with clock.deadline(left):
            await self._pool.open(left)
            async with self._pool.begin(left) as tx:
                return await self._pool.play(tx, make(self._where))


def make(where: str) -> Script[list[str]]:
    """Every part that is not there; a part from a newer Atoll is left alone, and so is everything then."""
    yield ddl.statements()[0], ()  # two that make the tables at once take turns
    before = yield from _tables()
    if before:
        yield from _expect_known(where)
    for statement in (*ddl.statements(), *joined_sql.statements()):
        yield statement, ()
    after = yield from _tables()
    return [name for name in after if name not in before]


def _tables() -> Script[list[str]]:
    rows = yield (
        "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
        "ON n.oid = c.relnamespace WHERE n.nspname = 'atoll' AND c.relkind = 'r' ORDER BY 1",
        (),
    )
    return [f"atoll.{row[0]}" for row in rows]


def _expect_known(where: str) -> Script[None]:
    rows = yield "SELECT part, number FROM atoll.format", ()
    for part, number in rows:
        if part in PARTS and number > PARTS[part]:
            raise FormatRefused(
                f"{where}: its {part} tables have format {number}, and this Atoll makes {PARTS[part]}. A "
                "newer Atoll made them; upgrade this one. Nothing was changed."
            )
