"""One process of a fleet that moves: takes a lock again and again, counts under it, writes down what it saw.

words: folder, url of the store, url of the store it was formerly ("-": none).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import atoll
from atoll import Lock, ReadOnly, put
from atoll.ports.store import Store


def note(folder: Path, line: str) -> None:
    descriptor = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


async def turn(store: Store, folder: Path, kind: str) -> None:
    async with Lock(store, "x", ttl_s=4) as held:
        try:
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            note(folder, f"overlap {kind}")
            return
        try:
            entry = (await store.get("n")).entry
            await store.transact(put("n", str(int(entry.value if entry else 0) + 1).encode()), guard=held)
            note(folder, f"turn {kind} {held.token.epoch} {held.token.revision}")
        finally:
            (folder / "inside").unlink()


async def main(folder: Path, url: str, formerly: str) -> None:
    kind = "both" if formerly != "-" else Path(url).stem
    async with atoll.store(url, formerly=None if formerly == "-" else formerly) as store:
        note(folder, f"up {kind}")
        while not (folder / "stop").exists() and not (folder / f"stop-{kind}").exists():
            try:
                await turn(store, folder, kind)
            except ReadOnly as error:
                note(folder, f"refused {kind} {error}")
                return
            await asyncio.sleep(0.001)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
