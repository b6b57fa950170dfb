"""Table: engine by guarantee, from the results of runs, as the page of guarantees shows it.

A league table made from match reports. Who did not play has no points and no zero either: "not run".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from atoll.errors import ConfigurationError

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


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """The tables as the page of guarantees shows them."""
    engines = merged(runs)
    names = list(engines)
    claims = list(dict.fromkeys(claim for mine in engines.values() for claim in mine))
    parts = [_row(["guarantee", *(f"`{name}`" for name in names)]), _row(["---"] * (len(names) + 1))]
    for claim in claims:
        parts.append(_row([claim, *(_cell(engines[name].get(claim)) for name in names)]))
    parts += ["", "Faults that bit, over all the workloads of the table:", ""]
    faults = list(dict.fromkeys(f for mine in engines.values() for c in mine.values() for f in c["faults"]))
    parts += [_row(["fault", *(f"`{name}`" for name in names)]), _row(["---"] * (len(names) + 1))]
    for fault in faults:
        totals = [sum(c["faults"].get(fault, 0) for c in engines[name].values()) for name in names]
        parts.append(_row([fault, *(f"{total:,}" if total else NOT_RUN for total in totals)]))
    notes = list(_notes(engines))
    if notes:
        parts += ["", "What the short cells leave out:", "", *notes]
    return "\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cell(claim: dict[str, Any] | None) -> str:
    if claim is None or claim["verdict"] == NOT_RUN:
        return NOT_RUN
    kinds = sum(1 for name, times in claim["faults"].items() if times and name != "several processes")
    return f"{claim['verdict']}, {kinds} faults" if kinds > 1 else f"{claim['verdict']}, {kinds} fault"


def _notes(engines: dict[str, dict[str, dict[str, Any]]]) -> Iterable[str]:
    for name, mine in engines.items():
        for claim in mine.values():
            if claim["verdict"] in (NOT_RUN, "not promised", "broken", "not known"):
                why = claim.get("figures") or claim.get("note") or ""
                yield f"- `{name}`, {claim['claim']}: {claim['verdict']} {_bare(why)}".rstrip()


def _bare(text: str) -> str:
    return f"({text})" if text and not text.startswith("(") else text


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def within(page: str, text: str) -> str:
    """The page with the text between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigurationError(f"found no {BEGIN} and {END} on the page; put them where the table goes.")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
