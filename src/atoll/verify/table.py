"""Table: engine by guarantee, from the results of runs, as the page of guarantees shows it.

A league table made from match reports. Who did not play has no points and no zero either: "not run".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from atoll.errors import ConfigurationError
from atoll.verify.lines import TERMS, TOKENS

NOT_RUN = "not run"
KEPT = ("engine", "seed", "seconds", "when", "atoll", "claims_made", "claims")
_OF_CLAIM = ("claim", "workload", "verdict", "figures", "faults", "not_tested", "note")


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The runs in these files: results of `atoll verify`, or collections of them."""
    runs: list[dict[str, Any]] = []
    for path in paths:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read as a result of atoll verify: {error}.") from None
        found = data.get("runs", [data]) if isinstance(data, dict) else None
        if not found or any("claims" not in run or "engine" not in run for run in found):
            raise ConfigurationError(f"{path} is no result of atoll verify; expected one that --json wrote.")
        runs += found
    return runs


def shortened(run: dict[str, Any]) -> dict[str, Any]:
    """A run without its violations and its history: what the table is made from."""
    short = {name: run[name] for name in KEPT if name in run}
    short["claims"] = [{name: c[name] for name in _OF_CLAIM if c.get(name)} for c in run["claims"]]
    return short


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """engine -> claim -> the claim's line; of several runs the worst verdict counts, faults are added."""
    engines: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        mine = engines.setdefault(run["engine"], {})
        for claim in run["claims"]:
            before = mine.get(claim["claim"])
            if before is None or _weight(claim) < _weight(before):
                kept = claim
            else:
                kept = before
            faults = dict(claim.get("faults") or {})
            for name, times in ((before or {}).get("faults") or {}).items():
                faults[name] = faults.get(name, 0) + times
            mine[claim["claim"]] = {**kept, "faults": faults}
    return engines


_ORDER = ("broken", "not promised", "not known", "held", NOT_RUN)


def _weight(claim: dict[str, Any]) -> int:
    return _ORDER.index(claim["verdict"])


SETTING = "several processes"
"""Counted as a fault nowhere: it is the company that the others come in."""
COLUMN_MIN = 4
"""An engine with fewer claims tried is told of in a list: a column of it would be empty."""


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """The tables as the page of guarantees shows them."""
    engines = merged(runs)
    tried = {name: sum(c["verdict"] != NOT_RUN for c in mine.values()) for name, mine in engines.items()}
    names = [name for name in engines if tried[name] >= COLUMN_MIN] or list(engines)
    wide = {name: engines[name] for name in names}
    claims = list(dict.fromkeys(claim for mine in wide.values() for claim in mine))
    parts = _head("guarantee", names)
    parts += [_row([claim, *(_cell(mine.get(claim)) for mine in wide.values())]) for claim in claims]
    if others := [name for name in engines if name not in names]:
        parts += ["", "Other settings of the same servers:", ""]
        for name in others:
            parts += [f"- `{name}`, {_told(claim)}" for claim in engines[name].values()]
    parts += ["", "Faults that bit, over all the workloads of the table:", "", *_head("fault", names)]
    for fault in dict.fromkeys(f for mine in wide.values() for c in mine.values() for f in c["faults"]):
        if fault != SETTING:
            totals = [sum(c["faults"].get(fault, 0) for c in _once(mine)) for mine in wide.values()]
            parts.append(_row([fault, *(f"{total:,}" if total else NOT_RUN for total in totals)]))
    parts += _claimed([run for run in runs if run["engine"] in names])
    if notes := [f"- `{name}`, {told}" for name, mine in wide.items() for told in _notes(mine)]:
        parts += ["", "What the short cells leave out:", "", *notes]
    return "\n".join(parts)


def _head(first: str, names: Sequence[str]) -> list[str]:
    return [_row([first, *(f"`{name}`" for name in names)]), _row(["---"] * (len(names) + 1))]


def _once(mine: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims whose faults count: two lines about one history share theirs."""
    return [claim for claim in mine.values() if claim["claim"] not in (TOKENS.name, TERMS.name)]


_CLAIMED = ("durable", "never_early", "forgets_at_failover", "linearizable", "observe", "dedupe_window_s")


def _claimed(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What the engines said of themselves when they were opened on these servers."""
    made = {run["engine"]: run["claims_made"] for run in runs if run.get("claims_made")}
    if not made:
        return []
    head = [_row(["claim", *(f"`{name}`" for name in made)]), _row(["---"] * (len(made) + 1))]
    rows = [
        _row([f"`{field}`", *(_said(claims.get(field)) for claims in made.values())]) for field in _CLAIMED
    ]
    return ["", "What each claimed when it was opened on these servers:", "", *head, *rows]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cell(claim: dict[str, Any] | None) -> str:
    if claim is None or claim["verdict"] == NOT_RUN:
        return NOT_RUN
    kinds = sum(1 for name, times in claim["faults"].items() if times and name != SETTING)
    return f"{claim['verdict']}, {kinds or 'no'} fault{'' if kinds == 1 else 's'}"


def _notes(mine: dict[str, dict[str, Any]]) -> Iterable[str]:
    return (
        _told(c) for c in mine.values() if c["verdict"] in (NOT_RUN, "not promised", "broken", "not known")
    )


def _told(claim: dict[str, Any]) -> str:
    why = claim.get("figures") or claim.get("note") or ""
    bare = f"({why})" if why and not why.startswith("(") else why
    return f"{claim['claim']}: {claim['verdict']} {bare}".rstrip()


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def within(page: str, text: str) -> str:
    """The page with the text between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigurationError(f"found no {BEGIN} and {END} on the page; put them where the table goes.")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
