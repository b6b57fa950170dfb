"""recount: every figure twice, once from the CSV and once from what a system holds, beside each other.

Imports nothing of Atoll: it reads the CSV with the standard library and the SQLite files with sqlite3. It
stands outside, as an accountant does.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airline.flights import HANGAR, Flight, read_flights

Tally = dict[tuple[str, str], tuple[int, int, int, int]]


@dataclass(kw_only=True)
class Figures:
    """What happened: counted from the record, or read from a system's files."""

    flights: int = 0
    cancelled: int = 0
    no_tail: int = 0
    odometers: dict[str, int] = field(default_factory=dict)
    legs: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    tally: Tally = field(default_factory=dict)

    @property
    def distance(self) -> int:
        return sum(self.odometers.values())

    @property
    def counted(self) -> int:
        """Flights that reached statistics."""
        return sum(row[0] for row in self.tally.values())

    @property
    def delay(self) -> int:
        """Minutes of arrival delay, summed."""
        return sum(row[2] for row in self.tally.values())

    def planes_at(self) -> Counter[str]:
        """Airport -> planes that stand there."""
        return Counter(airport for places in self.places.values() for airport in places)


def from_record(flights: Iterable[Flight] | None = None) -> Figures:
    """What the record says must have happened."""
    figures = Figures()
    tally: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for flight in flights if flights is not None else read_flights():
        if flight.tail:
            figures.places.setdefault(flight.tail, [HANGAR])
            figures.odometers.setdefault(flight.tail, 0)
            figures.legs.setdefault(flight.tail, 0)
        if flight.cancelled:
            figures.cancelled += 1
        elif not flight.tail:
            figures.no_tail += 1
        else:
            figures.flights += 1
            figures.places[flight.tail] = [flight.dest]
            figures.odometers[flight.tail] += flight.distance
            figures.legs[flight.tail] += 1
            row = tally[flight.carrier, flight.hour]
            row[0] += 1
            row[1] += flight.distance
            row[2] += flight.arrival_delay or 0
            row[3] += flight.arrival_delay is not None
    figures.tally = {key: (row[0], row[1], row[2], row[3]) for key, row in tally.items()}
    return figures


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query on a file of a system that has stopped."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        return list(database.execute(sql))


def from_system(folder: Path) -> Figures:
    """What the system's files hold. A plane in two shards has two places, and both its odometers count."""
    figures = Figures()
    for shard in sorted(folder.glob("shard[0-9].db")):
        for tail, airport, odometer, legs in rows(
            shard, "SELECT tail, airport, odometer, flights FROM plane"
        ):
            figures.places.setdefault(tail, []).append(airport)
            figures.odometers[tail] = max(odometer, figures.odometers.get(tail, 0))
            figures.legs[tail] = max(legs, figures.legs.get(tail, 0))
        for (answer,) in rows(shard, "SELECT answer FROM flight"):
            reason = json.loads(answer).get("refused")
            figures.cancelled += reason == "cancelled"
            figures.no_tail += reason == "no tail number"
            figures.flights += reason is None
    table = "SELECT carrier, hour, flights, distance, delay_sum, delay_count FROM tally"
    figures.tally = {(c, h): (f, d, s, n) for c, h, f, d, s, n in rows(folder / "statistics.db", table)}
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a system is from the record."""

    lost: int
    """Effects that are missing: flights not on an odometer, flights not in statistics."""
    twice: int
    """Effects that are there more than once."""
    misplaced: int
    """Planes that are nowhere, in two places, or not where their last flight ended."""
    figures: int
    """Figures that differ: totals, per plane, per carrier and hour, per airport."""


def compare(record: Figures, system: Figures) -> Difference:
    """Count what differs, flight by flight, plane by plane, row by row."""
    lost = twice = 0
    for tail, legs in record.legs.items():
        lost += max(0, legs - system.legs.get(tail, 0))
        twice += max(0, system.legs.get(tail, 0) - legs)
    for key, row in record.tally.items():
        there = system.tally.get(key, (0, 0, 0, 0))[0]
        lost += max(0, row[0] - there)
        twice += max(0, there - row[0])
    misplaced = sum(system.places.get(tail, []) != place for tail, place in record.places.items())
    totals = ("flights", "cancelled", "no_tail", "distance", "counted", "delay")
    figures = sum(getattr(record, t) != getattr(system, t) for t in totals)
    figures += unequal(record.odometers, system.odometers) + unequal(record.tally, system.tally)
    figures += unequal(record.planes_at(), system.planes_at())
    return Difference(lost=lost, twice=twice, misplaced=misplaced, figures=figures)


def unequal(one: Any, other: Any) -> int:
    """Keys whose values differ, or that only one has."""
    return sum(one.get(key) != other.get(key) for key in {*one, *other})
