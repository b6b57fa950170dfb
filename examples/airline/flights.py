"""The input: real flights, read from the CSV as they are. Knows nothing of the system that handles them."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

HANGAR = "JFK"
"""Where every plane stands before its first flight."""

MISSING = ("", "NA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """One flight of the record.

    `hour`: of its scheduled departure, UTC. `arrival_delay`: minutes, None where it is not known.
    """

    id: str
    carrier: str
    tail: str
    origin: str
    dest: str
    distance: int
    hour: str
    cancelled: bool
    arrival_delay: int | None


def data_folder() -> Path:
    """The folder with flights.csv: AIRLINE_DATA, or the three days that lie beside this file."""
    return Path(os.environ.get("AIRLINE_DATA", Path(__file__).parent / "data"))


def read_flights() -> list[Flight]:
    """All flights in order of scheduled departure."""
    with (data_folder() / "flights.csv").open(encoding="utf-8") as file:
        return [flight(row) for row in csv.DictReader(file)]


def flight(row: dict[str, str]) -> Flight:
    """A row of the CSV as a flight; a flight that never departed was cancelled."""
    date = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
    return Flight(
        id=f"{date}-{row['carrier']}{row['flight']}-{row['origin']}",
        carrier=row["carrier"],
        tail="" if row["tailnum"] in MISSING else row["tailnum"],
        origin=row["origin"],
        dest=row["dest"],
        distance=int(row["distance"]),
        hour=row["time_hour"],
        cancelled=row["dep_time"] in MISSING,
        arrival_delay=None if row["arr_delay"] in MISSING else int(row["arr_delay"]),
    )
