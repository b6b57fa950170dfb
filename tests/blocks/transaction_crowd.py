"""Workers that move money between two files, a stranger who meddles, and a hand that kills.

python transaction_crowd.py worker FOLDER URL_A URL_B URL_STATE
python transaction_crowd.py stranger FOLDER
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
from pathlib import Path

ROWS = 40
SCHEMA = """
CREATE TABLE account(name TEXT PRIMARY KEY, balance INTEGER NOT NULL, visits INTEGER NOT NULL DEFAULT 0);
CREATE TABLE ledger(id INTEGER PRIMARY KEY AUTOINCREMENT, tx TEXT NOT NULL UNIQUE, account TEXT NOT NULL,
    delta INTEGER NOT NULL);
CREATE TABLE tally(account TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER counted AFTER INSERT ON ledger BEGIN
    INSERT INTO tally VALUES (NEW.account, 1) ON CONFLICT DO UPDATE SET n = n + 1; END;
"""


def say(path: Path, **what: object) -> None:
    """One line, in one write: a kill leaves it whole or not there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (json.dumps(what) + "\n").encode())
    os.close(descriptor)


async def worker(folder: Path, *urls: str) -> None:
    """Transactions for ever; each told outcome is written down."""
    import atoll
    from atoll import Transactions
    from atoll.ports.observer import TransactionTakenOver, subscribe

    first, second = (atoll.database(url, name=name) for url, name in zip(urls, "ab", strict=False))
    moves = Transactions(atoll.store(urls[2]), first, second, grace_s=0.5)
    subscribe(lambda e: say(folder / "taken", id=e.name) if isinstance(e, TransactionTakenOver) else None)
    log, dice = folder / f"told-{os.getpid()}", random.Random(os.getpid())

    async def move(tx: object) -> None:
        say(log, id=tx.id, told="begun")  # type: ignore[attr-defined]
        for database, sign in ((first, -1), (second, 1)):
            db = await tx.join(database)  # type: ignore[attr-defined]
            name, delta = f"r{dice.randrange(ROWS)}", sign * 7
            await db.execute("UPDATE account SET balance = balance + ? WHERE name = ?", (delta, name))
            await db.execute("INSERT INTO ledger(tx, account, delta) VALUES (?, ?, ?)", (tx.id, name, delta))  # type: ignore[attr-defined]

    async with atoll.background(moves.recover()):
        while True:
            try:
                async with moves.begin() as tx:
                    await move(tx)
                say(log, id=tx.id, told="committed")
            except atoll.OutcomeUnknown as error:
                say(log, id=error.id, told="unknown")
            except atoll.NotApplied:
                say(log, id=tx.id, told="aborted")


def stranger(folder: Path) -> None:
    """sqlite3 of the standard library, which never heard of Atoll, at random rows for ever."""
    dice = random.Random(7)
    files = [sqlite3.connect(folder / f"{name}.db", timeout=10, isolation_level=None) for name in "ab"]
    while True:
        place = dice.randrange(2)
        name = f"r{dice.randrange(ROWS)}"
        sql = dice.choice(
            [
                f"UPDATE account SET visits = visits + 1 WHERE name = '{name}'",
                f"REPLACE INTO account SELECT name, balance, visits + 1 FROM account WHERE name = '{name}'",
                # The next number may be a waiting row's; a row that is committed is not touched.
                "INSERT OR REPLACE INTO ledger SELECT coalesce(max(id), 0) + 1, 'stranger', "
                f"'{name}', 0 FROM ledger",
                "DELETE FROM ledger WHERE tx = 'stranger'",
            ]
        )
        try:
            files[place].execute(sql)
        except sqlite3.Error as error:
            say(folder / "stranger", file="ab"[place], refused=str(error))
        else:
            say(folder / "stranger", file="ab"[place], visited=int("visits" in sql))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(worker(Path(sys.argv[2]), *sys.argv[3:]))
    else:
        stranger(Path(sys.argv[2]))
