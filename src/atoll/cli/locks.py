"""atoll locks: who holds and who waits, since when.

Reads the store and changes nothing. Leaders are shown with --elections, by the same columns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

from atoll import urls
from atoll.blocks.lock import Holder, holders
from atoll.cli import named

COLUMNS = ("NAME", "OWNER", "TOKEN", "SINCE", "LEASE LEFT", "WAITING")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument(
        "store",
        nargs="?",
        default="@state",
        metavar="URL|@NAME",
        help="where the locks are (default: @state)",
    )
    parser.add_argument("--elections", action="store_true", help="show who leads instead of who holds locks")


def run(options: argparse.Namespace) -> int:
    """Print them; 0 also when there are none."""
    found = asyncio.run(_read(named.asking(options.store), "election" if options.elections else "lock"))
    if options.json:
        print(json.dumps([_plain(holder) for holder in found], indent=2))
    elif not found:
        print("nobody holds anything, and nobody waits")
    else:
        print(table([_row(holder) for holder in found]))
    return 0


async def _read(url: str, kind: str) -> list[Holder]:
    async with urls.store(url) as store:
        return await holders(store, kind)


def _row(holder: Holder) -> Sequence[str]:
    waiting = str(holder.waiting) if holder.waiting else "-"
    if holder.first_waiting is not None:
        waiting += f", first {holder.first_waiting}{_clock(holder.first_since, ' since ')}"
    return (
        holder.name,
        holder.owner or "(handing over)",
        str(holder.token) if holder.token else "-",
        _clock(holder.since) or "-",
        f"{holder.lease_left_s:.1f} s" if holder.lease_left_s is not None else "-",
        waiting,
    )


def _clock(seconds: float | None, before: str = "") -> str:
    return before + time.strftime("%H:%M:%S", time.localtime(seconds)) if seconds is not None else ""


def _plain(holder: Holder) -> dict[str, object]:
    return {
        "name": holder.name,
        "owner": holder.owner,
        "token": list(holder.token) if holder.token else None,
        "since": holder.since,
        "lease_left_s": holder.lease_left_s,
        "waiting": holder.waiting,
        "first_waiting": holder.first_waiting,
        "first_since": holder.first_since,
    }


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what stands in them."""
    wide = [max(len(row[n]) for row in (COLUMNS, *rows)) for n in range(len(COLUMNS))]
    lines = (
        "   ".join(text.ljust(width) for text, width in zip(row, wide, strict=True))
        for row in (COLUMNS, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)
