"""statistics: flights, distance and arrival delay per carrier and hour; each message once in effect.

Run by `atoll work airline.statistics`. The row and "seen" commit together.
"""

from __future__ import annotations

import os
from typing import Any

from airline.fleet import Landed, landed

import atoll
from atoll import Inbox

figures = atoll.database(os.environ["ATOLL_STATISTICS"], name="statistics")
inbox = Inbox(figures)

TABLES = """
CREATE TABLE IF NOT EXISTS tally (carrier TEXT, hour TEXT, flights INTEGER, distance INTEGER,
    delay_sum INTEGER, delay_count INTEGER, PRIMARY KEY (carrier, hour));
"""


@inbox.worker(landed, concurrency=8, attempts=20, recovery_s=3, retry_s=0.1)
async def count(flight: Landed, db: Any) -> None:
    """One flight more for its carrier and hour."""
    late = flight.arrival_delay
    await db.execute(
        "INSERT INTO tally VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET flights = flights + 1, "
        "distance = distance + excluded.distance, delay_sum = delay_sum + excluded.delay_sum, "
        "delay_count = delay_count + excluded.delay_count",
        (flight.carrier, flight.hour, flight.distance, late or 0, int(late is not None)),
    )
