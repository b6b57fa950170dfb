"""Crash subjects: what is filmed while it works, and what must be found after the power came back.

Three rules for a diary that claims to be durable. What it said was written is there; what it said was not
written is not; and an entry is there whole or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from atoll import urls
from atoll.errors import NotApplied
from atoll.ports.broker import Message, Settled
from atoll.ports.store import absent, delete, put
from atoll.verify.crash_states import Bounds, CrashReport, explore
from atoll.verify.vfs_recorder import Film, filming

FILE = "crash.db"


async def store_film(folder: Path, *, rounds: int = 2, writes: int = 20) -> Film:
    """Film a SQLite store at its work."""
    with filming(folder) as (film, vfs):
        await work(f"sqlite:///{folder / FILE}?vfs={vfs}", film, rounds=rounds, writes=writes)
        return film


async def work(url: str, film: Any, *, rounds: int, writes: int) -> None:
    """Pairs of keys, one that is overwritten, refused writes; closed and opened again between the rounds.

    `film` has `mark(text)`.
    """
    number = 0
    for _ in range(rounds):
        async with urls.store(url) as store:
            for _ in range(writes // 4):
                await asyncio.gather(*(_pair(store, film, number + n) for n in range(3)))
                await _refused(store, film, number + 3)
                number += 4


async def _pair(store: Any, film: Any, number: int) -> None:
    film.mark(f"asked {number}")
    value = b"%d" % number
    await store.transact(
        put(f"a/{number}", value * 400),
        put(f"b/{number}", value),
        delete(f"b/{number - 8}"),
        put("last", value),
    )
    film.mark(f"acked {number}")


async def _refused(store: Any, film: Any, number: int) -> None:
    try:
        applied = await store.transact(put(f"a/{number}", b"never"), compare=[absent("last")])
    except NotApplied:
        applied = None
    if not hasattr(applied, "results"):
        film.mark(f"refused {number}")


async def store_survey(folder: Path) -> dict[str, bytes]:
    """What a store holds; raises where it does not open or is not whole."""
    path = folder / FILE
    if not path.exists():
        return {}
    _integrity(path)
    store = urls.store(f"sqlite:///{path}")
    async with store:
        return {entry.key: entry.value for entry in (await store.range("", limit=1_000_000)).entries}


def _integrity(path: Path) -> None:
    connection = apsw.Connection(str(path))
    try:
        answer = connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()
    if answer != [("ok",)]:
        raise OSError(f"integrity_check of {path.name} says {answer[:2]}")


def numbers(marks: Sequence[str], word: str) -> set[int]:
    """The numbers marked with `word`."""
    return {int(text.split()[1]) for text in marks if text.startswith(f"{word} ")}


def store_verdict(found: dict[str, bytes], marks: Sequence[str]) -> list[str]:
    """Every answered pair whole, no refused one, none in half."""
    acked, refused, asked = (numbers(marks, word) for word in ("acked", "refused", "asked"))
    problems = []
    for number in sorted(acked):
        if f"a/{number}" not in found:
            problems.append(f"transaction {number} was answered and is lost")
    for number in sorted(asked):
        there = f"a/{number}" in found
        # Transaction n + 8 removes the second half of n.
        half = f"b/{number}" in found
        if there != half and not (there and f"a/{number + 8}" in found):
            problems.append(f"transaction {number} is there in half")
        if there and found[f"a/{number}"] != (b"%d" % number) * 400:
            problems.append(f"transaction {number} holds other bytes than were written")
    problems += [f"write {n} was refused and is there" for n in sorted(refused) if f"a/{n}" in found]
    strange = {k for k in found if k.startswith("a/")} - {f"a/{n}" for n in asked}
    return problems + [f"{key} was never written" for key in sorted(strange)]


async def store_crashes(folder: Path, *, seed: int, bounds: Bounds | None = None) -> CrashReport:
    """Film a SQLite store in `folder` and cut its power."""
    film = await store_film(folder)
    return await explore(film.steps, store_survey, store_verdict, seed=seed, bounds=bounds)


async def broker_film(folder: Path, *, messages: int = 24) -> Film:
    """Film a SQLite broker: messages put, taken, acknowledged; some left."""
    with filming(folder, everywhere=True) as (film, _):
        broker = urls.broker(f"sqlite:///{folder / FILE}")
        async with broker:
            for first in range(0, messages, 3):
                film.mark(f"asked {first}")
                await broker.put("q", [Message(id=f"{n}", body=b"x" * 300) for n in range(first, first + 3)])
                for number in range(first, first + 3):
                    film.mark(f"acked {number}")
                taken = await broker.take("q", 2, lease_s=60)
                for one in taken[:1]:
                    film.mark(f"finishing {one.message.id}")
                    (settled,) = await broker.acknowledge("q", [one.receipt])
                    if settled is Settled.ACKED:
                        film.mark(f"finished {one.message.id}")
        return film


async def broker_survey(folder: Path) -> tuple[set[int], int]:
    """The numbers of the messages that wait, and how many more are in hand."""
    path = folder / FILE
    if not path.exists():
        return set(), 0
    _integrity(path)
    broker = urls.broker(f"sqlite:///{path}")
    async with broker:
        assert broker.inspecting is not None
        in_hand = sum(depth.leased for depth in await broker.inspecting.depths())
        found: set[int] = set()
        while taken := await broker.take("q", 50, lease_s=60):
            found |= {int(one.message.id) for one in taken}
        return found, in_hand


def broker_verdict(found: tuple[set[int], int], marks: Sequence[str]) -> list[str]:
    """What was put and not finished waits or is in hand; what was finished never comes again."""
    waiting, in_hand = found
    finished = numbers(marks, "finished")
    problems = [f"message {n} was acknowledged and came again" for n in sorted(finished & waiting)]
    missing = numbers(marks, "acked") - numbers(marks, "finishing") - waiting
    if len(missing) > in_hand:
        problems.append(f"of the messages {sorted(missing)} only {in_hand} are there")
    return problems


async def broker_crashes(folder: Path, *, seed: int, bounds: Bounds | None = None) -> CrashReport:
    """Film a SQLite broker in `folder` and cut its power."""
    film = await broker_film(folder)
    return await explore(film.steps, broker_survey, broker_verdict, seed=seed, bounds=bounds)
