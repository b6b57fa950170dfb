"""`atoll locks`: who holds and who waits, since when and why; `atoll locks break NAME` takes it away."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from atoll import urls
from atoll.blocks.breaking import break_lock, breaks
from atoll.blocks.roster import LOCKS, Person, Standing, roster
from atoll.cli import named
from atoll.errors import ConfigurationError, NotReady

COLUMNS = ("NAME", "OWNER", "TOKEN", "SINCE", "LEASE LEFT", "WAITING")
_TITLES = {"lock": "", "election": "", "read_write": "read/write", "semaphore": "semaphore"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.epilog = (
        "atoll locks [URL|@NAME]   who holds, who waits   |   atoll locks break NAME [URL|@NAME]   take it "
        "away   |   atoll locks breaks [URL|@NAME]   what was taken away, by whom"
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="@name or a URL (@state); or: break NAME; or: breaks"
    )
    parser.add_argument("--elections", action="store_true", help="leaders instead of locks; break: a term")
    parser.add_argument("--waiting", action="store_true", help="show everybody who waits, in their order")
    parser.add_argument("--by", default=None, metavar="WHO", help="break: who does it, for the record (you)")
    parser.add_argument("--reason", default="", metavar="TEXT", help="break: why, for the record")
    parser.add_argument(
        "--now", action="store_true", help="break: do not wait until the holder's lease is over; two may hold"
    )
    parser.add_argument("--yes", action="store_true", help="break: without asking")


def run(options: argparse.Namespace) -> int:
    """0, also when there are none; 1 when nothing was broken."""
    match options.words:
        case ["break", name] | ["break", name, _]:
            return asyncio.run(_break(options, name, [*options.words, "@state"][2]))
        case ["breaks"] | ["breaks", _]:
            return asyncio.run(_breaks(options, [*options.words, "@state"][1]))
        case [] | [_]:
            return asyncio.run(_show(options, [*options.words, "@state"][0]))
    raise ConfigurationError(
        f"found {' '.join(options.words)!r}; expected nothing, a URL or @name, `break NAME`, or `breaks`."
    )


async def _show(options: argparse.Namespace, where: str) -> int:
    found = await _read(named.asking(where), ("election",) if options.elections else LOCKS)
    if options.json:
        print(json.dumps([_plain(one) for one in found], indent=2))
    elif not found:
        print("nobody holds anything, and nobody waits")
    else:
        print(text(found, waiting=options.waiting))
    return 0


async def _break(options: argparse.Namespace, name: str, where: str) -> int:
    kind = "election" if options.elections else "lock"
    async with urls.store(named.asking(where)) as store:
        found = [one for one in await roster(store, (kind,)) if one.name == name and one.holders]
        if not found:
            raise NotReady(
                f"nobody holds {name} in {store.url} as a {kind}, so nothing was broken. Read/write "
                "locks and semaphores cannot be broken; they end with their leases. See: atoll locks"
            )
        holder = found[0].holders[0]
        if not options.yes:
            _confirm(name, holder, now=options.now)
        by = options.by or f"{getpass.getuser()} on {socket.gethostname()}"
        notice = await break_lock(store, name, by=by, reason=options.reason, now=options.now, kind=kind)
    if options.json:
        print(json.dumps(msgspec.to_builtins(notice)))
    else:
        print(f"{name} was taken away from {notice.owner}; its guarded writes are refused from now on.")
        print(f"The next one has it {f'in {notice.free_in_s:.1f} s' if notice.free_in_s else 'now'}.")
    return 0


def _confirm(name: str, holder: Person, *, now: bool) -> None:
    """Have the name typed, by somebody who sits there."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"found nobody to ask whether {name} shall be taken away from {holder.owner}; say --yes."
        )
    since = clock_time(holder.since)
    print(f"{name} is held by {holder.owner}{f' since {since}' if since else ''}. {holder.cause}".rstrip())
    if now:
        print("With --now the next one has it at once; until the holder hears of it, both believe to hold.")
    if input("Type its name to take it away: ").strip() != name:
        raise ConfigurationError("found another name; nothing was broken.")


