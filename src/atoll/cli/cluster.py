"""`atoll cluster`: the members of a Raft cluster: how they stand, who comes, who goes, who leads."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from atoll import clock, urls
from atoll.cli import named
from atoll.cli.numbers import seconds
from atoll.errors import ConfigurationError, NotReady

WORDS: dict[str, str] = {
    "status": "URL",
    "add": "URL NAME=HOST:PORT",
    "remove": "URL NAME",
    "transfer": "URL [NAME]",
    "snapshot": "URL [NAME]",
    "recover": "FOLDER --yes",
}
COLUMNS = ("NAME", "ROLE", "TERM", "LOG", "COMMITTED", "APPLIED", "BEHIND", "ADDRESS")
WAIT_S = 60.0
CEILING_S = 30.0
ELECTION_S = 3.0
"""Where enough members are there and nobody leads, somebody will soon."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.epilog = "   |   ".join(f"atoll cluster {verb} {words}" for verb, words in WORDS.items())
    parser.add_argument("action", choices=list(WORDS), help="what to do")
    parser.add_argument(
        "place", nargs="?", default="@state", metavar="URL|@NAME|FOLDER", help="any member (default: @state)"
    )
    parser.add_argument(
        "member", nargs="?", default="", metavar="NAME", help="which one; add: NAME=HOST:PORT"
    )
    parser.add_argument(
        "--wait", type=seconds, default=WAIT_S, metavar="S", help="add: how long it may catch up (60)"
    )
    parser.add_argument("--yes", action="store_true", help="recover: what may be lost is lost")


def run(options: argparse.Namespace) -> int:
    """0: done, and all is well; 1: not done, or a member needs a look."""
    if options.action == "recover":
        return _recover(options)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with AsyncExitStack() as opened:
        url = named.asking(options.place)
        store = urls.store(url)
        if not hasattr(store, "council"):
            raise ConfigurationError(
                f"found {store.url}, which has no members of ours; expected raft://host:port. A server's own "
                "tools look after its cluster."
            )
        opened.push_async_callback(store.close)
        with clock.deadline(options.wait + CEILING_S):
            council = await store.council()
            match options.action:
                case "add":
                    return await _add(options, council)
                case "remove":
                    return await _remove(options, council)
                case "transfer":
                    return await _transfer(options, council)
                case "snapshot":
                    return await _snapshot(options, council)
            return await _status(options, council)


def _say(options: argparse.Namespace) -> Any:
    """Progress on standard error: each line on a terminal, else one a second at most."""
    shown, last = sys.stderr.isatty(), [-1.0]

    def say(text: str) -> None:
        now = time.monotonic()
        if not options.json and (shown or now - last[0] >= 1):
            last[0] = now
            print(f"atoll: {text}", file=sys.stderr, flush=True)

    return say


# -- status --------------------------------------------------------------------------------------------


async def _status(options: argparse.Namespace, council: Any) -> int:
    members = await council.members()
    until = clock.loop_now() + ELECTION_S
    while _electing(members) and clock.loop_now() < until:
        await asyncio.sleep(0.1)
        members = await council.members()
    looks = troubles(members)
    if options.json:
        print(json.dumps({"members": [plain(one) for one in members], "look": looks}, indent=2))
    else:
        print(text(members))
        print("\n".join(["", *looks]) if looks else "\nall is well: " + _may_fail(members))
    return 1 if looks else 0


def _electing(members: Sequence[Any]) -> bool:
    """Whether nobody leads though enough are there."""
    voters = [one for one in members if one.votes]
    return not any(one.leads for one in members) and 2 * sum(one.answers for one in voters) > len(voters)


def text(members: Sequence[Any]) -> str:
    """The table."""
    rows = [COLUMNS, *(_row(one) for one in members)]
    wide = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if 2 <= n <= 6 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, wide, strict=True))
        )
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def _row(one: Any) -> tuple[str, ...]:
    if not one.answers:
        return (one.name or "?", one.role, "-", "-", "-", "-", "-", one.address)
    numbers = [f"{one.number(name):,}" for name in ("term", "last", "commit", "applied")]
    return (one.name, one.role, *numbers, f"{one.behind:,}" if one.behind else "-", one.address)


