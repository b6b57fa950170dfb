"""Statistics without Atoll: takes a message, counts it once by its id, deletes it."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from airline.plain.tables import QUEUE, STATISTICS, connect

VISIBILITY_S = 5.0


def take() -> tuple[str, dict[str, Any]] | None:
    """The next message, hidden from others for a while; a dead worker's comes back."""
    queue = connect(QUEUE)
    with queue:
        row = queue.execute(
            "UPDATE message SET taken = ? WHERE id = (SELECT id FROM message WHERE taken < ? LIMIT 1) "
            "RETURNING id, body",
            (time.time(), time.time() - VISIBILITY_S),
        ).fetchone()
    return (row[0], json.loads(row[1])) if row else None


def count(id: str, flight: dict[str, Any]) -> None:
    """One transaction: seen and counted together."""
    statistics = connect(STATISTICS)
    with statistics:
        if statistics.execute("INSERT OR IGNORE INTO seen VALUES (?)", (id,)).rowcount == 0:
            return
        late = flight["arrival_delay"]
        statistics.execute(
            "INSERT INTO tally VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET flights = flights + 1, "
            "distance = distance + excluded.distance, delay_sum = delay_sum + excluded.delay_sum, "
            "delay_count = delay_count + excluded.delay_count",
            (flight["carrier"], flight["hour"], flight["distance"], late or 0, int(late is not None)),
        )


def main() -> None:
    while True:
        try:
            if (taken := take()) is None:
                time.sleep(0.02)
                continue
            count(*taken)
            with connect(QUEUE) as queue:
                queue.execute("DELETE FROM message WHERE id = ?", (taken[0],))
        except sqlite3.OperationalError:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
