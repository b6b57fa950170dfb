"""Fairness: four processes that write without a pause are each served soon, all the time."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from processes import line, process

WORST_S = 1.0

HAMMER = """
async def main():
    store = SqliteStore(path)
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    waits = []
    async def one(w):
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            since = time.monotonic()
            await store.transact(put(f"{arguments[0]}/{w}", b"x" * 200))
            waits.append(time.monotonic() - since)
    await asyncio.gather(*(one(w) for w in range(4)))
    print(waits, flush=True)
    await store.close()
asyncio.run(main())
"""

GREEDY = """
import apsw
connection = apsw.Connection(path)
connection.set_busy_timeout(20000)
print("ready", flush=True)
sys.stdin.readline()
waits, until, wait = [], time.monotonic() + 2.0, int(arguments[0]) > 0
while time.monotonic() < until:
    since = time.monotonic()
    connection.execute("BEGIN IMMEDIATE")
    waits.append(time.monotonic() - since)
    held = time.monotonic()
    while time.monotonic() - held < 0.02:
        pass
    connection.execute("COMMIT")
print(waits, flush=True)
"""


def waits_of(code: str, path: str) -> list[list[float]]:
    """The waits of four processes that run `code` from one whistle on."""
    with ExitStack() as stack:
        children = [stack.enter_context(process(code, path, n)) for n in range(4)]
        assert [line(child) for child in children] == ["ready"] * 4
        for child in children:
            assert child.stdin
            child.stdin.write("\n")
        return [json.loads(line(child)) for child in children]


def told(what: str, waits: list[list[float]]) -> str:
    every = sorted(wait for mine in waits for wait in mine)
    return (
        f"{what}: {[len(mine) for mine in waits]} writes, p99 {every[len(every) * 99 // 100] * 1000:.1f} ms, "
        f"worst {every[-1] * 1000:.1f} ms"
    )


async def test_the_worst_wait_of_four_hammering_processes_is_bounded(tmp_path: Path) -> None:
    waits = await asyncio.to_thread(waits_of, HAMMER, str(tmp_path / "x.db"))
    print(told("through the turnstile", waits))
    assert max(max(mine) for mine in waits) < WORST_S
    shares = [len(mine) for mine in waits]
    assert min(shares) * 3 > max(shares)


async def test_sqlites_own_waiting_is_not_fair(tmp_path: Path) -> None:
    """The control: the same measure, without the turnstile, sees somebody pushed aside."""
    path = str(tmp_path / "x.db")

    def make() -> Any:
        import apsw

        connection = apsw.Connection(path)
        connection.pragma("journal_mode", "wal")
        connection.close()
        return waits_of(GREEDY, path)

    waits = await asyncio.to_thread(make)
    print(told("by the busy handler", waits))
    shares = [len(mine) for mine in waits]
    worst = max(max(mine) for mine in waits)
    assert worst > 0.2 or min(shares) * 4 <= max(shares)
