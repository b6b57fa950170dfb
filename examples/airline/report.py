"""The report: the record, the twin without Atoll, and Atoll, beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from airline.column import Seen
from airline.recount import Difference, Figures


@dataclass(frozen=True, kw_only=True)
class Result:
    """One column: what was seen while it ran, what its files hold, and how far that is from the record."""

    name: str
    seen: Seen
    system: Figures
    difference: Difference
    exit_code: int
    extra: dict[str, object] = field(default_factory=dict)


def show(record: Figures, results: list[Result]) -> int:
    """Print it; answers the exit code."""
    head = ["", "the record", *(r.name for r in results)]
    lines = [
        *of_figures(record, results),
        [],
        *of_differences(results),
        [],
        *of_faults(results),
        [],
        *of_speed(results),
    ]
    print()
    width = max(len(line[0]) for line in lines if line)
    for line in [head, *lines]:
        print(
            (f"{line[0]:<{width}}" + "".join(f"{cell:>14}" for cell in line[1:])) if line else "", flush=True
        )
    ours = next((r for r in results if r.name == "Atoll"), None)
    faults = wrong_with(ours) if ours else []
    print()
    for fault in faults:
        print(f"NOT AS PROMISED: {fault}")
    if ours and not faults:
        print("Every figure of Atoll's equals the record's. Look inside: examples/airline/.atoll")
    return 1 if faults else 0


def of_figures(record: Figures, results: list[Result]) -> list[list[str]]:
    """Totals as the record has them and as each system holds them."""
    rows: list[tuple[str, Callable[[Figures], int]]] = [
        ("flights flown", lambda f: f.flights),
        ("cancelled, refused", lambda f: f.cancelled),
        ("no tail number, refused", lambda f: f.no_tail),
        ("planes", lambda f: len(f.places)),
        ("distance flown, miles", lambda f: f.distance),
        ("flights in statistics", lambda f: f.counted),
        ("arrival delay, minutes", lambda f: f.delay),
    ]
    return [[name, f"{of(record):,}", *(f"{of(r.system):,}" for r in results)] for name, of in rows]


def of_differences(results: list[Result]) -> list[list[str]]:
    """What must be 0."""
    rows: list[tuple[str, Callable[[Difference], int]]] = [
        ("effects lost", lambda d: d.lost),
        ("effects twice", lambda d: d.twice),
        ("planes nowhere or in two places", lambda d: d.misplaced),
        ("figures that differ, row by row", lambda d: d.figures),
    ]
    lines = [[name, "", *(f"{of(r.difference):,}" for r in results)] for name, of in rows]
    for name in ("in doubt now", "violations"):
        lines.append([name, "", *(said(r.extra.get(name)) for r in results)])
    return lines


def of_faults(results: list[Result]) -> list[list[str]]:
    """What was done to them, and what they did about it."""
    rows: list[tuple[str, Callable[[Result], object]]] = [
        ("killed -9", lambda r: r.seen.kills),
        ("restarts", lambda r: r.seen.restarts),
        ("protocol points hit", points),
        ("in doubt at once, most", lambda r: r.extra.get("in doubt most")),
        ("taken over by another instance", lambda r: r.extra.get("takeovers")),
        ("elections", lambda r: r.extra.get("elections")),
    ]
    return [[name, "", *(said(of(r)) for r in results)] for name, of in rows]


def points(result: Result) -> object:
    asked, missed = result.extra.get("points"), result.extra.get("points not hit")
    return f"{int(str(asked)) - len(missed)} of {asked}" if isinstance(missed, list) else None


def of_speed(results: list[Result]) -> list[list[str]]:
    rows = [
        ("flights/s, faults on", "per_second"),
        ("p50 ms", "p50_ms"),
        ("p99 ms", "p99_ms"),
        ("sent again", "sent_again"),
    ]
    lines = [[name, "", *(f"{r.seen.replay.get(key, 0):,.0f}" for r in results)] for name, key in rows]
    return [*lines, ["seconds", "", *(f"{r.seen.seconds:,.1f}" for r in results)]]


def said(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def wrong_with(result: Result) -> list[str]:
    """Why the demo fails, a sentence each."""
    d, extra, faults = result.difference, result.extra, []
    for what, number in (
        ("lost", d.lost),
        ("twice", d.twice),
        ("misplaced", d.misplaced),
        ("differ", d.figures),
    ):
        if number:
            faults.append(f"{number} figures: {what}")
    if missed := extra["points not hit"]:
        faults.append(f"protocol points not hit: {', '.join(map(str, missed))}")  # type: ignore[call-overload]
    if extra["in doubt now"]:
        faults.append(f"{extra['in doubt now']} branches are still in doubt")
    if extra["violations"]:
        faults.append(f"the auditor found {extra['violations']} violations")
    if not extra["in doubt most"]:
        faults.append("no transaction was ever seen in doubt, so recovery was not tested")
    if not extra["takeovers"]:
        faults.append("no instance took over what another had left")
    if not extra["elections"] or int(str(extra["elections"])) < 2:
        faults.append("the auditor was elected less than twice, so its hand-over was not tested")
    if result.exit_code:
        faults.append(f"`atoll up` ended with {result.exit_code}")
    return faults
