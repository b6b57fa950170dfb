"""`atoll queue`: what waits in the queues, what died and why, and bringing the dead back."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from atoll import urls
from atoll.cli import named
from atoll.cli.status import duration, table
from atoll.errors import ConfigurationError
from atoll.ports.broker import Dead, Inspecting

SHOWN_BYTES = 200


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's words."""
    parser.epilog = (
        "atoll queue [@broker|URL]   how much waits   |   atoll queue dead NAME   what died, and why   |   "
        "atoll queue revive NAME ID...   put it back"
    )
    parser.add_argument("words", nargs="*", help="@name or a URL; or: dead NAME; or: revive NAME ID...")
    parser.add_argument("--broker", default=None, help="with dead and revive: @name or a URL (@broker)")


def run(options: argparse.Namespace) -> int:
    """0; 1 when dead letters lie there, or fewer came back than were named."""
    match options.words:
        case ["dead", name]:
            return _ask(options, lambda broker: dead(broker, name, as_json=options.json))
        case ["revive", name, *ids] if ids:
            return _ask(options, lambda broker: revive(broker, name, ids, as_json=options.json))
        case [] | [_] if options.words[:1] not in (["dead"], ["revive"]):
            options.broker = options.words[0] if options.words else options.broker
            return _ask(options, lambda broker: depths(broker, as_json=options.json))
    raise ConfigurationError(
        f"found {' '.join(options.words)!r}; expected nothing, a URL or @name, "
        "`dead NAME`, or `revive NAME ID...`."
    )


def _ask(options: argparse.Namespace, ask: Callable[[Inspecting], Awaitable[int]]) -> int:
    async def asking() -> int:
        async with urls.broker(named.asking(options.broker or "@broker")) as broker:
            if broker.inspecting is None:
                raise ConfigurationError(f"{broker.url} cannot say what waits in it; ask its own tools.")
            return await ask(broker.inspecting)

    return asyncio.run(asking())


async def depths(broker: Inspecting, *, as_json: bool) -> int:
    """How much waits in each queue."""
    found = sorted(await broker.depths(), key=lambda depth: depth.queue)
    if as_json:
        print(json.dumps({"queues": [asdict(depth) for depth in found]}))
    elif not found:
        print("no queues: nothing was ever put here")
    else:
        rows = [
            (d.queue, str(d.ready), str(d.delayed), str(d.leased), str(d.dead), duration(d.oldest_age_s))
            for d in found
        ]
        print("\n".join(table([("QUEUE", "READY", "DELAYED", "LEASED", "DEAD", "OLDEST"), *rows])))
    return 1 if any(depth.dead for depth in found) else 0


async def dead(broker: Inspecting, name: str, *, as_json: bool) -> int:
    """What nobody could do, and why."""
    found = await broker.dead(name)
    if as_json:
        print(json.dumps({"queue": name, "dead": [_plain(letter) for letter in found]}))
    elif not found:
        print(f"nothing died in {name}")
    else:
        rows = [
            (letter.message.id, str(letter.attempts), _clock(letter.buried_at), _first(letter), _body(letter))
            for letter in found
        ]
        print("\n".join(table([("ID", "ATTEMPTS", "AT", "REASON", "BODY"), *rows])))
    return 1 if found else 0


async def revive(broker: Inspecting, name: str, ids: list[str], *, as_json: bool) -> int:
    """Put them back with their attempts at 0."""
    back = await broker.revive(name, ids)
    if as_json:
        print(json.dumps({"queue": name, "asked": len(ids), "revived": back}))
    else:
        print(f"{back} of {len(ids)} put back into {name}")
    return 0 if back == len(ids) else 1


def _plain(letter: Dead) -> dict[str, Any]:
    return {
        "id": letter.message.id,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "buried_at": letter.buried_at,
        "headers": dict(letter.message.headers),
        "body": letter.message.body.decode("utf-8", "replace"),
    }


def _first(letter: Dead) -> str:
    """The reason's first line; a traceback below it is in --json."""
    return next(iter(letter.reason.splitlines()), "")


def _body(letter: Dead) -> str:
    text = letter.message.body[:SHOWN_BYTES].decode("utf-8", "replace")
    return text if len(letter.message.body) <= SHOWN_BYTES else f"{text}..."


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
