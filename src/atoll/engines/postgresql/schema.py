"""Schema: Atoll's tables on PostgreSQL, in a schema of their own, made when somebody says so.

A landlord's permit. Nobody moves walls because a guest arrived; `atoll schema` is the day on which the
tables are made, once, by a user who may, and a guest who finds none says what to type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atoll.engines.parts.call import answered
from atoll.engines.postgresql import joined_sql
from atoll.engines.postgresql.joined_sql import FORMATS, SCHEMA, Script
from atoll.errors import FormatRefused

if TYPE_CHECKING:
    from atoll.engines.postgresql.pool import Pool

# part -> its format number and its tables. A release that changes one raises its number.
PARTS: dict[str, tuple[int, Sequence[str]]] = {joined_sql.PART: (joined_sql.FORMAT, joined_sql.TABLES)}
GATE = 0x61746F6C6C  # "atoll": two that make the tables at once take turns


class PostgresSchema:
    """What `atoll schema` prints and makes."""

    def __init__(self, pool: Pool, where: str, wait_s: float) -> None:
        self._pool, self._where, self._wait_s = pool, where, wait_s

    def text(self) -> str:
        """The SQL; running it again changes nothing."""
        notes = [
            f"INSERT INTO atoll.format (part, number) VALUES ('{part}', {number}) ON CONFLICT DO NOTHING"
            for part, (number, _) in PARTS.items()
        ]
        tables = [table for _, tables in PARTS.values() for table in tables]
        return ";\n\n".join((SCHEMA, FORMATS, *tables, *notes)) + ";\n"

    async def make(self) -> Sequence[str]:
        """Make what is missing, in one transaction; answers the names of the tables that were made."""
        await self._pool.open(self._wait_s)

        async def send(left: float) -> list[str]:
            async with self._pool.begin(min(left, self._wait_s)) as tx:
                return await self._pool.play(tx, make(self._where))

        return await answered("CREATE TABLE", self._where, self._wait_s, send)


def make(where: str) -> Script[list[str]]:
    """Every part that is not there; a part from a newer Atoll is left alone, and so is everything then."""
    yield f"SELECT 1 FROM pg_advisory_xact_lock({GATE})", ()
    before = yield from _tables()
    if before:
        yield from _expect_known(where)
    yield SCHEMA, ()
    yield FORMATS, ()
    for part, (number, tables) in PARTS.items():
        for table in tables:
            yield table, ()
        yield (
            "INSERT INTO atoll.format (part, number) VALUES ($1::text, $2::int) ON CONFLICT DO NOTHING",
            (part, number),
        )
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
        if part in PARTS and number > PARTS[part][0]:
            raise FormatRefused(
                f"{where}: its {part} tables have format {number}, and this Atoll makes {PARTS[part][0]}. A "
                "newer Atoll made them; upgrade this one. Nothing was changed."
            )
