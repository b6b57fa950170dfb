"""atoll transactions: which are in doubt and why, and how others ended.

    atoll transactions                       the app's, by its atoll.toml or ATOLL_... variables
    atoll transactions show app/1-5f0c1a2b3c4d-17   one, by the id that OutcomeUnknown carries

Reads and changes nothing. Exit code 1: something is in doubt (or, for `show`, it was aborted), 4: not known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from atoll import urls
from atoll.blocks import decision
from atoll.blocks.presence import Presences
from atoll.blocks.recovery import Recovery
from atoll.cli import named
from atoll.cli.numbers import whole
from atoll.errors import ConfigurationError
from atoll.ports.store import Store

YES, NO, NOT_KNOWN = 0, 1, 4
_PAGE = 500
GRACE_S, RETENTION_S = 5.0, 7 * 86400.0
"""The defaults of Transactions: here they only say whether one is parked."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument("words", nargs="*", metavar="[show ID] [URL|@NAME]", help="default: @state")
    parser.add_argument(
        "--database",
        action="append",
        default=[],
        metavar="URL|@NAME",
        help="where branches may wait; repeat it (default: [databases] of atoll.toml)",
    )
    parser.add_argument("--app", default="", help="only those of Transactions(..., app=APP)")
    parser.add_argument("--last", type=whole(0), default=20, metavar="N", help="how many decisions to list")


def run(options: argparse.Namespace) -> int:
    """Print them."""
    id, place = _words(options.words)
    if id:
        return asyncio.run(_show(id, place, options))
    doubts, ended = asyncio.run(_list(place, options))
    if options.json:
        print(json.dumps({"in_doubt": doubts, "decided": ended}, indent=2))
    else:
        print(_text(doubts, ended))
    return NO if doubts else YES


def _words(words: Sequence[str]) -> tuple[str, str]:
    """(id to show or "", where the decisions are)."""
    rest = list(words)
    id = ""
    if rest and rest[0] == "show":
        if len(rest) < 2:
            raise ConfigurationError(
                "show which? Give the id that the error named: atoll transactions show ID."
            )
        id, rest = rest[1], rest[2:]
    if len(rest) > 1:
        raise ConfigurationError(
            f"found {' '.join(rest)}; expected one URL or @name. atoll transactions --help"
        )
    return id, rest[0] if rest else "@state"


async def _open(stack: AsyncExitStack, place: str, databases: Sequence[str]) -> tuple[Store, Recovery]:
    store = await stack.enter_async_context(urls.store(named.asking(place)))
    known = {} if databases else named.databases()
    opened = [urls.database(named.asking(text)) for text in databases]
    opened += [urls.database(named.asking(url), name=name) for name, url in known.items()]
    for database in opened:
        await stack.enter_async_context(database)
    by_name = {database.name: database for database in opened}
    recovery = Recovery(
        store, by_name, Presences(store, GRACE_S), prefix="", grace_s=GRACE_S, retention_s=RETENTION_S
    )
    return store, recovery


async def _list(place: str, options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    prefix = f"{options.app}/" if options.app else ""
    async with AsyncExitStack() as stack:
        store, recovery = await _open(stack, place, options.database)
        doubts = [
            {
                "id": doubt.id,
                "databases": list(doubt.databases),
                "decision": doubt.decision.value if doubt.decision else None,
                "age_s": round(doubt.age_s, 1),
                "coordinator_lives": doubt.coordinator_lives,
                "holds": doubt.locks,
                "parked": doubt.parked,
            }
            for doubt in await recovery.in_doubt(prefix)
        ]
        return doubts, await _decided(store, prefix, options.last)


async def _decided(store: Store, prefix: str, last: int) -> list[dict[str, Any]]:
    found: list[tuple[float, str, decision.Record]] = []
    start = decision.DECISIONS + prefix
    end = start[:-1] + "0"
    while True:
        page = await store.range(start=start, end=end, limit=_PAGE)
        for entry in page.entries:
            record = decision.read(entry)
            found.append((record.at, entry.key.removeprefix(decision.DECISIONS), record))
        found = sorted(found, key=lambda item: -item[0])[:last]
        if not page.more:
            break
        start = page.entries[-1].key + "\0"
    return [
        {
            "id": id,
            "outcome": record.outcome,
            "databases": list(record.databases),
            "at": at,
            "by": "recovery" if record.taken_by else "coordinator",
        }
        for at, id, record in found
    ]


async def _show(id: str, place: str, options: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        store, recovery = await _open(stack, place, options.database)
        doubts = [doubt for doubt in await recovery.in_doubt(id) if doubt.id == id]
        found = await decision.lookup(store, id)
    outcome = found[0].outcome if found else None
    waiting = list(doubts[0].databases) if doubts else []
    if options.json:
        print(json.dumps({"id": id, "outcome": outcome, "in_doubt_on": waiting}))
    elif found:
        said = "committed" if outcome == "commit" else "aborted"
        tail = f"; {', '.join(waiting)} still to follow" if waiting else ""
        print(f"{id}: {said} at {_when(found[0].at)}{tail}")
    elif waiting:
        print(f"{id}: prepared on {', '.join(waiting)}, not decided")
    else:
        print(
            f"{id}: no decision stands in the store, so it was not committed, unless it is older than "
            "decisions are kept. Name the databases with --database to see whether one still waits."
        )
    if outcome is None:
        return NOT_KNOWN
    return YES if outcome == "commit" else NO


def _text(doubts: list[dict[str, Any]], ended: list[dict[str, Any]]) -> str:
    lines = ["nothing is in doubt"] if not doubts else [_HEAD_DOUBT]
    for one in doubts:
        lives = "lives" if one["coordinator_lives"] else "gone"
        tail = f"   parked: {one['parked']}" if one["parked"] else ""
        lines.append(
            f"{one['id']:<32} {one['age_s']:>6} s  {one['decision'] or 'none yet':<9} {lives:<12} "
            f"{', '.join(one['databases'])}{tail}"
        )
    lines += ["", _HEAD_DECIDED] if ended else []
    for one in ended:
        where = ", ".join(one["databases"])
        lines.append(f"{one['id']:<32} {one['outcome']:<8} {one['by']:<12} {_when(one['at']):<9} {where}")
    return "\n".join(lines)


_HEAD_DOUBT = f"{'IN DOUBT':<32} {'AGE':>8}  {'DECISION':<9} {'COORDINATOR':<12} WAITS ON"
_HEAD_DECIDED = f"{'DECIDED':<32} {'OUTCOME':<8} {'BY':<12} {'AT':<9} DATABASES"


def _when(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
