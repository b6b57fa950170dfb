"""The auditor without Atoll: one of two, by a row with a time in it.

Counts planes that are not in exactly one place.
"""

from __future__ import annotations

import os
import sqlite3
import time

from airline.plain.tables import SHARDS, STATISTICS, connect

LEASE_S = 3.0


def mine() -> bool:
    """Whether this process is the auditor now, by the wall clock."""
    database = connect(STATISTICS)
    with database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS leader (one INTEGER PRIMARY KEY, pid INTEGER, until REAL)"
        )
        database.execute(
            "INSERT INTO leader VALUES (1, ?, ?) ON CONFLICT DO UPDATE "
            "SET pid = excluded.pid, until = excluded.until WHERE until < ? OR pid = excluded.pid",
            (os.getpid(), time.time() + LEASE_S, time.time()),
        )
        return bool(database.execute("SELECT pid = ? FROM leader", (os.getpid(),)).fetchone()[0])


def scan() -> dict[str, list[tuple[str, int]]]:
    """Plane -> the places it is in, with the row's version."""
    places: dict[str, list[tuple[str, int]]] = {}
    for path in SHARDS:
        for tail, airport, version in connect(path).execute("SELECT tail, airport, version FROM plane"):
            places.setdefault(tail, []).append((airport, version))
    return places


def main() -> None:
    before: dict[str, list[tuple[str, int]]] = {}
    while True:
        time.sleep(1)
        try:
            if mine():
                now = scan()
                wrong = [t for t, at in now.items() if len(at) != 1 and before.get(t) == at]
                if wrong:
                    print(
                        f"{len(wrong)} planes are not in one place, first {wrong[0]} at {now[wrong[0]]}",
                        flush=True,
                    )
                before = now
        except sqlite3.OperationalError as error:
            print(error, flush=True)


if __name__ == "__main__":
    main()
