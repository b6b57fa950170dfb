"""`atoll status`: the services of a running app, and what needs a look. Exit 1 when something does."""

from __future__ import annotations

import argparse
import json
from typing import Any

from atoll.cli import named, running

COLUMNS = ("SERVICE", "READY", "RESTARTS", "LAST", "REQ/S", "P50/P99 MS")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's words."""
    parser.add_argument(
        "app", nargs="?", help="the app's folder; default: the nearest with an atoll.toml above"
    )


def run(options: argparse.Namespace) -> int:
    """0 when all is well, 1 when something needs a look, 3 when no `atoll up` runs there."""
    status = running.ask(named.app_folder(options.app), {"ask": "status"})["status"]
    print(json.dumps(status, indent=1) if options.json else text(status))
    return 0 if status["ok"] else 1


def text(status: dict[str, Any]) -> str:
    """The table people read."""
    places = ", ".join(f"{place['name']} {place['scheme']}" for place in status["urls"])
    head = f"{status['app']}  up {duration(status['up_s'])}"
    lines = [f"{head}    {places}" if places else head]
    lines += table([COLUMNS, *map(_row, status["services"])])
    lines.append(_summary(status))
    if not status["ok"]:
        lines += [f"! {problem['text']}" for problem in status["problems"]]
    lines.append(f"page {status['admin']}" + (f"   gateway {status['gateway']}" if status["gateway"] else ""))
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    traffic = row["traffic"]
    last = row["last"]
    if row["gave_up"]:
        last = f"{last}, gave up; see: atoll logs {row['service']}"
    elif row["waits_for"]:
        last = f"waits for {', '.join(row['waits_for'])}"
    elif row["state"] not in ("ready", "done", "waiting") and not last:
        last = row["state"]
    times = ""
    if traffic and traffic["p50_ms"] is not None:
        times = f"{traffic['p50_ms']:.0f} / {traffic['p99_ms']:.0f}"
    done = " done" if row["state"] == "done" else ""
    ready = f"{row['ready']}/{row['wanted']}{done}"
    return (
        row["service"],
        ready,
        str(row["restarts"]),
        last,
        f"{traffic['req_s']:g}" if traffic else "",
        times,
    )


def _summary(status: dict[str, Any]) -> str:
    parts = []
    doubt = status["transactions"]
    if doubt["asked"]:
        ids = {row["id"] for row in doubt["rows"]}
        oldest = f" ({max(row['age_s'] for row in doubt['rows']):.0f} s)" if ids else ""
        parts.append(f"{_many(len(ids), 'transaction')} in doubt{oldest}")
    if status["queues"]["asked"]:
        queues = status["queues"]["rows"]
        dead = sum(row["dead"] for row in queues)
        where = ", ".join(row["queue"] for row in queues if row["dead"])
        waiting = sum(row["ready"] + row["delayed"] + row["leased"] for row in queues)
        parts.append(f"{_many(waiting, 'message')} waiting")
        parts.append(f"{_many(dead, 'dead letter')}{f' ({where})' if where else ''}")
    if status["locks"]["asked"]:
        kinds = [row["kind"] for row in status["locks"]["rows"]]
        parts.append(f"{_many(kinds.count('leader'), 'leader')}, {_many(kinds.count('lock'), 'lock')} held")
    return "   ".join(parts) or status["sentence"]


def _many(count: int, one: str, more: str | None = None) -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns lined up, two spaces between."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """As people say it: 12 s, 3 m 5 s, 2 h 14 m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} m"
