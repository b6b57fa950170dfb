"""`atoll store`: copy, move, bump, back up, restore, check and thaw a store; any engine, by the port."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from atoll import urls
from atoll.blocks import backup, moving
from atoll.blocks.moving import Say
from atoll.blocks.removal import Holds, Removal
from atoll.cli import named
from atoll.errors import ConfigurationError
from atoll.ports.store import Store
from atoll.up.manifest import absolute

WORDS: dict[str, tuple[str, ...]] = {
    "copy": ("URL", "URL2"),
    "move": ("URL", "URL2"),
    "bump": ("URL",),
    "backup": ("URL", "FILE"),
    "restore": ("URL", "FILE"),
    "check": ("URL",),
    "thaw": ("URL",),
}
WAIT_S = 60.0
_SHOWN = 10
_MEANWHILE = "it was written meanwhile: this is not its state of one moment"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.epilog = "   |   ".join(f"atoll store {verb} {' '.join(words)}" for verb, words in WORDS.items())
    parser.add_argument("action", choices=list(WORDS), help="what to do")
    parser.add_argument(
        "places", nargs="+", metavar="URL|@NAME|FILE", help="the store; then where to, or a file"
    )
    parser.add_argument(
        "--force", action="store_true", help="make the target like the source, whatever stands in it"
    )
    parser.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="S", help="move: how long holders may finish (60)"
    )
    parser.add_argument(
        "--interrupt", action="store_true", help="move: end the leases of those who have not finished by then"
    )
    parser.add_argument(
        "--above", type=int, default=0, metavar="EPOCH", help="bump: rise above this one too (0)"
    )


def run(options: argparse.Namespace) -> int:
    """0: done; 1: not done, somebody holds something, or check found a fault."""
    wanted = WORDS[options.action]
    if len(options.places) != len(wanted):
        raise ConfigurationError(
            f"found {len(options.places)} places for `store {options.action}`; expected {len(wanted)}: "
            f"atoll store {options.action} {' '.join(wanted)}"
        )
    if not options.wait >= 0:
        raise ConfigurationError(f"found --wait {options.wait:g}; expected 0 or more seconds.")
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    say = _say(options)
    async with AsyncExitStack() as opened:

        async def there(words: str) -> Store:
            return await opened.enter_async_context(urls.store(named.asking(words)))

        async def made(words: str) -> Store:
            # The old store's note tells everybody where this is, wherever they stand.
            url = absolute(named.url(words), Path.cwd())
            return await opened.enter_async_context(urls.store(url))

        match options.action, *options.places:
            case "copy", source, target:
                return await _copy(options, await there(source), await made(target), say)
            case "move", source, target:
                return await _move(options, await there(source), await made(target), say)
            case "backup", source, _:
                return await _backup(options, await there(source), say)
            case "restore", target, file:
                backup.read(Path(file))  # before anything is made
                return await _restore(options, await made(target), say)
            case "check", source:
                return await _check(options, await there(source), say)
            case "bump", source:
                return await _bump(options, await there(source))
        return await _thaw(options, await there(options.places[0]))


def _say(options: argparse.Namespace) -> Say:
    """Progress on standard error: each line on a terminal, else one a second at most."""
    shown, last = sys.stderr.isatty(), [-1.0]

    def say(text: str) -> None:
        now = time.monotonic()
        if not options.json and (shown or now - last[0] >= 1):
            last[0] = now
            print(f"atoll: {text}", file=sys.stderr, flush=True)

    return say


def _answer(options: argparse.Namespace, plain: dict[str, object], text: str) -> None:
    print(json.dumps(plain) if options.json else text)


async def _copy(options: argparse.Namespace, source: Store, target: Store, say: Say) -> int:
    copied = await moving.copy(source, target, force=options.force, say=say)
    text = (
        f"{_entries(copied.entries)}, {copied.bytes:,} bytes: in {_place(target)} as in {_place(source)}"
        f"{f', {copied.there:,} of them were there already' if copied.there else ''}; "
        f"{copied.leased:,} left behind, because they die with a lease"
    )
    if not copied.one_moment:
        text += f"\n{_MEANWHILE}; atoll store move would freeze it"
    _answer(options, {"copied": asdict(copied)}, text)
    return 0


async def _move(options: argparse.Namespace, source: Store, target: Store, say: Say) -> int:
    removal = Removal(
        source, target, wait_s=options.wait, interrupt=options.interrupt, force=options.force, say=say
    )
    moved = await removal.move()
    if not moved.done:
        text = (
            f"nothing was moved: after {options.wait:g} s something is still held in {_place(source)}, which "
            f"takes writes again\n{_held(moved.held)}\n"
            "Wait longer (--wait S), or end their leases: --interrupt. A leader never finishes by itself."
        )
    elif moved.copied is None:
        text = f"this move was done already: {_place(target)} is the book, at epoch {moved.epoch}"
    else:
        text = (
            f"{_entries(moved.copied.entries)} moved; {_place(target)} is the book, at epoch {moved.epoch}\n"
            f"{_place(source)} takes no more writes and says so. Next: deploy without the word formerly."
        )
        if moved.interrupted:
            text += f"\ninterrupted:\n{_held(moved.interrupted)}"
    _answer(options, asdict(moved), text)
    return 0 if moved.done else 1


def _held(held: tuple[Holds, ...]) -> str:
    lines = [f"    {one.title}   {one.owner}{_since(one.since)}" for one in held[:_SHOWN]]
    return "\n".join([*lines, *([f"    and {len(held) - _SHOWN} more"] if len(held) > _SHOWN else [])])


def _since(seconds: float | None) -> str:
    return f" since {time.strftime('%H:%M:%S', time.localtime(seconds))}" if seconds is not None else ""


async def _backup(options: argparse.Namespace, store: Store, say: Say) -> int:
    path = Path(options.places[1])
    saved = await backup.backup(store, path, force=options.force, say=say)
    text = f"{_entries(saved.entries)} of {_place(store)} saved in {path}, {saved.bytes:,} bytes"
    if not saved.one_moment:
        text += f"\n{_MEANWHILE}"
    _answer(options, {"file": str(path), "saved": asdict(saved)}, text)
    return 0


async def _restore(options: argparse.Namespace, store: Store, say: Say) -> int:
    path = Path(options.places[1])
    copied, epoch = await backup.restore(store, path, force=options.force, say=say)
    text = (
        f"{_entries(copied.entries)} of {path} put into {_place(store)}, now at epoch {epoch}: every "
        "token and bookmark of before is out of date"
    )
    _answer(options, {"copied": asdict(copied), "epoch": epoch}, text)
    return 0


async def _check(options: argparse.Namespace, store: Store, say: Say) -> int:
    checked = await backup.check(store, say)
    text = (
        f"{_entries(checked.entries)} read, {checked.leased:,} of them under leases; revision "
        f"{checked.revision}, epoch {checked.epoch}"
    )
    if checked.frozen is not None:
        text += f"\nfrozen: {checked.frozen}"
    text += "".join(f"\n    {fault}" for fault in checked.faults) or "\nnothing is wrong"
    _answer(options, asdict(checked), text)
    return 1 if checked.faults else 0


async def _bump(options: argparse.Namespace, store: Store) -> int:
    epoch = await moving.moving_of(store).bump(above=options.above)
    text = f"{_place(store)} is at epoch {epoch}: every token and bookmark of before is out of date"
    _answer(options, {"epoch": epoch}, text)
    return 0


async def _thaw(options: argparse.Namespace, store: Store) -> int:
    able = moving.moving_of(store)
    found = await able.frozen()
    if found is not None and "was moved to" in found and not options.force:
        raise ConfigurationError(
            f"found {_place(store)} left behind: {found}. If it takes writes again, two stores are used as "
            "one. If that is what you want, say --force."
        )
    await able.freeze(None)
    text = (
        f"{_place(store)} takes writes again; it said: {found}"
        if found
        else f"{_place(store)} was not frozen"
    )
    _answer(options, {"said": found}, text)
    return 0


def _place(store: Store) -> str:
    """Where it is, without what this verb added to the URL."""
    return store.url.partition("?")[0]


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"
