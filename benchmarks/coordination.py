"""Locks on every server, beside the lock that people use there today: alone, and handed over among sixteen.

Two keys to the same door: ours keeps a line, gives a token and is lost in time; the other is what its users
have now. Round trips are counted on the wire and forced writes on the server, in runs of their own.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Expected, Result, Size, Spread, number, percentile, ratios, reachable
from benchmarks.rivals import etcd_calls
from benchmarks.rivals.lock_sides import Side, Turns
from benchmarks.turns import forced_by, porter

from atoll.errors import MissingExtra
from atoll.verify import servers
from atoll.verify.servers.process import family

WAITERS = 16
COUNTED = 20


@dataclass(frozen=True)
class Place:
    """One product: how its server is started and what our URL adds."""

    product: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: str = ""
    trips: tuple[float, float] | None = (1, 1)
    """Round trips expected of a taking and a release together; None where nothing travels."""


PLACES = (
    Place("sqlite", trips=None),
    Place("redis", {"appendfsync": "always"}),
    Place("postgresql", options="?create=true"),
    Place("etcd"),
    Place("zookeeper"),
)


@dataclass
class Found:
    """What one side did in all rounds."""

    alone: list[list[float]] = field(default_factory=list)
    crowd: list[list[float]] = field(default_factory=list)
    trips: float | None = None
    forced: float | None = None


def run(folder: Path, size: Size) -> Result:
    """Every product whose server is on this machine."""
    result = Result(
        title="Coordination",
        how="A lock taken and released by one, then handed over among "
        f"{WAITERS} clients that get in line again at once; milliseconds, middle (lowest - highest) of "
        f"{size.rounds} rounds. Round trips and forced writes are of one taking and one release.",
    )
    for place in PLACES:
        try:
            with _served(place, folder) as (url, pids):
                _product(place, url, pids, size, result)
                if place.product == "etcd":
                    etcd_calls.add(url, size, result)
        except MissingExtra as missing:
            result.notes.append(f"{place.product}: not run. {missing}")
    return result


def _product(place: Place, url: str, pids: list[int], size: Size, result: Result) -> None:
    known: list[Side] = list(importlib.import_module(f"benchmarks.rivals.{place.product}_locks").SIDES)
    sides = [side for side in known if side.there()]
    result.notes += [f"{side.name}: not installed; make bench does." for side in known if not side.there()]
    times = max(10, size.times // 4)
    turns = max(3, size.times // 40)
    found = {side.name: Found() for side in sides}
    for round in range(size.rounds):
        for count in range(len(sides)):
            side = sides[(count + round) % len(sides)]
            mine = found[side.name]
            mine.alone.append(side.alone_ms(url, times))
            mine.crowd.append(handed_over_ms(side.crowd(url, WAITERS, turns)))
    for side in sides:
        found[side.name].trips = _trips(side, place, url)
        found[side.name].forced = _forced(side, url, pids) if pids else None
    head = (
        "",
        "alone p50",
        "alone p99",
        "handed over p50",
        "handed over p99",
        "round trips",
        "forced writes",
    )
    rows = [_row(side, found[side.name]) for side in sides]
    if len(sides) == 1:
        result.tables.append(((place.product, *head[1:]), rows))
        return
    ours, other = found[sides[0].name], found[sides[1].name]
    ratio = ratios(*([percentile(one, 0.5) for one in side.alone] for side in (ours, other)))
    rows.append((f"alone, Atoll / {sides[1].name}", f"{ratio} x", "", "", "", "", ""))
    result.tables.append(((place.product, *head[1:]), rows))
    result.notes += [f"{place.product}, {side.name}: {side.weaker}." for side in sides if side.weaker]
    _expected(place, ours, sides[1].name, ratio, result)


def _expected(place: Place, ours: Found, other: str, ratio: Spread, result: Result) -> None:
    if place.trips is not None and ours.trips is not None:
        result.expected.append(
            Expected(
                f"{place.product}: 1 + 1 round trips alone",
                number(ours.trips),
                ours.trips <= sum(place.trips),
            )
        )
    result.expected.append(
        Expected(f"{place.product}: alone within 1.5 x of {other}", f"{ratio} x", ratio.middle <= 1.5)
    )
    trip = percentile([one for round in ours.alone for one in round], 0.5) / 2
    p99 = Spread.of([percentile(one, 0.99) for one in ours.crowd])
    limit = 2 * trip + 2
    what = f"{place.product}: hand-over p99 at most 2 round trips + 2 ms = {number(limit)} ms"
    result.expected.append(Expected(what, f"{p99} ms", p99.middle <= limit))


def _row(side: Side, found: Found) -> tuple[object, ...]:
    def spread(rounds: list[list[float]], share: float) -> Spread:
        return Spread.of([percentile(one, share) for one in rounds])

    counted = [number(count) if count is not None else "-" for count in (found.trips, found.forced)]
    return (
        side.name,
        spread(found.alone, 0.5),
        spread(found.alone, 0.99),
        spread(found.crowd, 0.5),
        spread(found.crowd, 0.99),
        *counted,
    )


def handed_over_ms(turns: Turns) -> list[float]:
    """From the end of one body to the beginning of the next, while all were waiting."""
    ordered = sorted(turns)
    gaps = [(after[0] - before[1]) * 1000 for before, after in itertools.pairwise(ordered)]
    assert all(gap >= 0 for gap in gaps), "two held it at once"
    return gaps[WAITERS : len(gaps) - WAITERS] or gaps


def _trips(side: Side, place: Place, url: str) -> float | None:
    """Per taking and release, over and above what opening the client costs; the middle of three counts."""
    if place.trips is None:
        return None
    if place.product == "etcd":
        return _calls(side, url)
    scheme, _, rest = url.partition("://")
    before, at, tail = rest.rpartition("@")
    address, slash, path = tail.partition("/")
    host, _, port = address.partition(":")
    with porter(host, int(port)) as way:
        through = f"{scheme}://{before}{at}127.0.0.1:{way.port}{slash}{path}"
        counts = []
        for _ in range(3):
            way.turns = 0
            side.alone_ms(through, 1)
            opening, way.turns = way.turns, 0
            side.alone_ms(through, 1 + COUNTED)
            counts.append((way.turns - opening) / COUNTED)
        return sorted(counts)[1]


def _calls(side: Side, url: str) -> float:
    """What etcd itself counted: HTTP/2 has a conversation of its own beside the calls."""
    from urllib.parse import urlsplit
    from urllib.request import urlopen

    def handled() -> float:
        with urlopen(f"http://{urlsplit(url).netloc}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("grpc_server_handled_total"))

    counts = []
    for times in (1, 1 + COUNTED):
        before = handled()
        side.alone_ms(url, times)
        counts.append(handled() - before)
    return (counts[1] - counts[0]) / COUNTED


def _forced(side: Side, url: str, pids: list[int]) -> float:
    counts = []
    for times in (1, 1 + COUNTED):
        with forced_by([one for pid in pids for one in family(pid)]) as written:
            side.alone_ms(url, times)
        counts.append(written.count)
    return (counts[1] - counts[0]) / COUNTED


@contextmanager
def _served(place: Place, folder: Path) -> Iterator[tuple[str, list[int]]]:
    if place.product == "sqlite":
        yield f"sqlite:///{folder / 'state.db'}", []
        return
    with tempfile.TemporaryDirectory(dir=reachable(folder), prefix=f"{place.product}-") as data:
        Path(data).chmod(0o755)
        cluster = asyncio.run(servers.start(place.product, Path(data), **place.settings))
        try:
            pids = [member.pid for member in cluster.members if member.pid is not None]
            yield cluster.url + place.options, pids
        finally:
            asyncio.run(cluster.close())
