"""Format: which of Atoll's parts lie in this file, and in which edition.

A label on each drawer. A newer Atoll may have rearranged a drawer; an older one that cannot read the
label leaves it shut rather than guess. Drawers of other people in the same chest are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw

from atoll.engines.sqlite.place import nothing_of_ours
from atoll.errors import FormatRefused, NotSent

_TABLE = (
    "CREATE TABLE IF NOT EXISTS atoll_format (part TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID"
)


def ensure(
    connection: apsw.Connection,
    part: str,
    number: int,
    ddl: Sequence[str],
    upgrades: Mapping[int, Sequence[str]] | None = None,
    *,
    create: bool = True,
) -> None:
    """Make `part`'s tables in format `number`, or check that they are. Call it inside a write.

    `upgrades[n]` holds the statements that bring format n to n + 1. Raises FormatRefused for a format
    above `number`, and for one below it that no upgrade leads out of; NotSent when there is none to
    read and `create` is false.
    """
    found = read(connection, part)
    if found == number:
        return
    if found is None:
        if not create:
            raise NotSent(nothing_of_ours(connection.filename))
        connection.execute(_TABLE)
        for statement in ddl:
            connection.execute(statement)
    elif found > number:
        raise FormatRefused(
            f"found format {found} of the {part} in {connection.filename}; this Atoll reads up to {number}. "
            "The file was written by a newer one: upgrade here too, or name another file."
        )
    else:
        for step in range(found, number):
            if step not in (upgrades or {}):
                raise FormatRefused(
                    f"found format {found} of the {part} in {connection.filename}; this Atoll reads {number} "
                    f"and knows no way from {step}. Open it once with the release before this one."
                )
            for statement in (upgrades or {})[step]:
                connection.execute(statement)
    connection.execute(
        "INSERT INTO atoll_format VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET number = excluded.number",
        (part, number),
    )


def read(connection: apsw.Connection, part: str) -> int | None:
    """The format of `part` in this file, None where it was never made."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'atoll_format'").get is None:
        return None
    number = connection.execute("SELECT number FROM atoll_format WHERE part = ?", (part,)).get
    return None if number is None else int(number)