async def _breaks(options: argparse.Namespace, where: str) -> int:
    async with urls.store(named.asking(where)) as store:
        found = await breaks(store)
    if options.json:
        print(json.dumps([msgspec.to_builtins(notice) for notice in found], indent=2))
    elif not found:
        print("nothing was ever broken here")
    for notice in [] if options.json else found:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(notice.at))
        soon = ", at once" if notice.now else ""
        print(f"{at}   {notice.kind} {notice.name}, of {notice.owner}: {notice}{soon}")
    return 0


async def _read(url: str, kinds: Sequence[str]) -> list[Standing]:
    async with urls.store(url) as store:
        return await roster(store, kinds)


def text(found: Sequence[Standing], *, waiting: bool = False) -> str:
    """The table, and below it a line for each holder of whom nothing was heard for too long."""
    rows, causes = [], []
    for one in found:
        rows += _rows(one, waiting=waiting)
        causes += [f"{one.name}: {person.owner}, {person.cause}" for person in one.holders if person.cause]
    return "\n".join([table(rows), *(["", *causes] if causes else [])])


def _rows(one: Standing, *, waiting: bool) -> list[tuple[str, ...]]:
    kind = _TITLES.get(one.kind, one.kind)
    if one.permits is not None:
        kind += f", {len(one.holders)} of {one.permits}"
    name = f"{one.name} ({kind})" if kind else one.name
    rows = [_row(name, person, _wait(one)) for person in one.holders[:1]]
    rows = rows or [(name, "(handing over)", "-", "-", "-", _wait(one))]
    rows += [_row("", person, "") for person in one.holders[1:]]
    if waiting:
        rows += [
            ("", f"  {n}. {_who(person)}", "", clock_time(person.since) or "-", "", "waits")
            for n, person in enumerate(one.waiting, 1)
        ]
    return rows


def _row(name: str, person: Person, waits: str) -> tuple[str, ...]:
    return (
        name,
        _who(person),
        str(person.token) if person.token else "-",
        clock_time(person.since) or "-",
        f"{max(0.0, person.lease_left_s):.1f} s" if person.lease_left_s is not None else "-",
        waits,
    )


def _wait(one: Standing) -> str:
    if not one.waiting:
        return "-"
    first = one.waiting[0]
    since = clock_time(first.since)
    return f"{len(one.waiting)}, first {_who(first)}{f' since {since}' if since else ''}"


def _who(person: Person) -> str:
    wants = {"read": " reads", "write": " writes"}.get(person.wants, "")
    return f"{person.owner}{wants}"


def clock_time(seconds: float | None) -> str:
    """By this machine's time zone; nothing where it is not known."""
    return time.strftime("%H:%M:%S", time.localtime(seconds)) if seconds is not None else ""


def _plain(one: Standing) -> dict[str, Any]:
    holder = one.holders[0] if one.holders else None
    first = one.waiting[0] if one.waiting else None
    return {
        "kind": one.kind,
        "name": one.name,
        "owner": holder.owner if holder else None,
        "token": list(holder.token) if holder and holder.token else None,
        "since": holder.since if holder else None,
        "lease_left_s": holder.lease_left_s if holder else None,
        "cause": holder.cause if holder else "",
        "waiting": len(one.waiting),
        "first_waiting": first.owner if first else None,
        "first_since": first.since if first else None,
        "permits": one.permits,
        "holders": [_person(person) for person in one.holders],
        "line": [_person(person) for person in one.waiting],
    }


def _person(person: Person) -> dict[str, Any]:
    return {
        "owner": person.owner,
        "since": person.since,
        "token": list(person.token) if person.token else None,
        "lease_left_s": person.lease_left_s,
        "ttl_s": person.ttl_s,
        "wants": person.wants,
        "cause": person.cause,
    }


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what stands in them."""
    wide = [max(len(row[n]) for row in (COLUMNS, *rows)) for n in range(len(COLUMNS))]
    lines = (
        "   ".join(text.ljust(width) for text, width in zip(row, wide, strict=True))
        for row in (COLUMNS, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)