def troubles(members: Sequence[Any]) -> list[str]:
    """A sentence for each thing that needs a look, the heaviest first."""
    voters = [one for one in members if one.votes]
    here = [one for one in voters if one.answers]
    found = []
    if not any(one.leads for one in members):
        majority = len(voters) // 2 + 1
        remedy = "start more of them" if len(here) < majority else "see whether they reach each other"
        found.append(
            f"nobody leads, so nothing is written: {len(here)} of {len(voters)} voters answer and {majority} "
            f"are needed; {remedy}"
        )
    silent = (one for one in members if not one.answers)
    found += [f"{one.name or one.address} does not answer: {one.said}" for one in silent]
    found += [
        f"{one.name} at {one.address} is no member: it was removed, or not added yet (atoll cluster add)"
        for one in members
        if one.answers and not one.belongs
    ]
    if len(voters) < 3:
        found.append(
            f"{len(voters)} voter{'s' * (len(voters) != 1)}: none may fail. Three stand the loss of one: "
            "atoll cluster add"
        )
    elif len(voters) % 2 == 0:
        found.append(f"{len(voters)} voters stand no more failures than {len(voters) - 1}: add or remove one")
    return found


def _may_fail(members: Sequence[Any]) -> str:
    count = sum(one.votes for one in members)
    return f"any {(count - 1) // 2} of {count} voters may fail"


def plain(one: Any) -> dict[str, Any]:
    """One member for programs."""
    return {
        "name": one.name,
        "address": one.address,
        "role": one.role,
        "votes": one.votes,
        "term": one.number("term"),
        "log": one.number("last"),
        "committed": one.number("commit"),
        "applied": one.number("applied"),
        "behind": one.behind,
        "said": one.said,
        "cluster": one.facts.get("cluster", ""),
    }


# -- who comes, who goes, who leads --------------------------------------------------------------------


async def _add(options: argparse.Namespace, council: Any) -> int:
    name, equals, place = options.member.partition("=")
    if not (name and equals and place.rpartition(":")[2].isdigit() and place.rpartition(":")[0]):
        raise ConfigurationError(
            f"found {options.member!r}; expected NAME=HOST:PORT, as in atoll cluster add "
            "raft://127.0.0.1:7401 d=127.0.0.1:7404"
        )
    try:
        await council.add(name, place, wait_s=options.wait, say=_say(options))
    except NotReady as error:
        return _not_done(options, error)
    _answer(options, {"added": name, "address": place}, f"{name} at {place} votes")
    return 0


async def _remove(options: argparse.Namespace, council: Any) -> int:
    name = _named(options, "remove")
    await council.remove(name, say=_say(options))
    _answer(
        options,
        {"removed": name},
        f"{name} is a member no more. Stop it; its name and folder are not used again.",
    )
    return 0


async def _transfer(options: argparse.Namespace, council: Any) -> int:
    try:
        leader = await council.transfer(options.member)
    except NotReady as error:
        return _not_done(options, error)
    _answer(options, {"leader": leader}, f"{leader} leads")
    return 0


async def _snapshot(options: argparse.Namespace, council: Any) -> int:
    found = await council.snapshot(options.member)
    lines = [f"{one.name}: the log begins at {one.number('first'):,} now" for one in found]
    _answer(options, {one.name: one.number("first") for one in found}, "\n".join(lines))
    return 0


def _named(options: argparse.Namespace, action: str) -> str:
    if not options.member:
        raise ConfigurationError(f"found no name; expected atoll cluster {action} {WORDS[action]}")
    return str(options.member)


def _not_done(options: argparse.Namespace, error: NotReady) -> int:
    _answer(options, {"error": "NotReady", "message": str(error), "exit": 1}, f"not done: {error}")
    return 1


def _answer(options: argparse.Namespace, said: dict[str, object], words: str) -> None:
    print(json.dumps(said) if options.json else words)


# -- a quorum that is lost for ever --------------------------------------------------------------------


def _recover(options: argparse.Namespace) -> int:
    folder = Path(options.place)
    recovery = importlib.import_module("atoll.engines.raft.recovery")  # engines are known by name only
    found = recovery.look(folder)
    if not options.yes:
        raise ConfigurationError(f"{recovery.warning(found)} If that is what you want, say --yes.")
    done = recovery.recover(folder)
    _answer(options, recovery.plain(done), recovery.sentence(done))
    return 0
