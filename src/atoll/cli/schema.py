"""atoll schema: Atoll's tables in a database of yours, made once because you said so.

Nothing else makes tables on a server. `--print` is for a migration or for whoever guards the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import Protocol, cast

from atoll import urls
from atoll.cli import named
from atoll.ports.joined import Schema


class Place(Protocol):
    """A database, or a store, that keeps tables of ours on a server."""

    @property
    def schema(self) -> Schema: ...
    async def close(self) -> None: ...


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's words."""
    parser.add_argument(
        "database", metavar="URL|@NAME", help="the database: postgresql://..., sqlite:///..., mysql://..."
    )
    parser.add_argument(
        "--print",
        action="store_true",
        dest="only_print",
        help="print the SQL; connect to nothing, make nothing",
    )


def run(options: argparse.Namespace) -> int:
    """Make what is missing, in one transaction; 0 also when nothing was."""
    database = _place(named.url(options.database))
    if options.only_print:
        text = database.schema.text()
        print(json.dumps({"sql": text}) if options.json else text, end="\n" if options.json else "")
        return 0
    made = asyncio.run(_make(database))
    where = repr(database).removeprefix("<Database ").removeprefix("<Store ").removesuffix(">")
    if options.json:
        print(json.dumps({"database": where, "made": list(made)}))
    elif made:
        print(f"{where}: made {', '.join(made)}")
    else:
        print(f"{where}: nothing to make, Atoll's tables are there")
    return 0


def _place(url: str) -> Place:
    """The database that `url` names; where it names only a store, the store, if that one has tables."""
    scheme = urls.parse(url).scheme
    doors = urls.ENGINES.get(scheme) or urls.strangers(scheme)
    if "store" in doors and "database" not in doors:
        store = urls.store(url)
        if hasattr(store, "schema"):
            return cast("Place", store)
    return urls.database(url)


async def _make(database: Place) -> Sequence[str]:
    try:
        return await database.schema.make()
    finally:
        await database.close()
