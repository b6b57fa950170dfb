"""Killed at each point of the protocol, while a stranger writes the same files: nothing is halved."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from transaction_crowd import ROWS, SCHEMA

import atoll
from atoll import Transactions
from atoll.blocks import decision

PROGRAM = Path(__file__).with_name("transaction_crowd.py")
POINTS = [
    ("a", "before-prepare"),
    ("a", "after-prepare"),
    ("b", "before-prepare"),
    ("b", "after-prepare"),
    ("state", "before-transact~transaction/"),
    ("state", "after-transact~transaction/"),
    ("a", "before-finish-commit"),
    ("a", "after-finish-commit"),
    ("b", "before-finish-commit"),
    ("b", "after-finish-commit"),
]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def start(folder: Path, point: tuple[str, str] | None, nth: int) -> subprocess.Popen[bytes]:
    urls = []
    for name in ("a", "b", "state"):
        url = f"sqlite:///{folder / name}.db"
        if point and point[0] == name:
            url = f"faulty+{url}?fault_kill={point[1]}:{nth}"
        urls.append(url)
    return subprocess.Popen(
        [sys.executable, PROGRAM, "worker", folder, *urls],
        env={**os.environ, "ATOLL_FAULTS": "1"},
        stderr=(folder / "stderr").open("ab"),
    )


@contextmanager
def meddling(folder: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, PROGRAM, "stranger", folder])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def crowd(folder: Path, transactions: int, seed: int) -> int:
    """Two workers, until each point was hit and so many were told committed; answers the kills."""
    dice, kills, hit = random.Random(seed), 0, set[tuple[str, str]]()
    points = [POINTS[0], POINTS[1]]
    workers = [start(folder, point, dice.randrange(2, 9)) for point in points]
    with meddling(folder):
        try:
            while len(hit) < len(POINTS) or told(folder, "committed") < transactions:
                await asyncio.sleep(0.1)
                for place, process in enumerate(workers):
                    if len(hit) == len(POINTS) and process.poll() is None and dice.random() < 0.02:
                        process.kill()
                    if process.poll() is None:
                        continue
                    assert process.wait() == -signal.SIGKILL, (folder / "stderr").read_text()
                    kills += 1
                    hit.add(points[place])
                    left = [point for point in POINTS if point not in hit | {*points}]
                    points[place] = dice.choice(left or POINTS)
                    workers[place] = start(folder, points[place], dice.randrange(2, 9 if left else 40))
        finally:
            for process in workers:
                process.kill()
                process.wait()
    return kills


def told(folder: Path, what: str) -> int:
    return sum(file.read_text().count(f'"{what}"') for file in folder.glob("told-*"))


async def recovered(folder: Path) -> dict[str, str]:
    """Wait until nothing is in doubt; answers every decision."""
    first, second = (atoll.database(f"sqlite:///{folder / name}.db") for name in "ab")
    async with atoll.store(f"sqlite:///{folder}/state.db") as state, first, second:
        moves = Transactions(state, first, second, grace_s=0.5)
        async with atoll.background(moves.recover()), asyncio.timeout(30):
            while await moves.in_doubt():
                await asyncio.sleep(0.05)
        decisions, begin = {}, "transaction/"
        while True:
            page = await state.range(start=begin, end="transaction0")
            decisions |= {e.key.removeprefix("transaction/"): decision.read(e).outcome for e in page.entries}
            if not page.more:
                return decisions
            begin = page.entries[-1].key + "\0"


def judge(folder: Path, decisions: dict[str, str]) -> None:
    """Every file has exactly the transactions that were decided, and the books balance."""
    committed = {id for id, outcome in decisions.items() if outcome == "commit"}
    ends = {line["id"]: line["told"] for file in folder.glob("told-*") for line in lines(file)}
    stranger = lines(folder / "stranger")
    for name in "ab":
        connection = apsw.Connection(f"{folder / name}.db")
        ledger = {row[0]: row[1:] for row in connection.execute("SELECT tx, account, delta FROM ledger")}
        ledger.pop("stranger", None)
        assert set(ledger) == committed
        assert {id for id, end in ends.items() if end == "committed"} <= set(ledger)
        assert not {id for id, end in ends.items() if end == "aborted"} & set(ledger)
        for row, balance in connection.execute("SELECT name, balance FROM account"):
            assert balance == sum(delta for account, delta in ledger.values() if account == row)
        visits = sum(line.get("visited", 0) for line in stranger if line["file"] == name)
        assert connection.execute("SELECT sum(visits) FROM account").get in (visits, visits + 1)
        assert connection.execute("SELECT count(*) FROM atoll_row_lock").get == 0
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        connection.close()


def make(folder: Path) -> None:
    for name in "ab":
        connection = apsw.Connection(f"{folder / name}.db")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(SCHEMA)
        connection.executemany("INSERT INTO account VALUES (?, 0, 0)", [(f"r{n}",) for n in range(ROWS)])
        connection.close()


async def run(folder: Path, transactions: int, seed: int) -> None:
    make(folder)
    kills = await crowd(folder, transactions, seed)
    judge(folder, await recovered(folder))
    refusals = [line["refused"] for line in lines(folder / "stranger") if "refused" in line]
    taken = len(lines(folder / "taken"))
    print(
        f"{told(folder, 'committed')} committed, {kills} killed, {taken} taken over, {len(refusals)} refused"
    )
    assert kills >= len(POINTS)
    assert taken > 0
    assert any("prepared transaction" in refusal for refusal in refusals)
    assert not [refusal for refusal in refusals if "locked" not in refusal and "prepared" not in refusal]


async def test_killed_at_each_point_every_transaction_ends_as_it_was_decided(tmp_path: Path) -> None:
    await run(tmp_path, 150, seed=1)


@pytest.mark.long
@pytest.mark.skipif(os.environ.get("ATOLL_LONG") != "1", reason="ATOLL_LONG=1 runs the long form")
def test_ten_thousand_transactions_under_kills_and_a_stranger(tmp_path: Path) -> None:
    asyncio.run(run(tmp_path, 10_000, seed=2))
